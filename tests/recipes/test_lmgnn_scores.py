import numpy as np
import pytest

from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.hetero_graphs import Task
from jaxgkd.recipes.lmgnn_data import task_data
from jaxgkd.recipes.lmgnn_scores import baselines, degrees_of, metric_of, scores
from tests.recipes.hetero_folder import ACTS, write_films


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return load_hetero_graph(write_films(tmp_path_factory.mktemp("data") / "films"))


def data_of(graph, name, **changed):
    arguments = {"candidates": "uniform", "n_candidates": 5, "score": "distmult", "loss": "contrastive"} | changed
    return task_data(graph, name, **arguments)


def unit(n, seed):
    values = np.random.default_rng(seed).normal(size=(n, 4))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


EMBEDDINGS = {"movie": unit(36, 0), "actor": unit(36, 1)}


def seen_edges(data, name):
    """Every edge that training sees, of all relations, as pairs of (type, row)."""
    found = []
    for kind, edges in data.graph.edges.items():
        rows = data.rows["train"] if kind == ACTS and name != "node_classification" else np.arange(len(edges))
        found += [((kind[0], s), (kind[2], r)) for s, r in zip(edges.senders[rows], edges.receivers[rows], strict=True)]
    return found


def mrr(data, part, of_pair):
    """One edge and one candidate at a time."""
    listed, found = data.candidates[part], []
    for i, (sender, receiver) in enumerate(zip(listed.sources, listed.targets, strict=True)):
        others = [of_pair(sender, other) for other in listed.nodes[listed.start[i] : listed.start[i + 1]]]
        own = of_pair(sender, receiver)
        if others:
            found.append(1 / (1 + sum(x > own for x in others) + 0.5 * sum(x == own for x in others)))
    return np.mean(found)


@pytest.mark.parametrize("candidates", ["uniform", "known_for"])
def test_baselines_of_links(graph, candidates):
    data = data_of(graph, "link_prediction", candidates=candidates)
    seen = seen_edges(data, "link_prediction")
    degree = lambda row: sum(end == ("movie", row) for edge in seen for end in edge)  # noqa: E731
    edges = graph.edges[ACTS]
    trained = edges.receivers[data.rows["train"]].tolist()
    known = graph.edges["actor", "known_for", "movie"]
    known_for = set(zip(known.senders.tolist(), known.receivers.tolist(), strict=True))
    of_pair = {
        "degree": lambda s, r: degree(r),
        "popularity": lambda s, r: trained.count(r) + 1e-9 * degree(r),
        "relations": lambda s, r: (s, r) in known_for,
        "cosine": lambda s, r: float(EMBEDDINGS["actor"][s] @ EMBEDDINGS["movie"][r]),
    }
    found = baselines(data, EMBEDDINGS)
    assert set(found) == set(of_pair) and metric_of(data) == ("mrr", True)
    for name, function in of_pair.items():
        for part in ("valid", "test"):
            np.testing.assert_allclose(found[name][1][part]["mrr"], mrr(data, part, function), rtol=1e-5)
            assert found[name][1][part]["hits@1"] <= found[name][1][part]["hits@10"] <= 1


def test_common_neighbours_of_one_node_type(tmp_path):
    """Two nodes are neighbours where an edge joins them, either way."""

    def of_movies(metadata, tables):
        metadata["edge_types"] = [["movie", "cites", "movie"]]
        metadata["tasks"] = {"link_prediction": {"edge_type": ["movie", "cites", "movie"]}}
        random = np.random.default_rng(0)
        pairs = {tuple(random.integers(0, 36, 2).tolist()) for _ in range(90)}
        tables["edges_movie__cites__movie"] = [{"src": f"m{s}", "dst": f"m{r}"} for s, r in sorted(pairs) if s != r]

    graph = load_hetero_graph(write_films(tmp_path, change=of_movies))
    data = data_of(graph, "link_prediction")
    edges = next(iter(graph.edges.values()))
    rows = data.rows["train"]
    around = {i: set() for i in range(36)}
    trained = set(zip(edges.senders[rows].tolist(), edges.receivers[rows].tolist(), strict=True))
    for s, r in trained:
        around[s].add(r)
        around[r].add(s)
    found = baselines(data, {})
    assert "cosine" not in found
    for part in ("valid", "test"):
        wanted = mrr(data, part, lambda s, r: len(around[int(s)] & around[int(r)]))
        np.testing.assert_allclose(found["common_neighbours"][1][part]["mrr"], wanted, rtol=1e-6)
        # What joins them beside the relation itself: its reverse.
        wanted = mrr(data, part, lambda s, r: (int(r), int(s)) in trained)
        np.testing.assert_allclose(found["relations"][1][part]["mrr"], wanted, rtol=1e-6)


def test_baselines_of_edges_point_where_validation_says(graph):
    data = data_of(graph, "edge_classification")
    seen = seen_edges(data, "edge_classification")
    degree = np.array([sum(end == ("movie", row) for edge in seen for end in edge) for row in range(36)])
    found = baselines(data, EMBEDDINGS)["degree"][1]
    assert metric_of(data) == ("auroc", True)
    sign = None
    for part in ("valid", "test"):
        rows = data.rows[part]
        values, labels = degree[graph.edges[ACTS].receivers[rows]], graph.edges[ACTS].labels[rows]
        pairs = [(a, b) for a in values[labels == 1] for b in values[labels == 0]]
        auroc = np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])
        sign = (auroc >= 0.5) if sign is None else sign
        np.testing.assert_allclose(found[part]["auroc"], auroc if sign else 1 - auroc, rtol=1e-6)
    assert found["valid"]["auroc"] >= 0.5


def test_baselines_of_nodes(graph):
    data = data_of(graph, "node_classification")
    found = baselines(data, EMBEDDINGS)
    labels, train = graph.nodes["movie"].labels, data.rows["train"]
    most = np.bincount(labels[train]).argmax()
    for part in ("valid", "test"):
        np.testing.assert_allclose(found["majority"][1][part]["accuracy"], np.mean(labels[data.rows[part]] == most))
    # Films are neighbours where somebody took part in both.
    people = [set() for _ in range(36)]
    for kind, edges in graph.edges.items():
        for s, r in zip(edges.senders.tolist(), edges.receivers.tolist(), strict=True):
            people[r].add((kind[0], kind[1], s))
    near = np.array([[i != j and bool(people[i] & people[j]) for j in range(36)] for i in range(36)], float)
    known = np.zeros((36, 3))
    known[train] = np.eye(3)[labels[train]]
    votes = near @ known + near @ (near @ known) / (1 + near.sum(1))[:, None] + 1e-6 * known[train].mean(0)
    for part in ("valid", "test"):
        right = np.mean(votes[data.rows[part]].argmax(1) == labels[data.rows[part]])
        np.testing.assert_allclose(found["neighbours"][1][part]["accuracy"], right)


def test_a_type_without_any_edge_has_no_degree(graph):
    data = data_of(graph, "node_classification", left_out=("directs",))
    assert degrees_of(data, "director").tolist() == [0.0] * 6
    np.testing.assert_array_equal(
        degrees_of(data, "actor"),
        sum(np.bincount(e.senders, minlength=36) for k, e in graph.edges.items() if k[0] == "actor"),
    )


def test_scores_of_classes_and_values(graph, tmp_path):
    data = data_of(graph, "node_classification")
    labels = graph.nodes["movie"].labels[data.rows["test"]]
    outputs = np.eye(3, dtype=np.float32)[(labels + (np.arange(len(labels)) < 2)) % 3]
    found = scores(data, "test", outputs)
    np.testing.assert_allclose(found["accuracy"], 1 - 2 / len(labels), rtol=1e-6)
    predicted = outputs.argmax(1)
    f1 = [
        2 * ((predicted == c) & (labels == c)).sum() / ((predicted == c).sum() + (labels == c).sum()) for c in range(3)
    ]
    np.testing.assert_allclose(found["macro_f1"], np.mean(f1), rtol=1e-5)

    def values(metadata, tables):
        metadata["node_types"]["movie"] = {"text": ["title"], "value": "year", "split": "part"}
        metadata["tasks"] = {"node_regression": {"node_type": "movie"}}
        for i, row in enumerate(tables["nodes_movie"]):
            row["year"] = i

    regression = data_of(load_hetero_graph(write_films(tmp_path, change=values)), "node_regression")
    assert metric_of(regression) == ("rmse", False) and regression.graph.tasks["node_regression"] == Task(
        "node_regression", "movie"
    )
    rows = regression.rows["test"]
    found = scores(regression, "test", np.zeros((len(rows), 1), np.float32))
    np.testing.assert_allclose([found["rmse"], found["mae"]], [np.sqrt(np.mean(rows**2.0)), rows.mean()], rtol=1e-6)
    mean = baselines(regression, {})["majority"][1]["test"]
    np.testing.assert_allclose(mean["mae"], np.abs(rows - regression.rows["train"].mean()).mean(), rtol=1e-5)
