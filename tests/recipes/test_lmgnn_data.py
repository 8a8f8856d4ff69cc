from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.hetero_graphs import EdgeSet, make_hetero_graph
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.nn.hetero_tasks import EdgeTask, LinkTask, NodeTask
from jaxgkd.recipes.lmgnn_data import PARTS, _pairs, _parts, task_data
from tests.recipes.hetero_folder import ACTS, DIRECTS, write_films

TASKS = ("node_classification", "edge_classification", "link_prediction")
KNOWN = ("actor", "known_for", "movie")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return load_hetero_graph(write_films(tmp_path_factory.mktemp("data") / "films"))


def data_of(graph, name, **changed):
    arguments = {"candidates": "uniform", "n_candidates": 5, "score": "distmult", "loss": "contrastive"} | changed
    return task_data(graph, name, **arguments)


def rebuilt(graph, **changed):
    parts = {"nodes": graph.nodes, "edges": graph.edges} | changed
    return make_hetero_graph(name=graph.name, tasks=graph.tasks.values(), **parts)


def assert_same(one, other):
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for leaf, same in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(leaf, same)


def pairs_in(layout, kind):
    """The edges of a relation that pass messages."""
    edges = layout[kind[2]]
    mine = np.asarray(edges.relation) == edges.edge_types.index(kind)
    return set(zip(edges.senders()[mine].tolist(), np.asarray(edges.layout.receivers)[mine].tolist(), strict=True))


def pairs_of(edges, rows=slice(None)):
    return set(zip(edges.senders[rows].tolist(), edges.receivers[rows].tolist(), strict=True))


def test_nodes_are_asked_for_by_their_part(graph):
    data = data_of(graph, "node_classification")
    movies = graph.nodes["movie"]
    assert data.task == NodeTask("movie", 3)
    for part in PARTS:
        np.testing.assert_array_equal(data.rows[part], np.flatnonzero(movies.given_split == part))
        np.testing.assert_array_equal(data.asked[part].rows, data.rows[part])
        np.testing.assert_array_equal(np.argmax(data.asked[part].targets, 1), movies.labels[data.rows[part]])
    assert pairs_in(data.layout, ACTS) == pairs_of(graph.edges[ACTS])
    assert data.negatives is None and not data.candidates and not data.notes


@pytest.mark.parametrize("name", TASKS[1:])
def test_no_edge_that_validates_or_tests_passes_messages(graph, name):
    data, edges = data_of(graph, name), graph.edges[ACTS]
    wanted = pairs_of(edges, data.rows["train"])
    assert pairs_in(data.layout, ACTS) == wanted
    reverse = pairs_in(data.layout, ("movie", "rev_acts_in", "actor"))
    assert {(receiver, sender) for sender, receiver in reverse} == wanted
    held_out = pairs_of(edges, np.concatenate([data.rows["valid"], data.rows["test"]]))
    assert held_out and not held_out & wanted
    assert pairs_in(data.layout, DIRECTS) == pairs_of(graph.edges[DIRECTS])
    # Positions among the training edges are positions among the layout's.
    into = data.layout["movie"]
    first = sum(into.n_edges[: into.edge_types.index(ACTS)])
    order = np.asarray(into.layout.order)
    given = np.zeros((len(order), 2), int)
    given[order] = np.stack([into.senders(), np.asarray(into.layout.receivers)], axis=1)
    asked = np.stack([data.asked["train"].senders, data.asked["train"].receivers], axis=1)
    np.testing.assert_array_equal(given[first : first + len(asked)], asked)


@pytest.mark.parametrize("name", TASKS[1:])
def test_edges_that_nothing_is_asked_of_pass_messages_like_any_other(graph, name):
    """Those without a label or a part; not those of a part that is held out."""
    edges, random = graph.edges[ACTS], np.random.default_rng(0)
    split, labels = edges.given_split.copy(), edges.labels.copy()
    split[random.random(len(edges)) < 0.2] = ""
    labels[random.random(len(edges)) < 0.2] = -1
    some = rebuilt(graph, edges={**graph.edges, ACTS: replace(edges, given_split=split, labels=labels)})
    data = data_of(some, name)
    held_out = np.isin(split, ("valid", "test"))
    assert pairs_in(data.layout, ACTS) == pairs_of(edges, ~held_out)
    asked = (labels >= 0) | (name == "link_prediction")
    assert data.rows["train"].tolist() == np.flatnonzero((split == "train") & asked).tolist()
    assert any(f"{np.sum(~held_out & ~((split == 'train') & asked))} edges of actor" in note for note in data.notes)
    # The others come after the training edges, whose positions are those of the layout.
    n_train = len(data.rows["train"])
    assert pairs_of(edges, data.rows["train"]) == set(
        zip(*(ends[:n_train].tolist() for ends in data.seen), strict=True)
    )
    assert len(data.seen[0]) == np.sum(~held_out)


def test_with_a_drawn_split_edges_without_a_label_pass_messages(graph):
    edges = graph.edges[ACTS]
    labels = edges.labels.copy()
    labels[::4] = -1
    some = rebuilt(graph, edges={**graph.edges, ACTS: replace(edges, given_split=None, labels=labels)})
    data = data_of(some, "edge_classification")
    passing = pairs_of(edges, data.rows["train"]) | pairs_of(edges, slice(None, None, 4))
    assert pairs_in(data.layout, ACTS) == passing


def test_classes_of_edges(graph):
    data, edges = data_of(graph, "edge_classification"), graph.edges[ACTS]
    assert data.task == EdgeTask(ACTS, 2)
    for part in PARTS:
        np.testing.assert_array_equal(np.argmax(data.asked[part].targets, 1), edges.labels[data.rows[part]])
        assert pairs_of(data.asked[part]) == pairs_of(edges, data.rows[part])


def lists_of(asked):
    """Edge → what it is ranked among, by hand."""
    pairs = list(zip(np.asarray(asked.senders).tolist(), np.asarray(asked.receivers).tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    found = {}
    for i, positive in enumerate(np.asarray(asked.positive).tolist()):
        entries = [pairs[j] for j in np.asarray(asked.entries)[asked.starts[i] : asked.starts[i + 1]]]
        assert {source for source, _ in entries} <= {pairs[positive][0]}
        found[pairs[positive]] = sorted(receiver for _, receiver in entries)
    return found


def test_links_are_ranked_among_nodes_without_an_edge(graph):
    data, edges = data_of(graph, "link_prediction"), graph.edges[ACTS]
    assert data.task == LinkTask(ACTS) and data.negatives is None
    for part in ("valid", "test"):
        lists = lists_of(data.asked[part])
        assert set(lists) == pairs_of(edges, data.rows[part])
        for (sender, _), others in lists.items():
            assert len(set(others)) == 5 and not {(sender, other) for other in others} & pairs_of(edges)
    assert data.asked["train"].negatives.shape == (len(data.rows["train"]), 0)
    assert data.candidates["valid"].sha256 != data.candidates["test"].sha256


def test_links_are_ranked_among_what_a_relation_gives(graph):
    data = data_of(graph, "link_prediction", candidates="known_for")
    edges, known = pairs_of(graph.edges[ACTS]), pairs_of(graph.edges[KNOWN])
    ranked = 0
    for part in ("valid", "test"):
        for (sender, receiver), others in lists_of(data.asked[part]).items():
            assert others == sorted(r for s, r in known - edges if s == sender) and receiver not in others
            ranked += 1
    asked = sum(len(data.rows[part]) for part in ("valid", "test"))
    counts = [int(note.split()[0]) for note in data.notes if "not ranked" in note]
    assert 0 < ranked < asked and sum(counts) == asked - ranked
    # Negatives of training: it knows of no edge but its own.
    starts, rows = data.negatives
    train = pairs_of(edges := graph.edges[ACTS], data.rows["train"])
    for sender in range(graph.n_node["actor"]):
        assert rows[starts[sender] : starts[sender + 1]].tolist() == sorted(r for s, r in known - train if s == sender)
    assert len(edges) and "the receivers of known_for" in str(data.notes)


def test_candidates_come_by_default_from_a_relation_that_holds_the_edges_and_others(graph):
    def notes(of, name="link_prediction"):
        return str(data_of(of, name, candidates="auto").notes)

    assert "the receivers of known_for" in notes(graph)
    fewer = EdgeSet(graph.edges[KNOWN].senders[1:], graph.edges[KNOWN].receivers[1:])
    assert "among 5 nodes" in notes(rebuilt(graph, edges={**graph.edges, KNOWN: fewer}))
    edges = graph.edges[ACTS]
    same = rebuilt(graph, edges={**graph.edges, KNOWN: EdgeSet(edges.senders, edges.receivers)})
    assert "among 5 nodes" in notes(same)
    with pytest.raises(
        ConfigError, match="'--candidates': no edge of the valid part has another receiver of 'known_fo"
    ):
        data_of(same, "link_prediction", candidates="known_for")
    # In the test part alone there is nothing to rank an edge among.
    tested = edges.senders[edges.given_split == "test"]
    others = graph.edges[KNOWN]
    pairs = pairs_of(edges) | {(s, r) for s, r in pairs_of(others) if s not in tested}
    ends = np.array(sorted(pairs), np.int32)
    part = rebuilt(graph, edges={**graph.edges, KNOWN: EdgeSet(ends[:, 0], ends[:, 1])})
    assert "among 5 nodes" in notes(part)
    with pytest.raises(ConfigError, match="no edge of the test part has another receiver"):
        data_of(part, "link_prediction", candidates="known_for")


@pytest.mark.parametrize("part", ["valid", "test"])
def test_edges_of_one_class_alone_have_no_auroc(graph, part):
    edges = graph.edges[ACTS]
    labels = np.where(edges.given_split == part, 1, edges.labels).astype(np.int32)
    alike = rebuilt(graph, edges={**graph.edges, ACTS: replace(edges, labels=labels)})
    with pytest.raises(DataError, match=f"the {part} part of actor–acts_in–movie has edges of one class alone"):
        data_of(alike, "edge_classification")
    data_of(alike, "link_prediction")


def shuffled(values, rows, seed=0):
    values = values.copy()
    values[rows] = np.random.default_rng(seed).permutation(values[rows])
    return values


def test_labels_that_validate_or_test_are_seen_by_no_one_in_training(graph):
    """Shuffle them, and all that training reads is the same."""
    for name, of, field in (("node_classification", "nodes", "movie"), ("edge_classification", "edges", ACTS)):
        before = data_of(graph, name)
        held_out = np.concatenate([before.rows["valid"], before.rows["test"]])
        target = getattr(graph, of)[field]
        labels = shuffled(target.labels, held_out)
        assert (labels != target.labels).any()
        changed = {of: {**getattr(graph, of), field: replace(target, labels=labels)}}
        after = data_of(rebuilt(graph, **changed), name)
        assert_same((before.layout, before.asked["train"]), (after.layout, after.asked["train"]))
        assert before.edge_types == after.edge_types and before.split_sha256 == after.split_sha256


@pytest.mark.parametrize("candidates", ["uniform", "known_for"])
def test_edges_that_test_may_as_well_not_be_there(graph, candidates):
    """Take them out of the file, all but one of a class: what training reads is the same."""
    edges = graph.edges[ACTS]
    tested = np.flatnonzero(edges.given_split == "test")
    tested = np.delete(tested, np.unique(edges.labels[tested], return_index=True)[1])
    fields = {name: np.delete(values, tested) for name, values in vars(edges).items() if name != "class_names"}
    fewer = rebuilt(graph, edges={**graph.edges, ACTS: EdgeSet(**fields, class_names=edges.class_names)})
    for name in TASKS[1:]:
        before, after = (data_of(g, name, candidates=candidates) for g in (graph, fewer))
        assert len(after.rows["test"]) == 2 < len(before.rows["test"])
        assert_same((before.layout, before.asked["train"]), (after.layout, after.asked["train"]))
        assert_same(before.negatives, after.negatives)
        if name == "edge_classification":
            assert_same(before.asked["valid"], after.asked["valid"])


def test_a_split_is_drawn_once_where_none_is_given(graph):
    bare = rebuilt(graph, nodes={**graph.nodes, "movie": replace(graph.nodes["movie"], given_split=None)})
    one, other = data_of(bare, "node_classification"), data_of(bare, "node_classification")
    assert one.split_sha256 == other.split_sha256 and any("drawn at random" in note for note in one.notes)
    assert [len(one.rows[part]) for part in PARTS] == [22, 7, 7]
    assert sorted(np.concatenate(list(one.rows.values())).tolist()) == list(range(36))


def test_unlabelled_nodes_are_asked_of_no_one(graph):
    labels = graph.nodes["movie"].labels.copy()
    labels[::5] = -1
    some = rebuilt(graph, nodes={**graph.nodes, "movie": replace(graph.nodes["movie"], labels=labels)})
    data = data_of(some, "node_classification")
    assert not set(np.concatenate(list(data.rows.values())).tolist()) & set(range(0, 36, 5))


def test_relations_may_be_left_out(graph):
    data = data_of(graph, "node_classification", left_out=("acts_in",))
    assert ACTS not in data.edge_types and {kind[1] for kind in data.layout["movie"].edge_types} == {
        "directs",
        "known_for",
    }


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("node_regression", {}, "field '--task': films has no task node_regression, its tasks are node_class"),
        ("node_classification", {"left_out": ("plays",)}, "field '--without': there is no relation 'plays'"),
        ("link_prediction", {"left_out": ("acts_in",)}, "field '--without': the task is about actor–acts_in–movie"),
        ("node_classification", {"left_out": ("acts_in", "directs", "known_for")}, "no relation is left"),
        ("link_prediction", {"candidates": "directs"}, "field '--candidates': there is no other relation"),
        ("link_prediction", {"candidates": "acts_in"}, "field '--candidates': there is no other relation"),
        (
            "link_prediction",
            {"n_candidates": 36},
            "field '--n-candidates': an edge of the valid part has fewer than 36",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(graph, name, changed, words):
    with pytest.raises(ConfigError, match=words):
        data_of(graph, name, **changed)


def test_an_empty_part_is_refused(graph):
    split = np.where(graph.nodes["movie"].given_split == "valid", "", graph.nodes["movie"].given_split)
    bare = rebuilt(graph, nodes={**graph.nodes, "movie": replace(graph.nodes["movie"], given_split=split)})
    with pytest.raises(DataError, match="the valid part of the split is empty"):
        data_of(bare, "node_classification")


def test_opposites_are_known_of_drawn_splits_of_one_type_alone(tmp_path):
    def of_movies(metadata, tables, given):
        kind = ["movie", "cites", "movie"]
        metadata["edge_types"] = [kind]
        metadata["tasks"] = {"link_prediction": {"edge_type": kind} | ({"split": "part"} if given else {})}
        random = np.random.default_rng(0)
        pairs = sorted({tuple(random.integers(0, 36, 2).tolist()) for _ in range(300)})
        rows = [{"src": f"m{s}", "dst": f"m{r}", "part": random.choice(PARTS)} for s, r in pairs]
        tables["edges_movie__cites__movie"] = rows

    def found(given):
        change = partial(of_movies, given=given)
        return data_of(load_hetero_graph(write_films(tmp_path / str(given), change=change)), "link_prediction")

    assert found(True).opposite is None
    data = found(False)
    pairs = list(zip(*(ends.tolist() for ends in data.seen), strict=True))
    wanted = [pairs.index((r, s)) if (r, s) in pairs else -1 for s, r in pairs]
    assert data.opposite.tolist() == wanted and 0 < sum(place >= 0 for place in wanted) < len(wanted)


def test_both_directions_of_a_link_are_in_the_same_part():
    random = np.random.default_rng(0)
    one, other = random.integers(0, 60, 150), random.integers(0, 60, 150)
    senders, receivers = np.concatenate([one, other]), np.concatenate([other, one])
    pairs = np.unique(np.stack([senders, receivers]), axis=1)
    edges = EdgeSet(*pairs.astype(np.int32))
    number = _pairs(edges)
    rows = _parts(None, np.ones(len(edges), bool), (0.8, 0.1, 0.1), [], number)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(edges)))
    of_pair = {part: set(number[at]) for part, at in rows.items()}
    assert not of_pair["train"] & (of_pair["valid"] | of_pair["test"]) and not of_pair["valid"] & of_pair["test"]
    assert len(rows["train"]) == pytest.approx(0.8 * len(edges), abs=12)
