import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs import build_layout, from_edges, undirected
from jaxgkd.nn import make_student
from jaxgkd.nn.node_problem import default_optimizer, node_problem
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.training.loop import fit

N, D_IN, CLASSES = 20, 6, 3
TRAIN = np.arange(N) < 10
HIDDEN = np.arange(N) >= 15


def make(key):
    return make_student("sage", D_IN, 8, 2, CLASSES, key, norm="batch")


@pytest.fixture(scope="module")
def problem():
    return node_problem(make)


def data():
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, N)
    nodes = jnp.asarray(random.normal(size=(N, D_IN)) + 2 * np.eye(CLASSES, D_IN)[labels], jnp.float32)
    senders, receivers = undirected(*random.integers(0, N, (2, 30)))
    graph, layout = from_edges(nodes, senders, receivers, N)
    settings = {"learning_rate": jnp.float32(0.02), "weight_decay": jnp.float32(1e-3), "dropout": jnp.float32(0.0)}
    run = {
        "train": jnp.asarray(TRAIN),
        "valid": jnp.asarray(~TRAIN & ~HIDDEN),
        "labels": jnp.asarray(np.where(HIDDEN, -1, labels)),
        "class_weights": jnp.array([1.0, 2.0, 0.5]),
        "settings": settings,
    }
    return run, {"graph": graph, "layout": layout}, (senders, receivers)


def test_the_label_loss_is_the_weighted_cross_entropy_of_the_training_nodes(problem):
    run, shared, _ = data()
    params, rest = jax.jit(problem.init)(jax.random.key(0), run)

    @jax.jit
    def loss_and_logits(params, rest):
        model = nnx.merge(graphdef_of(make), params, rest, copy=True)
        states = model(shared["graph"], shared["layout"], dropout_key=jax.random.key(2))
        return problem.loss(params, rest, jax.random.key(1), 0.0, run, shared), states.logits

    (loss, (new_rest, logs)), logits = loss_and_logits(params, rest)
    logits = np.asarray(logits, np.float64)
    labels = np.asarray(run["labels"])[TRAIN]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    weights = np.asarray(run["class_weights"])[labels]
    expected = -np.sum(weights * log_p[TRAIN][np.arange(10), labels]) / weights.sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert set(logs) == {"loss/label"}
    # BatchNorm's statistics come back changed, in the structure that went in.
    assert jax.tree.structure(new_rest) == jax.tree.structure(rest)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), new_rest, rest)
    assert all(jax.tree.leaves(moved))


def test_training_sees_the_training_graph_only(problem):
    run, shared, (senders, receivers) = data()
    inside = ~HIDDEN[senders] & ~HIDDEN[receivers]
    assert not inside.all()
    run["train_layout"] = build_layout(senders[inside], receivers[inside], N)
    run["train_nodes"] = jnp.asarray(~HIDDEN)
    params, rest = jax.jit(problem.init)(jax.random.key(0), run)

    @jax.jit
    def step(nodes, run):
        graph = shared["graph"]._replace(nodes=nodes)
        gradient = jax.value_and_grad(problem.loss, has_aux=True)
        (loss, (new_rest, _)), gradients = gradient(
            params, rest, jax.random.key(1), 0.0, run, {**shared, "graph": graph}
        )
        return loss, gradients, new_rest

    nodes = shared["graph"].nodes
    seen, changed = step(nodes, run), step(nodes.at[15:].set(100.0), run)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), seen, changed)


def test_validation_reads_its_own_layout_where_there_is_one(problem):
    run, shared, _ = data()
    params, rest = jax.jit(problem.init)(jax.random.key(0), run)
    model = nnx.merge(graphdef_of(make), params, rest)
    empty = build_layout(np.zeros(0, int), np.zeros(0, int), N)
    valid, labels = np.asarray(run["valid"]), np.asarray(run["labels"])
    for layout, extra in ((shared["layout"], {}), (empty, {"valid_layout": empty})):
        metrics = jax.jit(problem.evaluate)(params, rest, {**run, **extra}, shared)
        logits = np.asarray(nnx.jit(lambda m, layout: m(shared["graph"], layout).logits)(model, layout))
        assert float(metrics["valid"]) == pytest.approx(np.mean(logits.argmax(axis=1)[valid] == labels[valid]))
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert float(metrics["valid_loss"]) == pytest.approx(-log_p[np.arange(N), labels][valid].mean(), rel=1e-4)


def test_a_student_learns_its_classes(problem):
    run, shared, _ = data()
    runs = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), run)
    result = fit(problem, jax.random.split(jax.random.key(0), 2), runs, shared, epochs=40)
    assert np.all(result.curves["train_loss"][:, -1] < 0.3 * result.curves["train_loss"][:, 0])
    assert np.all(result.curves["valid"].max(axis=1) > 0.5)


def test_the_structure_of_a_model_costs_no_weights():
    keys = []

    def recorded(key):
        keys.append(key)
        return make(key)

    graphdef = graphdef_of(recorded)
    assert all(isinstance(key, jax.core.Tracer) for key in keys)
    model = nnx.merge(graphdef, *jax.jit(lambda key: nnx.split(make(key), nnx.Param, ...)[1:])(jax.random.key(5)))
    assert [norm.num_features for norm in model.norms] == [8]


def test_the_optimizer_takes_traced_settings_and_clips():
    params, gradients = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([30.0, 40.0])}

    @jax.jit
    @jax.vmap
    def two_updates(settings):
        optimizer = default_optimizer(settings)
        first, state = optimizer.update(gradients, optimizer.init(params), params)
        return first, optimizer.update(gradients, state, params)[0]

    settings = {"learning_rate": jnp.array([0.1, 0.01]), "weight_decay": jnp.array([0.0, 0.5])}
    together = two_updates(settings)
    for i, (rate, decay) in enumerate([(0.1, 0.0), (0.01, 0.5)]):
        # The norm is 50 before clipping; the same gradient twice makes both moments of Adam that gradient.
        gradient = np.array([0.6, 0.8]) + decay * np.array([1.0, -2.0])
        for update in together:
            np.testing.assert_allclose(update["w"][i], -rate * np.sign(gradient), rtol=1e-4)
