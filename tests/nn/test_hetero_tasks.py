import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs import degrees, without_edges
from jaxgkd.nn.hetero import HeteroEncoder
from jaxgkd.nn.hetero_tasks import (
    LOSSES,
    SCORES,
    EdgeTask,
    HeteroModel,
    ImitationTask,
    Links,
    LinkTask,
    Nodes,
    NodeTask,
    Pairs,
    TaskStates,
)
from tests.nn.typed_graph import (
    CITES,
    KINDS,
    N_NODE,
    WIDTH,
    WRITES,
    double,
    layer_norm,
    layout_of,
    linear,
    random_edges,
    random_states,
)

D_IN = {"paper": 5, "author": 0, "venue": 2}
COUNTS = {"paper": 3, "author": 0, "venue": 0}


def model_of(task, edge_types=(), *, counts=True, layers=1, **arguments):
    d_in = {name: d + (COUNTS[name] if counts and d else 0) for name, d in D_IN.items()}
    rngs = nnx.Rngs(0)
    encoder = HeteroEncoder("rgcn", d_in, N_NODE, KINDS, WIDTH, layers, rngs=rngs)
    return HeteroModel(encoder, task, WIDTH, edge_types, counts=counts, rngs=rngs, **arguments)


def states(seed=0):
    inputs = {**random_states(3, 5), "author": jnp.arange(4)}
    return TaskStates((random_states(seed), random_states(seed + 10)), inputs, layout_of(random_edges()))


def outputs(task, model, *asked):
    """Compiled as a whole: operation by operation takes longer."""
    return jax.jit(lambda *asked: task.outputs(model, *asked))(*asked)


def losses_of(task, model, states, batch):
    return jax.jit(lambda states, batch: task.losses(model, states, batch))(states, batch)


def joined(model, states, name):
    side_by_side = np.concatenate([double(state[name]) for state in states.hidden], axis=1)
    return np.maximum(layer_norm(model.norm, side_by_side), 0.0)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_node_classes():
    task = NodeTask("paper", 3)
    model, rows = model_of(task), jnp.array([4, 0, 4])
    logits = linear(model.head, joined(model, states(), "paper"))[np.asarray(rows)]
    np.testing.assert_allclose(outputs(task, model, states(), rows), logits, rtol=1e-4, atol=1e-5)
    targets = np.array([[1, 0, 0], [0.2, 0.5, 0.3], [0, 0, 1]])
    losses = losses_of(task, model, states(), Nodes(rows, jnp.asarray(targets, jnp.float32), jnp.ones(3)))
    np.testing.assert_allclose(losses, -(targets * log_softmax(logits)).sum(axis=1), rtol=1e-4, atol=1e-5)


def test_node_values():
    task = NodeTask("author", 1, "regression")
    model, rows = model_of(task), jnp.array([2, 1])
    values = linear(model.head, joined(model, states(), "author"))[np.asarray(rows)]
    losses = losses_of(task, model, states(), Nodes(rows, jnp.array([[3.0], [-1.0]]), jnp.ones(2)))
    np.testing.assert_allclose(losses, (values[:, 0] - [3.0, -1.0]) ** 2, rtol=1e-4)


def test_edge_classes():
    task = EdgeTask(WRITES, 2)
    model, senders, receivers = model_of(task), jnp.array([0, 3, 1]), jnp.array([5, 5, 2])
    one = linear(model.head.source, joined(model, states(), "author"))[np.asarray(senders)]
    other = linear(model.head.destination, joined(model, states(), "paper"))[np.asarray(receivers)]
    d = one.shape[1] // 2
    hidden = one[:, :d] + other[:, :d] + linear(model.head.product, one[:, d:] * other[:, d:])
    logits = linear(model.head.out, np.maximum(hidden, 0.0))
    np.testing.assert_allclose(outputs(task, model, states(), senders, receivers), logits, rtol=1e-3, atol=1e-5)
    targets = np.eye(2)[[1, 0, 1]]
    batch = Pairs(senders, receivers, jnp.asarray(targets, jnp.float32), jnp.ones(3))
    wanted = -(targets * log_softmax(logits)).sum(axis=1)
    np.testing.assert_allclose(losses_of(task, model, states(), batch), wanted, rtol=1e-3, atol=1e-5)


def score_of(kind, one, other, relation):
    if kind == "dot":
        return (one * other).sum(-1)
    if kind == "distmult":
        return (one * relation * other).sum(-1)
    if kind == "transe_l1":
        return 12.0 - np.abs(one + relation - other).sum(-1)
    if kind == "transe_l2":
        return 12.0 - np.sqrt(((one + relation - other) ** 2).sum(-1))
    d = one.shape[-1] // 2
    turned = (one[..., :d] + 1j * one[..., d:]) * np.exp(1j * relation)
    return 12.0 - np.abs(turned - (other[..., :d] + 1j * other[..., d:])).sum(-1)


@pytest.mark.parametrize("kind", SCORES)
def test_link_scores_and_their_losses(kind):
    task = LinkTask(WRITES, kind)
    model, given = model_of(task), random_states(3, 5)
    states = TaskStates((random_states(0), random_states(10)), given, layout_of(random_edges()))
    senders, receivers = np.array([0, 3]), np.array([5, 2])
    negatives, where = np.array([[1, 5, 0], [2, 2, 4]]), np.array([[True, False, True], [False, False, True]])
    sources, destinations = (joined(model, states, name) for name in ("author", "paper"))
    relation = None if model.head.relation is None else double(model.head.relation)
    assert (relation is None) == (kind == "dot")

    def wanted(s, r):
        one, other = linear(model.head.source, sources)[s], linear(model.head.destination, destinations)[r]
        cosine = (double(given["author"])[s] * double(given["paper"])[r]).sum(-1)
        popularity = linear(model.head.popularity, destinations)[r, 0]
        return score_of(kind, one, other, relation) + popularity + 5.0 * cosine

    positive, others = wanted(senders, receivers), wanted(senders[:, None], negatives)
    got = outputs(task, model, states, jnp.asarray(senders)[:, None], jnp.asarray(negatives))
    np.testing.assert_allclose(got, others, rtol=1e-3, atol=1e-4)
    batch = Links(*map(jnp.asarray, (senders, receivers, negatives, where, np.ones(2, np.float32))))
    contrastive = [
        -np.log(np.exp(p - m) / (np.exp(p - m) + np.exp(n[w] - m).sum()))
        for p, n, w, m in zip(positive, others, where, np.maximum(positive, others.max(axis=1)), strict=True)
    ]
    np.testing.assert_allclose(losses_of(task, model, states, batch), contrastive, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", SCORES)
def test_negatives_that_all_edges_share_are_those_of_each(kind):
    """Beside what else joins two papers."""
    task = LinkTask(CITES, kind)
    model = model_of(task, KINDS)
    model.head.between[...] = jnp.array([0.2])
    given = TaskStates((random_states(0), random_states(10)), random_states(3, 5), layout_of(random_edges()))
    ends, shared = (jnp.array([0, 3, 4]), jnp.array([1, 2, 0])), jnp.array([5, 1, 2, 0])
    where = jnp.asarray(np.random.default_rng(0).random((3, 4)) < 0.7)
    one = losses_of(task, model, given, Links(*ends, shared, where, jnp.ones(3)))
    each = losses_of(task, model, given, Links(*ends, jnp.tile(shared, (3, 1)), where, jnp.ones(3)))
    np.testing.assert_allclose(one, each, rtol=1e-4, atol=1e-5)


def test_products_with_shared_negatives_hold_no_vector_of_every_pair():
    """Of b edges among b, forwards and backwards: b² numbers some times, but not times the 128 of a vector."""
    task, b = LinkTask(WRITES), 512
    model = model_of(task)
    graphdef, params = nnx.split(model)
    rows = jnp.zeros(b, jnp.int32)

    def total(params, negatives, where):
        batch = Links(rows, rows, negatives, where, jnp.ones(b))
        return task.losses(nnx.merge(graphdef, params), states(), batch).mean()

    compiled = jax.jit(jax.grad(total)).lower(params, rows, jnp.ones((b, b), bool)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * 4 * b * b


def test_inputs_of_another_width_or_none_are_not_compared():
    """The head's score is all there is where one end has learned embeddings."""
    task = LinkTask(WRITES)
    model, (s, r) = model_of(task), (jnp.array([0, 3]), jnp.array([5, 2]))
    sources, destinations = (model.joined(states(), name) for name in ("author", "paper"))
    wanted = model.head(sources, destinations, s, r, jnp.zeros((2, 0)))
    np.testing.assert_allclose(outputs(task, model, states(), s, r), wanted, rtol=1e-5)


def test_heads_are_told_what_else_joins_two_nodes():
    """Citations the other way round; those that are asked for, and their reverses, are left out of the layout."""
    s, r = (values.ravel() for values in np.meshgrid(np.arange(6), np.arange(6)))
    citing, cited = random_edges()[CITES]
    first = np.arange(len(citing)) == 0
    thinned = states()._replace(layout=without_edges(layout_of(random_edges()), {CITES: jnp.asarray(first)}))
    left = set(zip(citing[~first].tolist(), cited[~first].tolist(), strict=True))
    backwards = np.array([(b, a) in left for a, b in zip(s.tolist(), r.tolist(), strict=True)], float)
    assert 0 < backwards.sum() < len(left) + 1

    model = model_of(LinkTask(CITES), KINDS)
    before = outputs(LinkTask(CITES), model, thinned, s, r)
    model.head.between[...] = jnp.array([0.2])
    after = outputs(LinkTask(CITES), model, thinned, s, r)
    np.testing.assert_allclose(np.asarray(after - before), 2.0 * backwards, atol=1e-4)

    task = EdgeTask(CITES, 2)
    model = model_of(task, KINDS)
    told = outputs(task, model, thinned, s, r)
    model.head.between.kernel[...] *= 0.0
    changed = np.abs(np.asarray(outputs(task, model, thinned, s, r) - told)).max(axis=1)
    assert (changed[backwards == 0] == 0).all() and (changed[backwards == 1] > 1e-4).all()
    assert model_of(task, KINDS, counts=False).n_between == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_negatives_that_do_not_count_have_no_part(loss):
    """Not even where none of an edge's counts: loss and gradient stay numbers."""
    task = LinkTask(CITES, "distmult", loss)
    model = model_of(task)
    where = jnp.array([[True, False], [False, False]])

    def losses(states, others):
        negatives = jnp.array([[1, others], [others, others]])
        return task.losses(model, states, Links(jnp.array([0, 1]), jnp.array([1, 2]), negatives, where, jnp.ones(2)))

    compiled = jax.jit(losses)
    one, other = compiled(states(), 3), compiled(states(), 5)
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()
    total = lambda hidden: losses(states()._replace(hidden=hidden), 3).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(total))(states().hidden)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(gradient[0]["paper"][3], 0.0)


def test_imitation_is_the_sum_of_three_distances():
    task = ImitationTask("paper", 3, 4)
    model, rows = model_of(task), jnp.array([0, 2])
    taught = np.random.default_rng(0).normal(size=(2, 7))
    losses = losses_of(task, model, states(), Nodes(rows, jnp.asarray(taught, jnp.float32), jnp.ones(2)))
    said = double(outputs(task, model, states(), rows))
    p = np.exp(log_softmax(taught[:, :3]))
    kl = (p * (log_softmax(taught[:, :3]) - log_softmax(said[:, :3]))).sum(axis=1)
    one, other = said[:, 3:], taught[:, 3:]
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    np.testing.assert_allclose(losses, kl + ((one - other) ** 2).mean(axis=1) + 1 - cosine, rtol=1e-3)


def inputs():
    random = np.random.default_rng(1)
    drawn = {name: jnp.asarray(random.normal(size=(N_NODE[name], d)), jnp.float32) for name, d in D_IN.items()}
    return {"paper": drawn["paper"], "author": jnp.arange(4), "venue": drawn["venue"]}


def test_nodes_are_told_how_many_edges_they_have():
    edges = random_edges()
    model, layout = model_of(NodeTask("paper", 2)), layout_of(edges)
    run = jax.jit(lambda layout: model.states(inputs(), layout).hidden[0])
    first = run(layout)
    counts = np.stack(
        [np.bincount(ends, minlength=6) for ends in (edges[CITES][1], edges[CITES][0], edges[WRITES][1])], 1
    )
    with_counts = np.concatenate([double(inputs()["paper"]), np.log1p(counts)], axis=1)
    np.testing.assert_allclose(
        first["paper"], linear(model.encoder.project["paper"], with_counts), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        first["venue"], linear(model.encoder.project["venue"], inputs()["venue"]), rtol=1e-4, atol=1e-5
    )
    # An edge that is asked for does not show in them.
    thinned = without_edges(layout, {CITES: jnp.arange(len(edges[CITES][0])) == 0})
    assert float((degrees(layout)["paper"] - degrees(thinned)["paper"]).sum()) == 2
    assert np.abs(np.asarray(run(thinned)["paper"] - first["paper"])).max() > 1e-4


def test_a_model_of_texts_alone_sees_no_edges():
    model = model_of(NodeTask("paper", 2), counts=False, layers=0)
    edges = random_edges()
    thinned = without_edges(layout_of(edges), {CITES: jnp.ones(len(edges[CITES][0]), bool)})
    one, other = (model.states(inputs(), layout).hidden for layout in (layout_of(edges), thinned))
    assert len(one) == 1
    np.testing.assert_array_equal(one[0]["paper"], other[0]["paper"])


def with_features(seed):
    """The inputs with two features more behind those of papers."""
    features = np.random.default_rng(seed).normal(size=(N_NODE["paper"], 2))
    return {**inputs(), "paper": jnp.concatenate([inputs()["paper"], jnp.asarray(features, jnp.float32)], axis=1)}


def test_features_behind_a_text_are_for_the_network_alone(monkeypatch):
    monkeypatch.setitem(D_IN, "paper", 7)
    layout, pairs = layout_of(random_edges()), (jnp.array([0, 1]), jnp.array([2, 3]))
    task = LinkTask(CITES)
    network = model_of(task, KINDS, d_text={"paper": 5})
    # What compares two texts is left, where all that is learned is taken away.
    network.head = jax.tree.map(jnp.zeros_like, network.head)
    network.head.similarity[...] = jnp.array(1.0)
    monkeypatch.setitem(D_IN, "paper", 5)
    texts_alone = model_of(NodeTask("paper", 2), counts=False, layers=0, d_text={"paper": 5})
    seen, read, likeness = [], [], []
    for seed in (0, 1):
        given = with_features(seed)
        states = network.states(given, layout)
        seen.append(states.hidden[0]["paper"])
        likeness.append(task.outputs(network, states, *pairs))
        read.append(texts_alone.states(given, layout).hidden[0]["paper"])
    assert np.abs(seen[0] - seen[1]).max() > 1e-2
    np.testing.assert_array_equal(read[0], read[1])
    paper = double(inputs()["paper"])
    for values in likeness:
        np.testing.assert_allclose(values, (paper[pairs[0]] * paper[pairs[1]]).sum(axis=1), rtol=1e-5)
