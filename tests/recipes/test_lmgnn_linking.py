import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.graphs.negatives import KnownEdges, in_batch_negatives
from jaxgkd.nn.hetero_tasks import Links
from jaxgkd.recipes.lmgnn_cotraining import CoTraining
from jaxgkd.recipes.lmgnn_data import task_data
from jaxgkd.recipes.lmgnn_linking import _TASK, _asked, linked_texts, make_likeness, tune_on_links
from jaxgkd.recipes.lmgnn_texts import graph_texts
from jaxgkd.teachers.hops import TextEncoder
from tests.recipes.hetero_folder import ACTS, SMALL, run_films, summary_of, write_films

STEPS = CoTraining(steps=4, batch_size=3, lm_texts=6, lm_learning_rate=0.01, refresh_every=9, evaluate_every=2)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return load_hetero_graph(write_films(tmp_path_factory.mktemp("data") / "films"))


@pytest.fixture(scope="module")
def texts(graph, bert_folder):
    return graph_texts(graph, TextEncoder.load(str(bert_folder)), tuned_layers=1, max_tokens=12, on_line=lambda _: None)


def asked(graph, name, **changed):
    return task_data(graph, name, candidates="uniform", n_candidates=5, score="distmult", loss="contrastive", **changed)


@pytest.fixture(scope="module")
def pairs(graph, texts):
    return linked_texts(asked(graph, "node_classification"), texts)


def test_pairs_are_the_edges_between_texts_that_pass_messages(graph, texts, pairs):
    def of(kind, rows=slice(None)):
        ends = graph.edges[kind].senders[rows] + texts.first["actor"], graph.edges[kind].receivers[rows]
        return {tuple(sorted(pair)) for pair in zip(*map(np.ndarray.tolist, ends), strict=True)}

    known = ("actor", "known_for", "movie")
    assert texts.first["movie"] == 0
    assert set(map(tuple, pairs.tolist())) == of(ACTS) | of(known)
    # Directors have no text, so their relation joins none. What validates or tests is not among the pairs.
    data = asked(graph, "link_prediction", left_out=("known_for",))
    found = set(map(tuple, linked_texts(data, texts).tolist()))
    assert found == of(ACTS, data.rows["train"]) and len(found) < len(of(ACTS))


def test_the_loss_is_a_softmax_over_cosines_of_texts_that_are_not_linked():
    random = np.random.default_rng(0)
    table = random.normal(size=(6, 4)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    senders, receivers = np.array([0, 1, 2]), np.array([3, 4, 5])
    known = KnownEdges.from_edges(np.array([0, 0, 1, 2]), np.array([3, 4, 4, 5]), 6, 6)
    nodes, where = in_batch_negatives(senders, receivers, known)
    model = make_likeness(4, 6)(jax.random.key(0))
    states = model.states({"text": jnp.asarray(table)}, {})
    links = Links(*map(jnp.asarray, (senders, receivers, nodes, where, np.ones(3))))
    scores = 20.0 * table[senders].astype(np.float64) @ table[receivers].T
    counted = np.array([[True, False, True], [True, True, True], [True, True, True]])
    expected = [logsumexp(row[there]) - row[i] for i, (row, there) in enumerate(zip(scores, counted, strict=True))]
    np.testing.assert_allclose(_TASK.losses(model, states, links), expected, rtol=1e-5)


def test_pairs_that_validate_are_shown_to_no_step(texts, pairs):
    shared = _asked(pairs, texts.n_texts)
    trained = set(zip(*(np.asarray(ends).tolist() for ends in shared["train"][:2]), strict=True))
    valid = shared["valid"]
    asked = np.stack([valid.senders, valid.receivers], axis=1)[np.asarray(valid.positive)]
    everyone = {tuple(pair) for pair in np.concatenate([pairs, pairs[:, ::-1]]).tolist()}
    assert len(asked) == len(pairs) // 10 and {tuple(pair) for pair in asked.tolist()} <= everyone - trained
    assert trained | {tuple(pair[::step]) for pair in asked.tolist() for step in (1, -1)} == everyone
    # They are ranked among texts that nothing joins to them.
    others = np.stack([valid.senders, valid.receivers], axis=1)[np.asarray(valid.entries)]
    assert not {tuple(pair) for pair in others.tolist()} & everyone


def test_linked_texts_come_nearer(texts, pairs):
    table = jnp.asarray(texts.read(texts.weights))
    longer = CoTraining(steps=40, batch_size=8, lm_texts=16, lm_learning_rate=0.003, evaluate_every=20)
    found = tune_on_links(pairs, texts, table, longer, seed=0)
    assert found.best_step > 0 and found.scores[found.best_step] > found.scores[0]
    np.testing.assert_allclose(texts.read(found.lm), found.table, atol=1e-6)
    assert np.abs(found.table - table).max() > 0.01


def test_seeds_repeat_and_the_same_pairs_validate(texts, pairs):
    table = jnp.asarray(texts.read(texts.weights))
    one, again, other = (tune_on_links(pairs, texts, table, STEPS, seed=seed) for seed in (0, 0, 1))
    assert one.scores == again.scores and set(one.scores) == {0, 2, 4}
    np.testing.assert_array_equal(one.table, again.table)
    assert one.scores[0] == other.scores[0] and one.scores != other.scores


def test_texts_that_nothing_joins_are_refused(bert_folder, texts, tmp_path, capsys):
    def apart(metadata, tables):
        metadata["edge_types"] = metadata["edge_types"][1:2]
        metadata["tasks"] = {"node_classification": {"node_type": "movie"}}

    data = write_films(tmp_path / "apart", change=apart)
    assert run_films(data, tmp_path / "out", bert_folder, "--stages", "lm", **SMALL, supervision="links") == 2
    assert "'--supervision': 0 pairs of texts are linked" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_text_that_is_linked_to_all_others_is_refused(bert_folder, tmp_path, capsys):
    def crowded(metadata, tables):
        metadata["node_types"]["actor"].pop("text")
        metadata["edge_types"].append(["movie", "follows", "movie"])
        films = [row["node"] for row in tables["nodes_movie"]]
        tables["edges_movie__follows__movie"] = [{"src": films[0], "dst": film} for film in films[1:]]

    data = write_films(tmp_path / "crowded", change=crowded)
    assert run_films(data, tmp_path / "out", bert_folder, "--stages", "lm", **SMALL, supervision="links") == 2
    assert "'--supervision': a text is linked to all others" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("supervision", ["links", pytest.param("both", marks=pytest.mark.thorough)])
def test_a_run_that_asks_which_texts_are_linked(supervision, bert_folder, tmp_path):
    data, out = write_films(tmp_path / "films"), tmp_path / "out"
    assert run_films(data, out, bert_folder, "--stages", "lm", **SMALL, supervision=supervision) == 0
    summary = summary_of(out)
    assert ("linked" in summary["results"]) == (supervision == "both")
    assert summary["results"]["teacher"]["test"][1] is None and "fine_tuned" in summary["results"]
    assert any("asked which texts are linked" in note for note in summary["notes"])
    if supervision == "both":
        return
    # Its language models are found by a run that starts from it.
    second = tmp_path / "second"
    assert run_films(data, second, bert_folder, "--stages", "lm", "--start", str(out), **SMALL) == 0
    for name in ("teacher", "fine_tuned"):
        assert summary_of(second)["results"][name]["test"] == summary["results"][name]["test"]
