import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.hetero_graphs import make_hetero_graph
from jaxgkd.errors import ConfigError
from jaxgkd.language.lora import LoraConfig, merge
from jaxgkd.nn.hetero_problem import Drawing, asked_for
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes import lmgnn_cotraining
from jaxgkd.recipes.lmgnn import _others
from jaxgkd.recipes.lmgnn_cotraining import CoTraining, cotrain
from jaxgkd.recipes.lmgnn_data import labelled_by, task_data
from jaxgkd.recipes.lmgnn_networks import Workplace
from jaxgkd.recipes.lmgnn_stages import few_links
from jaxgkd.recipes.lmgnn_texts import embed, embedding, embedding_again, graph_texts
from jaxgkd.teachers.hops import TextEncoder
from tests.recipes.hetero_folder import ACTS, write_films

STEPS = CoTraining(
    steps=3, batch_size=6, lm_texts=4, lm_learning_rate=0.01, refresh_every=2, refresh_texts=5, evaluate_every=2
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return load_hetero_graph(write_films(tmp_path_factory.mktemp("data") / "films"))


@pytest.fixture(scope="module")
def texts(graph, bert_folder):
    return graph_texts(graph, TextEncoder.load(str(bert_folder)), tuned_layers=1, max_tokens=12, on_line=lambda _: None)


def place_of(graph, texts, name):
    data = task_data(graph, name, candidates="uniform", n_candidates=5, score="distmult", loss="contrastive")
    return Workplace(data, texts, Drawing(6, "uniform", 3), "sage", 8, 1, _others(graph))


@pytest.fixture(scope="module")
def nodes(graph, texts):
    place = place_of(graph, texts, "node_classification")
    return place, place.maker(1), jnp.asarray(texts.read(texts.weights))


@pytest.fixture(scope="module")
def links(graph, texts):
    place = place_of(graph, texts, "link_prediction")
    return place, place.maker(1), jnp.asarray(texts.read(texts.weights))


def train(work, settings=STEPS, seed=0, **arguments):
    place, make, table = work
    return cotrain(
        make, place.data.task, place.drawing, place.texts, place.shared(table), settings, seed=seed, **arguments
    )


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_texts_of_all_types_stand_below_each_other(graph, texts, nodes):
    assert texts.first == {"movie": 0, "actor": 36} and texts.n_texts == 72
    table = nodes[2]
    assert table.shape == (72, 16)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1.0, rtol=1e-5)
    of_type = texts.by_type(table)
    np.testing.assert_array_equal(of_type["actor"], table[36:])
    # Any rows, in any order and more than once, one after another or padded to a batch of another shape.
    rows = np.array([70, 3, 3, 0])
    np.testing.assert_allclose(texts.read(texts.weights, rows), table[rows], rtol=1e-4, atol=1e-5)
    states, mask = texts.batch(rows)
    assert states.shape[:2] == mask.shape and mask.shape[0] == 4
    np.testing.assert_allclose(embed(texts.graphdef, texts.weights, states, mask), table[rows], rtol=1e-4, atol=1e-5)


def test_inputs_and_shapes_of_a_place(nodes, graph):
    place, make, table = nodes
    inputs = place.inputs(table)
    assert list(inputs) == ["movie", "actor", "director"] and inputs["director"].dtype == jnp.int32
    model = make(jax.random.key(0))
    # Beside 16 numbers of its text a film has a count of each of three relations, an actor of two.
    assert model.encoder.project["movie"].kernel.shape == (16 + 3, 8)
    assert model.encoder.project["actor"].kernel.shape == (16 + 2, 8)
    assert model.encoder.embeddings["director"].shape == (graph.n_node["director"], 8)
    assert place.maker(0)(jax.random.key(0)).encoder.project["movie"].kernel.shape == (16, 8)
    shared = place.shared(table)
    assert set(shared) == {"inputs", "layout", "train", "valid"}


@pytest.mark.thorough
def test_without_learning_the_language_model_stays_and_so_does_the_table(nodes, texts):
    """Also where texts are read and written back, and read again."""
    found = train(nodes, replace(STEPS, lm_learning_rate=0.0))
    np.testing.assert_array_equal(flat(found.lm), flat(texts.weights))
    np.testing.assert_allclose(found.table, nodes[2], rtol=1e-4, atol=1e-5)
    assert set(found.scores) == {0, 2, 3} and found.step_milliseconds > 0
    # What a caller hands over is still there afterwards.
    assert np.isfinite(flat(texts.weights)).all() and np.isfinite(np.asarray(nodes[2])).all()


def test_adapters_change_queries_and_values_by_matrices_of_their_rank(nodes, texts):
    seen = []
    found = record(seen, train, nodes, replace(STEPS, lora_rank=2, lm_learning_rate=0.05))
    whole = nnx.merge(texts.graphdef, texts.weights)
    adapted = merge(whole, jax.tree.map(jnp.asarray, seen[-1][0]["lm"]), LoraConfig(2))
    for name, kernel in whole.weights()["layers"].items():
        change = np.asarray(adapted.weights()["layers"][name]) - np.asarray(kernel)
        ranks = [np.linalg.matrix_rank(layer, tol=1e-5) for layer in change]
        assert ranks == [2 if name in ("query_kernel", "value_kernel") else 0] * len(change)
    assert set(seen[-1][0]["lm"]) == {"query", "value"} and flat(nnx.split(adapted)[1]).shape == flat(found.lm).shape
    # What was read in the last step is what the adapted model says.
    rows = np.asarray(seen[-1][5][1])
    before = merge(whole, jax.tree.map(jnp.asarray, seen[-1][1][0]["lm"]), LoraConfig(2))
    np.testing.assert_allclose(seen[-1][2][rows], texts.read(nnx.split(before)[1], rows), rtol=1e-4, atol=1e-5)
    assert np.abs(seen[-1][2][rows] - texts.read(texts.weights, rows)).max() > 1e-3


def test_layers_that_are_computed_again_have_the_same_gradients(nodes, texts):
    states, mask = texts.batch(np.arange(4))
    towards = np.random.default_rng(0).normal(size=(4, 16))

    def gradients(of):
        total = lambda w: jnp.sum(towards * of(nnx.merge(texts.graphdef, w), states, mask))  # noqa: E731
        return jax.jit(jax.grad(total))(texts.weights)

    np.testing.assert_allclose(flat(gradients(embedding_again)), flat(gradients(embedding)), rtol=1e-4, atol=1e-6)
    kept, again = (train(nodes, replace(STEPS, rematerialise=rematerialise)) for rematerialise in (False, True))
    np.testing.assert_allclose(flat(again.lm), flat(kept.lm), atol=1e-4)


def test_frozen_steps_keep_the_language_model_and_train_the_network(nodes, texts):
    _, make, _ = nodes
    _, params, rest = nnx.split(make(jax.random.key(3)), nnx.Param, ...)
    seen = []
    record(seen, train, nodes, replace(STEPS, freeze_steps=2, evaluate_every=10), start=(params, rest))
    before, after = flat(texts.weights), [flat(trained["lm"]) for trained, *_ in seen]
    np.testing.assert_array_equal(after[0], before)
    np.testing.assert_array_equal(after[1], before)
    assert np.abs(after[2] - before).max() > 1e-4
    networks = [flat(params), *(flat(trained["gnn"]) for trained, *_ in seen)]
    assert all(np.abs(one - other).max() > 1e-5 for one, other in itertools.pairwise(networks))


def record(seen, function, *arguments, **named):
    """Runs something, and keeps what every step of training gave, and was given."""
    step = lmgnn_cotraining._step

    def kept(program, rates, base, trained, rest, moments, table, key, dropout, batch, shared):
        given = jax.tree.map(np.array, (trained, rest, table))
        result = step(program, rates, base, trained, rest, moments, table, key, dropout, batch, shared)
        trained, _, _, table, loss = result
        seen.append((jax.tree.map(np.array, trained), given, np.array(table), float(loss), key, batch))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lmgnn_cotraining, "_step", kept)
        return function(*arguments, **named)


@pytest.mark.parametrize("kind", ["nodes", pytest.param("links", marks=pytest.mark.thorough)])
def test_a_step_is_what_its_equation_says(kind, request, texts):
    """k texts are as the language model reads them now, all others as the table has them; the loss is by hand."""
    work = request.getfixturevalue(kind)
    place, make, table = work
    seen = []
    record(seen, train, work, replace(STEPS, evaluate_every=10, refresh_every=10, dropout=0.0))
    task, shared = place.data.task, place.shared(table)

    @partial(jax.jit, static_argnums=(0,))
    def loss_of(graphdef, params, rest, inputs, key, chosen, shared):
        asked, layout = asked_for(task, place.drawing, jax.random.split(key)[0], chosen, shared)
        model = nnx.merge(graphdef, params, rest)
        losses = task.losses(model, model.states(inputs, layout), asked)
        return jnp.sum(asked.weights * losses) / jnp.sum(asked.weights)

    chosen_before = set()
    for _, (trained, rest, before), after, loss, key, (chosen, rows, *_) in seen:
        rows = np.asarray(rows)
        assert len(rows) == 4 == len(set(rows.tolist())) and len(chosen) == 6
        fresh = texts.read(trained["lm"], rows)
        others = np.setdiff1d(np.arange(72), rows)
        np.testing.assert_allclose(after[rows], fresh, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(after[others], before[others])
        mixed = before.copy()
        mixed[rows] = fresh
        wanted = loss_of(graphdef_of(make), trained["gnn"], rest, place.inputs(jnp.asarray(mixed)), key, chosen, shared)
        np.testing.assert_allclose(loss, wanted, rtol=1e-3)
        # The texts are of what is asked for.
        train_part = place.data.asked["train"]
        if kind == "nodes":
            assert set(rows.tolist()) <= set(np.asarray(train_part.rows)[chosen].tolist())
        else:
            negatives = asked_for(task, place.drawing, jax.random.split(key)[0], chosen, shared)[0]
            negatives = np.asarray(negatives.negatives)[np.asarray(negatives.negative_where)]
            ends = [np.asarray(train_part.receivers)[chosen], 36 + np.asarray(train_part.senders)[chosen], negatives]
            assert set(rows.tolist()) <= set(np.concatenate(ends).tolist())
        if kind == "nodes" and len(chosen_before) < 18:
            # An epoch asks for every node once.
            assert not chosen_before & set(chosen.tolist())
            chosen_before |= set(chosen.tolist())
    assert np.abs(flat(seen[-1][0]["lm"]) - flat(texts.weights)).max() > 1e-4


def test_few_links_are_compared_by_texts_read_anew_alone(links, monkeypatch):
    """Else how new an embedding is would tell links from what is not linked."""
    place, make, table = links
    b, drawing = few_links(place.drawing, 16)
    assert (b, drawing.n_negatives) == (3, 3)
    seen, shared, task = [], place.shared(table), place.data.task

    def nothing_learned(program, rates, base, trained, rest, moments, table, key, dropout, batch, shared):
        seen.append((key, batch))
        return trained, rest, moments, table, 0.0

    monkeypatch.setattr(lmgnn_cotraining, "_step", nothing_learned)
    few = replace(place, drawing=drawing), make, table
    train(few, replace(STEPS, batch_size=b, lm_texts=16, evaluate_every=10, refresh_every=10))
    assert len(seen) == 3
    for key, (chosen, rows, *_) in seen:
        asked, _ = asked_for(task, drawing, jax.random.split(key)[0], chosen, shared)
        negatives = np.asarray(asked.negatives)[np.asarray(asked.negative_where)]
        named = np.concatenate([asked.receivers, 36 + np.asarray(asked.senders), negatives])
        assert len(negatives) > 0 and set(named.tolist()) <= set(np.asarray(rows).tolist())


def test_a_negative_is_read_anew_as_often_as_a_link(links):
    """Of the texts that a step names each has the same chance."""
    place, make, table = links
    program = lmgnn_cotraining._Program(
        graphdef_of(make), None, place.data.task, place.drawing, (), (), False, None, False
    )
    chosen, shared, random = np.arange(6) * 2, place.shared(table), np.random.default_rng(0)
    ends = lmgnn_cotraining._ends(program, jax.random.key(5), shared, chosen, jnp.asarray(chosen))
    assert [name for name, _ in ends] == ["actor", "movie", "movie"] and len(ends[2][1]) > 12
    named = np.unique(np.concatenate([rows + place.texts.first[name] for name, rows in ends]))
    times = np.zeros(72)
    for _ in range(2000):
        times[lmgnn_cotraining._text_rows(place.texts, ends, 4, random)] += 1
    assert set(np.flatnonzero(times).tolist()) == set(named.tolist())
    expected = 2000 * 4 / len(named)
    assert np.sum((times[named] - expected) ** 2 / expected) < len(named) + 4 * np.sqrt(2 * len(named))


@pytest.mark.parametrize("negatives", ["uniform", "candidates", "joint", "in_batch"])
@pytest.mark.parametrize("n_texts", [3, 4, 9, 16, 64])
def test_few_links_name_no_more_texts_than_are_read(negatives, n_texts):
    b, drawing = few_links(Drawing(1024, negatives, 16), n_texts)
    of_all = negatives == "joint"
    named = {"in_batch": 2 * b}.get(negatives, 2 * b + (1 if of_all else b) * drawing.n_negatives)
    assert b >= 1 and drawing.n_negatives <= 16 and drawing.negatives == negatives
    assert named <= n_texts or (negatives == "in_batch" and b == 2)


def test_texts_read_longest_ago_are_read_again(nodes, texts):
    """After two steps five texts that no step had read are those of the language model as it is then."""
    seen = []
    record(seen, train, nodes, replace(STEPS, evaluate_every=10))
    read = np.unique(np.concatenate([np.asarray(batch[1]) for *_, batch in seen[:2]]))
    weights, entering = seen[1][0]["lm"], seen[2][1][2]
    stale = np.setdiff1d(np.arange(72), read)[:5]
    np.testing.assert_allclose(entering[stale], texts.read(weights, stale), rtol=1e-4, atol=1e-5)
    untouched = np.setdiff1d(np.arange(72), np.concatenate([read, stale]))
    np.testing.assert_array_equal(entering[untouched], np.asarray(nodes[2])[untouched])


def test_texts_need_not_be_read_again(nodes, texts):
    assert texts.read(texts.weights, np.zeros(0, int)).shape == (0, 16)
    seen = []
    record(seen, train, nodes, replace(STEPS, evaluate_every=10, refresh_texts=0))
    read = np.unique(np.concatenate([np.asarray(batch[1]) for *_, batch in seen]))
    untouched = np.setdiff1d(np.arange(72), read)
    np.testing.assert_array_equal(seen[-1][2][untouched], np.asarray(nodes[2])[untouched])


def test_the_best_state_goes_with_its_table_and_seeds_repeat(nodes, texts):
    one, same, other = (train(nodes, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(flat((one.lm, one.params)), flat((same.lm, same.params)))
    assert one.scores == same.scores
    assert (flat(one.params) != flat(other.params)).any()
    best = max(one.scores, key=lambda step: (one.scores[step], -step))
    assert one.best_step == best
    np.testing.assert_allclose(one.table, texts.read(jax.tree.map(jnp.asarray, one.lm)), rtol=1e-4, atol=1e-5)


def test_a_network_without_convolutions_needs_the_texts_that_validate_alone(nodes, texts, monkeypatch):
    place, _, table = nodes
    alone, asked = (place, place.maker(0), table), []
    read = type(texts).read
    monkeypatch.setattr(type(texts), "read", lambda self, *of: asked.append(of[1:]) or read(self, *of))
    settings = replace(STEPS, batch_size=4, steps=6, refresh_every=10)
    valid = texts.first["movie"] + place.data.rows["valid"]
    few, whole = train(alone, settings, validated=valid), train(alone, settings)
    assert few.scores == whole.scores and few.best_step == whole.best_step > 0
    np.testing.assert_array_equal(flat((few.lm, few.params)), flat((whole.lm, whole.params)))
    np.testing.assert_allclose(few.table, whole.table, rtol=1e-4, atol=1e-5)
    # Before the first step, three times at validation, and once all texts of the best.
    assert [len(each[0]) if each and each[0] is not None else 72 for each in asked[:5]] == [72, *[len(valid)] * 3, 72]


def test_what_a_step_asks_for_passes_no_message_in_it(links):
    """Both directions of the six links of a step are out of the graph, and no other."""
    place, _, table = links
    shared = place.shared(table)
    chosen = jnp.arange(6) * 2
    _, layout = jax.jit(asked_for, static_argnums=(0, 1))(
        place.data.task, place.drawing, jax.random.key(0), chosen, shared
    )
    for name in ("movie", "actor"):
        out = np.asarray(layout[name].kept) == 0
        assert out.sum() == 6
        kinds = {layout[name].edge_types[number] for number in np.asarray(layout[name].relation)[out].tolist()}
        assert kinds == {ACTS if name == "movie" else ("movie", "rev_acts_in", "actor")}


def test_labels_that_are_held_out_move_no_weight(graph, texts, nodes):
    """With others there the last weights are the same bit by bit: only which step is kept goes by them."""
    place, make, table = nodes
    movies = graph.nodes["movie"]
    held_out = np.flatnonzero(np.isin(movies.given_split, ("valid", "test")))
    labels = movies.labels.copy()
    labels[held_out] = (labels[held_out] + 1) % 3
    changed = {**graph.nodes, "movie": replace(movies, labels=labels)}
    other = make_hetero_graph(name="films", nodes=changed, edges=graph.edges, tasks=graph.tasks.values())
    place_of_other = place_of(other, texts, "node_classification")
    last = []
    for work in ((place, make, table), (place_of_other, make, table)):
        seen = []
        scores = record(seen, train, work, replace(STEPS, evaluate_every=1)).scores
        last.append((flat(seen[-1][0]), seen[-1][2], [loss for _, _, _, loss, _, _ in seen], scores))
    np.testing.assert_array_equal(last[0][0], last[1][0])
    np.testing.assert_array_equal(last[0][1], last[1][1])
    assert last[0][2] == last[1][2] and last[0][3] != last[1][3]


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_only_labels_of_some_weight_are_asked_for(nodes, weight):
    data, logits = nodes[0].data, np.random.default_rng(0).normal(size=(36, 3)).astype(np.float32)
    found = labelled_by(data, data.task, logits, weight)
    rows, weights, trained = np.asarray(found.rows), np.asarray(found.weights), data.rows["train"]
    others = np.setdiff1d(np.arange(36), trained)
    wanted = [*(trained if weight < 1 else ()), *(others if weight else ())]
    assert rows.tolist() == sorted(wanted) and (weights > 0).all()
    np.testing.assert_allclose(weights.sum(), 36, rtol=1e-5)
    gold = np.isin(rows, trained)
    np.testing.assert_allclose(weights[gold].sum() / 36, 1 - weight, rtol=1e-5)
    by_row = dict(zip(data.asked["train"].rows.tolist(), np.asarray(data.asked["train"].targets), strict=True))
    for row, target in zip(rows.tolist(), np.asarray(found.targets), strict=True):
        np.testing.assert_allclose(target, by_row.get(row, jax.nn.softmax(logits[row])), rtol=1e-5)


def test_a_loss_that_is_no_number_names_the_flag(nodes):
    _, params, rest = nnx.split(nodes[1](jax.random.key(3)), nnx.Param, ...)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    with pytest.raises(ConfigError, match=r"--lm-learning-rate.*not finite in step 1"):
        train(nodes, start=(broken, rest))


def test_more_texts_than_there_are_nodes_asked_for_are_filled_up(nodes):
    found = train(nodes, replace(STEPS, steps=1, batch_size=2, lm_texts=9))
    assert found.scores.keys() == {0, 1}
