from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.graphs.negatives import KnownEdges
from jaxgkd.nn.hetero import HeteroEncoder
from jaxgkd.nn.hetero_problem import (
    Drawing,
    RankedPairs,
    asked_for,
    drawn,
    hetero_problem,
    pair_outputs,
    ranks,
    score,
)
from jaxgkd.nn.hetero_tasks import EdgeTask, HeteroModel, Links, LinkTask, Nodes, NodeTask, Pairs, TaskStates
from jaxgkd.nn.node_problem import default_optimizer
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.metrics import area_under_roc
from jaxgkd.training.ranking import ranks_of_lists
from tests.nn.typed_graph import CITES, KINDS, N_NODE, WIDTH, WRITES, layout_of, random_edges, random_states

EDGES = random_edges()
N_CITES = len(EDGES[CITES][0])
LINKS = LinkTask(CITES)


def train_links():
    none = jnp.zeros((N_CITES, 0), jnp.int32)
    senders, receivers = (jnp.asarray(ends, jnp.int32) for ends in EDGES[CITES])
    return Links(senders, receivers, none, none.astype(bool), jnp.arange(1.0, N_CITES + 1))


def shared(**changed):
    # Of source 4 nothing is given, of the others every paper that it has no edge to but itself.
    known = set(zip(*(ends.tolist() for ends in EDGES[CITES]), strict=True))
    lists = [[r for r in range(6) if (s, r) not in known and s != r] if s != 4 else [] for s in range(6)]
    inputs = {**random_states(3, 5), "author": jnp.arange(4)}
    return {
        "inputs": inputs,
        "layout": layout_of(EDGES),
        "train": train_links(),
        "known": KnownEdges.from_edges(*EDGES[CITES], 6, 6),
        "candidate_starts": jnp.asarray(np.cumsum([0, *map(len, lists)]), jnp.int32),
        "candidates": jnp.asarray([row for rows in lists for row in rows], jnp.int32),
        **changed,
    }


asked = jax.jit(asked_for, static_argnums=(0, 1))


@pytest.mark.parametrize("kind", ["uniform", "joint", "in_batch", "candidates"])
def test_an_edge_that_is_asked_for_passes_no_message_and_negatives_are_others(kind):
    together = shared()
    for seed in range(5):
        chosen = jnp.asarray(np.random.default_rng(seed).permutation(N_CITES)[:4])
        batch, layout = asked(LINKS, Drawing(4, kind, 6), jax.random.key(seed), chosen, together)
        assert_left_out(layout, np.asarray(chosen))
        np.testing.assert_array_equal(batch.senders, EDGES[CITES][0][chosen])
        np.testing.assert_array_equal(batch.receivers, EDGES[CITES][1][chosen])
        np.testing.assert_array_equal(batch.weights, np.asarray(chosen) + 1.0)
        negatives, where = np.asarray(batch.negatives), np.asarray(batch.negative_where)
        # Those that are the same for all edges are there once.
        assert negatives.shape == {"in_batch": (4,), "joint": (6,)}.get(kind, (4, 6))
        negatives = np.broadcast_to(negatives, where.shape)
        assert where.shape == ((4, 4) if kind == "in_batch" else (4, 6))
        assert negatives.min() >= 0 and negatives.max() < 6
        senders = np.broadcast_to(np.asarray(batch.senders)[:, None], negatives.shape)
        edge = together["known"].contains(senders, negatives)
        assert (negatives == np.asarray(batch.receivers)[:, None])[edge].any() or kind != "in_batch"
        if kind == "candidates":
            assert not (where & edge).any()
        else:
            np.testing.assert_array_equal(where, ~edge)
        if kind == "in_batch":
            np.testing.assert_array_equal(negatives, np.tile(batch.receivers, (4, 1)))
        if kind == "candidates":
            starts, given = np.asarray(together["candidate_starts"]), np.asarray(together["candidates"])
            for sender, row, there in zip(batch.senders.tolist(), negatives, where, strict=True):
                own_list = set(given[starts[sender] : starts[sender + 1]].tolist())
                assert set(row[there].tolist()) <= own_list and there.all() == bool(own_list)


def assert_left_out(layout, chosen):
    """Exactly the chosen edges are out, in both directions."""
    wanted = np.ones(N_CITES)
    wanted[chosen] = 0.0
    paper = layout["paper"]
    kept = np.zeros(sum(paper.n_edges))
    kept[np.asarray(paper.layout.order)] = np.asarray(paper.kept)
    for number, kind in enumerate(paper.edge_types):
        first = sum(paper.n_edges[:number])
        expected = wanted if kind[0] == kind[2] == "paper" else np.ones(paper.n_edges[number])
        np.testing.assert_array_equal(kept[first : first + paper.n_edges[number]], expected)


def test_every_candidate_is_drawn():
    together, chosen = shared(), jnp.array([0])
    batch, _ = asked(LINKS, Drawing(1, "candidates", 200), jax.random.key(0), chosen, together)
    sender = int(batch.senders[0])
    starts, given = np.asarray(together["candidate_starts"]), np.asarray(together["candidates"])
    assert set(np.unique(batch.negatives).tolist()) == set(given[starts[sender] : starts[sender + 1]].tolist())


def test_a_step_draws_distinct_edges_and_others_with_another_key():
    together = shared()
    draw = jax.jit(lambda key: drawn(LINKS, Drawing(5, "uniform", 2), key, together))
    seen = set()
    for seed in range(4):
        batch, layout = draw(jax.random.key(seed))
        pairs = list(zip(batch.senders.tolist(), batch.receivers.tolist(), strict=True))
        assert len(set(pairs)) == 5
        edges = list(zip(*(ends.tolist() for ends in EDGES[CITES]), strict=True))
        assert_left_out(layout, np.array([edges.index(pair) for pair in pairs]))
        seen.add(tuple(sorted(pairs)))
    assert len(seen) > 1
    # More than there are is all of them.
    everything, _ = drawn(LINKS, Drawing(100, "uniform", 2), jax.random.key(0), together)
    assert len(everything.senders) == N_CITES


def test_nodes_and_edge_classes_are_asked_for_by_position():
    task = NodeTask("paper", 2)
    train = Nodes(jnp.array([5, 1, 3]), jnp.eye(3, 2), jnp.array([1.0, 2.0, 3.0]))
    together = shared(train=train)
    batch, layout = asked_for(task, Drawing(), jax.random.key(0), jnp.array([2, 0]), together)
    assert batch.rows.tolist() == [3, 5] and batch.weights.tolist() == [3.0, 1.0] and layout is together["layout"]
    whole, _ = drawn(task, Drawing(), jax.random.key(0), together)
    assert whole is train
    pairs = Pairs(*train_links()[:2], jnp.zeros((N_CITES, 2)), jnp.ones(N_CITES))
    batch, layout = asked(EdgeTask(CITES, 2), Drawing(), jax.random.key(0), jnp.array([1, 3]), shared(train=pairs))
    assert_left_out(layout, np.array([1, 3]))
    np.testing.assert_array_equal(batch.receivers, EDGES[CITES][1][[1, 3]])


@pytest.mark.parametrize("task", [LINKS, EdgeTask(CITES, 2)])
def test_edges_behind_those_that_train_stay_in_the_graph(task):
    whole = train_links()
    few = Links(*(values[:5] for values in whole))
    train = few if task is LINKS else Pairs(*few[:2], jnp.zeros((5, 2)), jnp.ones(5))
    for seed in range(3):
        batch, layout = drawn(task, Drawing(2, "uniform", 3), jax.random.key(seed), shared(train=train))
        edges = list(zip(*(ends.tolist() for ends in EDGES[CITES]), strict=True))
        asked_pairs = zip(batch.senders.tolist(), batch.receivers.tolist(), strict=True)
        assert_left_out(layout, np.array([edges[:5].index(pair) for pair in asked_pairs]))


@pytest.mark.parametrize("task", [LINKS, EdgeTask(CITES, 2)])
def test_what_a_step_asks_does_not_depend_on_the_opposite_edge(task):
    """With it in the graph and without it the loss is the same."""
    senders, receivers = np.array([0, 1, 1, 2, 3]), np.array([1, 0, 2, 4, 3])
    opposite = jnp.array([1, 0, -1, -1, 4])
    graphdef, weights = nnx.split(make(task, jax.random.key(0)))

    @jax.jit
    def losses(weights, chosen, together):
        model = nnx.merge(graphdef, weights)
        batch, layout = asked_for(task, Drawing(1, "uniform", 3), jax.random.key(1), chosen, together)
        return task.losses(model, model.states(together["inputs"], layout), batch)

    def loss(n, chosen, *, told=True):
        """Of chosen ones of the edges 0→1, 1→2, 2→4 and 3→3, to which 1→0 is added where n is 5."""
        rows = np.array([0, 2, 3, 4, 1])[:n]
        ends = senders[rows], receivers[rows]
        place = {0: 0, 1: 4, 2: 1, 3: 2, 4: 3} if n == 5 else {0: 0, 1: -1, 2: 1, 3: 2, 4: 3}
        pairs = jnp.asarray([place.get(other, -1) for other in np.asarray(opposite)[rows].tolist()])
        none = jnp.zeros((n, 0), jnp.int32)
        train = Links(*map(jnp.asarray, ends), none, none.astype(bool), jnp.ones(n))
        train = train if task is LINKS else Pairs(*train[:2], jnp.tile(jnp.eye(2)[:1], (n, 1)), jnp.ones(n))
        changed = {"train": train, "layout": layout_of(random_edges() | {CITES: ends})}
        together = shared(**changed, **({"opposite": pairs} if told else {}))
        together["known"] = KnownEdges.from_edges(np.array([0]), np.array([1]), 6, 6)
        return np.asarray(losses(weights, jnp.asarray(chosen), together))

    np.testing.assert_allclose(loss(5, [0]), loss(4, [0]), rtol=1e-5)
    assert np.abs(loss(5, [0], told=False) - loss(4, [0])).max() > 1e-4
    # One without an opposite, and one that leads to itself.
    np.testing.assert_allclose(loss(5, [1]), loss(5, [1], told=False), rtol=1e-5)
    np.testing.assert_allclose(loss(5, [3]), loss(5, [3], told=False), rtol=1e-5)


compiled_ranks = jax.jit(ranks)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_ranks_are_those_of_lists(seed):
    """Ties, and scores that are no numbers, included."""
    random = np.random.default_rng(seed)
    scores = random.choice([0.0, 1.0, 2.0, np.nan] if seed % 2 else [0.0, 1.0, 2.0], 12).astype(np.float32)
    cuts = np.sort(random.integers(0, 21, 4))
    pairs = RankedPairs(
        jnp.zeros(12, int),
        jnp.zeros(12, int),
        jnp.asarray(random.integers(0, 12, 5)),
        jnp.asarray(random.integers(0, 12, 20)),
        jnp.asarray([0, *cuts, 20]),
    )
    wanted = ranks_of_lists(scores[np.asarray(pairs.positive)], scores[np.asarray(pairs.entries)], pairs.starts)
    np.testing.assert_allclose(compiled_ranks(jnp.asarray(scores), pairs), wanted)


def make(task, key, layers=1):
    d_in = {"paper": 5 + 3, "author": 0, "venue": 5}
    rngs = nnx.Rngs(params=key)
    encoder = HeteroEncoder("sage", d_in, N_NODE, KINDS, WIDTH, layers, rngs=rngs)
    return HeteroModel(encoder, task, WIDTH, KINDS, rngs=rngs)


def ranked_pairs():
    pairs = [(0, 1), (0, 2), (0, 3), (4, 0), (4, 5)]
    ends = (jnp.asarray([pair[end] for pair in pairs]) for end in (0, 1))
    return RankedPairs(*ends, jnp.array([0, 4]), jnp.array([1, 2, 3]), jnp.array([0, 2, 3]))


def scored(task, model, states, asked):
    """Compiled as a whole: operation by operation takes longer."""
    return jax.jit(lambda states, asked: score(task, model, states, asked))(states, asked)


def said(task, model, *asked):
    return jax.jit(lambda *asked: task.outputs(model, *asked))(*asked)


def test_scores_are_the_metrics(monkeypatch):
    model = make(LINKS, jax.random.key(0))
    given = {**random_states(3, 5), "author": jnp.arange(4)}
    states = TaskStates((random_states(0), random_states(1)), given, layout_of(random_edges()))
    pairs = ranked_pairs()
    values = np.asarray(said(LINKS, model, states, pairs.senders, pairs.receivers))
    monkeypatch.setattr("jaxgkd.nn.hetero_problem._PAIRS", 2)
    blocked = pair_outputs(LINKS, model, states, pairs.senders, pairs.receivers)
    np.testing.assert_allclose(blocked, values, rtol=1e-5)
    first = 1 + (values[[1, 2]] > values[0]).sum()
    second = 1 + (values[3] > values[4])
    np.testing.assert_allclose(scored(LINKS, model, states, pairs), (1 / first + 1 / second) / 2, rtol=1e-6)

    task = EdgeTask(WRITES, 2)
    model = make(task, jax.random.key(1))
    labels = np.array([0, 1, 1, 0, 1])
    asked_pairs = Pairs(jnp.arange(5) % 4, jnp.arange(5), jnp.eye(2)[labels], jnp.ones(5))
    logits = np.asarray(said(task, model, states, asked_pairs.senders, asked_pairs.receivers))
    auc = area_under_roc(logits[:, 1] - logits[:, 0], labels, np.ones(5, bool))
    np.testing.assert_allclose(scored(task, model, states, asked_pairs), auc, rtol=1e-5)
    three = EdgeTask(WRITES, 3)
    model = make(three, jax.random.key(1))
    logits = np.asarray(said(three, model, states, asked_pairs.senders, asked_pairs.receivers))
    got = scored(three, model, states, asked_pairs._replace(targets=jnp.eye(3)[labels]))
    np.testing.assert_allclose(got, (logits.argmax(1) == labels).mean(), rtol=1e-6)

    value = NodeTask("paper", 1, "regression")
    model = make(value, jax.random.key(2))
    rows, targets = jnp.array([0, 3]), jnp.array([[1.0], [2.0]])
    errors = np.asarray(said(value, model, states, rows)) - np.asarray(targets)
    got = scored(value, model, states, Nodes(rows, targets, jnp.ones(2)))
    np.testing.assert_allclose(got, -np.sqrt((errors**2).mean()), rtol=1e-5)


@pytest.fixture(scope="module")
def problem():
    return hetero_problem(lambda key: make(LINKS, key), LINKS, Drawing(4, "uniform", 3), default_optimizer)


def run_data(n=1):
    values = {"learning_rate": 0.02, "weight_decay": 1e-4, "dropout": 0.2}
    return {"settings": {key: jnp.full(n, value, jnp.float32) for key, value in values.items()}}


def test_a_step_is_the_weighted_mean_over_what_was_drawn(problem):
    """By hand: the edges drawn by the first half of the key, asked of the graph without them."""
    together = shared()
    run = jax.tree.map(lambda leaf: leaf[0], run_data())
    made = lambda key: make(LINKS, key)  # noqa: E731
    params, rest = problem.init(jax.random.key(0), run)
    key = jax.random.key(7)
    compiled = jax.jit(problem.loss)
    loss, _ = compiled(params, rest, key, 0.0, {**run, "inputs": together["inputs"]}, together)

    @jax.jit
    def by_hand(params, rest, together):
        draw_key, dropout_key = jax.random.split(key)
        batch, layout = drawn(LINKS, Drawing(4, "uniform", 3), draw_key, together)
        model = nnx.merge(graphdef_of(made), params, rest)
        states = model.states(together["inputs"], layout, dropout_key=dropout_key, dropout_rate=0.2)
        return batch.weights, LINKS.losses(model, states, batch)

    weights, losses = by_hand(params, rest, together)
    np.testing.assert_allclose(loss, np.average(losses, weights=weights), rtol=1e-5)
    # Inputs of a run's own come before those of all.
    own = {**run, "inputs": {**together["inputs"], "paper": together["inputs"]["paper"] * 0}}
    other, _ = compiled(params, rest, key, 0.0, own, together)
    assert abs(float(other - loss)) > 1e-4


def test_drawings_and_tasks_may_be_static():
    assert hash(replace(Drawing(), n_edges=3)) == hash(Drawing(3)) and hash(LINKS) == hash(LinkTask(CITES))
