import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs import build_layout
from jaxgkd.nn import LayerStates, make_student
from jaxgkd.nn.alignment import Alignment
from jaxgkd.nn.distilled import TERMS, DistilledStudent, Objective, _draw, _projected, distillation_loss, part_means

N, WIDTH, HOPS, D_TEACHER, CLASSES, PARTS = 14, 4, 3, 5, 3, 4
TAUGHT = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 0, 1, 0], bool)
# Part 3 holds nodes that the teacher does not speak about; the last node is in no part.
PART = np.array([0, 0, 3, 1, 1, 1, 0, 2, 2, 3, 2, 3, 1, -1])
LAYER_WEIGHTS = np.array([0.3, 1.2, -0.4])
TERM_WEIGHTS = np.array([1.0, 0.2, -0.5, 0.7, 0.1])
SETTINGS = {
    "temperature": 2.0,
    "align_temperature": 0.5,
    "label": 1.0,
    "soft": 0.7,
    "local": 0.3,
    "global": 0.2,
    "relational": 1.5,
}
LABEL_TERM = 1.25


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def arrays():
    states = LayerStates(tuple(normal(i, N, WIDTH) for i in range(HOPS)), normal(10, N, CLASSES))
    run = {
        "teacher_log_probs": np.log(softmax(normal(11, N, CLASSES))),
        "taught": TAUGHT,
        "taught_nodes": np.argsort(~TAUGHT, kind="stable"),
        "aligned_classes": np.random.default_rng(12).integers(-1, CLASSES, N),
        "settings": {name: np.float32(value) for name, value in SETTINGS.items()},
    }
    inside = PART >= 0
    layout = build_layout(np.flatnonzero(inside), PART[inside], PARTS, n_senders=N)
    teacher_states = normal(13, N, HOPS, D_TEACHER)
    means, _ = part_means(jnp.asarray(teacher_states.reshape(N, -1)), jnp.asarray(TAUGHT), layout)
    run["part_features"] = np.asarray(means).reshape(PARTS, HOPS, D_TEACHER)
    return states, run, {"teacher_states": teacher_states, "part_layout": layout}


def model(terms=TERMS):
    student = make_student("mlp", 3, WIDTH, HOPS - 1, CLASSES, jax.random.key(0))
    alignment = Alignment(D_TEACHER, WIDTH, HOPS, 1 + len(terms), rngs=nnx.Rngs(1))
    alignment.layer_weights[...] = jnp.asarray(LAYER_WEIGHTS, jnp.float32)
    alignment.term_weights[...] = jnp.asarray(TERM_WEIGHTS[: 1 + len(terms)], jnp.float32)
    return DistilledStudent(student, alignment)


def compiled(objective):
    """(states, run, shared) → (total, logs)."""
    graphdef, state = nnx.split(model(objective.terms))
    total_loss = distillation_loss(objective)

    @jax.jit
    def loss(states, run, shared):
        return total_loss(nnx.merge(graphdef, state), states, jnp.float32(LABEL_TERM), jax.random.key(3), run, shared)

    return loss


def with_gradient(objective):
    """(states, run, shared) → (total, logs) and the gradient of the total by the states."""
    return jax.jit(jax.value_and_grad(compiled(objective), has_aux=True))


ALL = Objective(TERMS, "fixed", "fixed", aligned_nodes=0)


@pytest.fixture(scope="module")
def everything():
    return with_gradient(ALL)


# The terms by hand, in float64, over the nodes that are taught and no others.


def soft_term(states, run):
    teacher = np.asarray(run["teacher_log_probs"], np.float64)[TAUGHT] / SETTINGS["temperature"]
    student = np.asarray(states.logits, np.float64)[TAUGHT] / SETTINGS["temperature"]
    p, q = softmax(teacher), softmax(student)
    return SETTINGS["temperature"] ** 2 * np.mean(np.sum(p * np.log(p / q), axis=1))


def nce(anchors, targets, classes=None):
    anchors, targets = np.asarray(anchors, np.float64), np.asarray(targets, np.float64)
    anchors = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    scores = np.exp(anchors @ targets.T / SETTINGS["align_temperature"])
    others = ~np.eye(len(scores), dtype=bool)
    negative = others if classes is None else (classes[:, None] != classes) & (classes >= 0)
    return np.mean(np.log(1 + np.sum(scores * negative, axis=1) / np.diag(scores)))


def local_terms(states, run, shared):
    projected = model().alignment(jnp.asarray(shared["teacher_states"]))
    classes = run["aligned_classes"][TAUGHT]
    return np.array(
        [
            nce(np.asarray(student)[TAUGHT], np.asarray(teacher)[TAUGHT], classes)
            for student, teacher in zip(states.hidden, projected, strict=True)
        ]
    )


def global_terms(states, shared):
    members = [TAUGHT & (part == PART) for part in range(PARTS) if np.any(TAUGHT & (part == PART))]
    features = np.stack([shared["teacher_states"][some].mean(axis=0) for some in members])
    projected = model().alignment(jnp.asarray(features))
    return np.array(
        [
            nce(np.stack([np.asarray(student)[some].mean(axis=0) for some in members]), teacher)
            for student, teacher in zip(states.hidden, projected, strict=True)
        ]
    )


def relational_term(states, shared):
    def rows(vectors):
        similar = np.asarray(vectors, np.float64)[TAUGHT]
        similar = similar @ similar.T
        return similar / np.linalg.norm(similar, axis=1, keepdims=True)

    difference = rows(states.hidden[-1]) - rows(shared["teacher_states"][:, -1])
    return np.sum(difference**2) / TAUGHT.sum() ** 2


@pytest.fixture(scope="module")
def by_hand():
    states, run, shared = arrays()
    return {
        "soft": soft_term(states, run),
        "local": local_terms(states, run, shared),
        "global": global_terms(states, shared),
        "relational": relational_term(states, shared),
    }


def test_every_term_is_the_one_computed_by_hand(everything, by_hand):
    (total, logs), _ = everything(*arrays())
    expected = {name: np.mean(by_hand[name]) for name in TERMS}
    for name in TERMS:
        assert float(logs[f"loss/{name}"]) == pytest.approx(expected[name], rel=1e-4)
    weighted = LABEL_TERM + sum(SETTINGS[name] * expected[name] for name in TERMS)
    assert float(total) == pytest.approx(weighted, rel=1e-4)


@pytest.mark.parametrize("terms", [(), ("soft",), ("local",), ("global", "relational")])
def test_terms_are_switched_one_by_one(terms, by_hand):
    (total, logs), gradient = with_gradient(Objective(terms, "fixed", "fixed", 0))(*arrays())
    assert {name for name in logs if name.startswith("loss/")} == {f"loss/{name}" for name in terms}
    weighted = LABEL_TERM + sum(SETTINGS[name] * np.mean(by_hand[name]) for name in terms)
    assert float(total) == pytest.approx(weighted, rel=1e-4)
    moved = [bool(np.any(np.asarray(g) != 0)) for g in (*gradient.hidden, gradient.logits)]
    reaches_hidden = [bool({"local", "global"} & set(terms))] * (HOPS - 1) + [bool(set(terms) - {"soft"})]
    assert moved == [*reaches_hidden, "soft" in terms]


def test_layers_and_terms_under_a_learned_softmax(by_hand):
    total, logs = compiled(Objective(TERMS, "softmax", "softmax", 0))(*arrays())
    shares = softmax(LAYER_WEIGHTS)
    for name in ("local", "global"):
        assert float(logs[f"loss/{name}"]) == pytest.approx(shares @ by_hand[name], rel=1e-4)
    np.testing.assert_allclose([logs[f"layer_weight/{i}"] for i in range(HOPS)], shares, rtol=1e-5)
    values = [LABEL_TERM] + [SETTINGS[name] * float(logs[f"loss/{name}"]) for name in TERMS]
    assert float(total) == pytest.approx(softmax(TERM_WEIGHTS) @ values, rel=1e-4)


def test_layers_and_terms_by_their_uncertainty(by_hand):
    total, logs = compiled(Objective(TERMS, "uncertainty", "uncertainty", 0))(*arrays())

    def uncertain(values, log_variances):
        return 0.5 * np.sum(np.exp(-log_variances) * values + log_variances)

    for name in ("local", "global"):
        assert float(logs[f"loss/{name}"]) == pytest.approx(uncertain(by_hand[name], LAYER_WEIGHTS - 1), rel=1e-4)
    np.testing.assert_allclose(sum(float(logs[f"layer_weight/{i}"]) for i in range(HOPS)), 1.0, rtol=1e-5)
    values = np.array([LABEL_TERM] + [SETTINGS[name] * float(logs[f"loss/{name}"]) for name in TERMS])
    assert float(total) == pytest.approx(uncertain(values, TERM_WEIGHTS - 1), rel=1e-4)


def test_nodes_that_are_not_taught_change_nothing(everything):
    states, run, shared = arrays()
    got = everything(states, run, shared)
    gone = ~TAUGHT

    def scrambled(values):
        values = np.array(values)
        values[gone] = np.random.default_rng(99).normal(size=values[gone].shape)
        return values

    other_run = run | {
        "teacher_log_probs": scrambled(run["teacher_log_probs"]),
        "aligned_classes": np.where(TAUGHT, run["aligned_classes"], 1),
    }
    other_shared = shared | {"teacher_states": scrambled(shared["teacher_states"])}
    other = everything(jax.tree.map(scrambled, states), other_run, other_shared)
    (total, logs), gradient = got
    (other_total, other_logs), other_gradient = other
    np.testing.assert_allclose(other_total, total, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), other_logs, logs)
    for leaf, other_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf)[gone], 0)
        np.testing.assert_allclose(leaf, other_leaf, atol=1e-5)


def test_a_teacher_of_no_node_adds_nothing(everything):
    states, run, shared = arrays()
    (total, _), gradient = everything(states, run | {"taught": np.zeros(N, bool)}, shared)
    assert float(total) == pytest.approx(LABEL_TERM)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


def test_taught_nodes_are_drawn_uniformly():
    taught, nodes = jnp.asarray(TAUGHT), jnp.argsort(~TAUGHT)
    draw = jax.jit(jax.vmap(lambda key: _draw(key, taught, nodes, 4)))
    draws = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    assert draws.shape == (2000, 4)
    assert np.all(TAUGHT[draws])
    share = np.bincount(draws.ravel(), minlength=N)[TAUGHT] / draws.size
    chance = 1 / TAUGHT.sum()
    assert np.abs(share - chance).max() < 5 * np.sqrt(chance * (1 - chance) / draws.size)
    for all_nodes in (0, N, N + 1):
        np.testing.assert_array_equal(_draw(jax.random.key(0), taught, nodes, all_nodes), np.arange(N))


def test_the_losses_of_a_draw_are_those_of_the_nodes_it_holds():
    states, run, shared = arrays()
    drawn = np.asarray(_draw(jax.random.key(3), TAUGHT, run["taught_nodes"], 6))
    logs = compiled(Objective(("local",), "fixed", "fixed", aligned_nodes=6))(states, run, shared)[1]
    projected = model().alignment(jnp.asarray(shared["teacher_states"][drawn]))
    classes = run["aligned_classes"][drawn]
    expected = [
        nce(np.asarray(student)[drawn], np.asarray(teacher), classes)
        for student, teacher in zip(states.hidden, projected, strict=True)
    ]
    assert float(logs["loss/local"]) == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_losses_of_many_runs_are_a_loop():
    states, run, shared = arrays()
    loss = compiled(Objective(("local", "global"), "softmax", "uncertainty", aligned_nodes=6))
    scale = np.array([1.0, -0.5], np.float32)
    many_states = jax.tree.map(lambda leaf: np.multiply.outer(scale, leaf), states)
    many = jax.tree.map(lambda leaf: np.stack([leaf] * 2), run)
    many["settings"]["local"] = np.array([0.3, 2.0], np.float32)
    many["taught"] = np.stack([TAUGHT, ~TAUGHT])
    many["taught_nodes"] = np.stack([np.argsort(~TAUGHT, kind="stable"), np.argsort(TAUGHT, kind="stable")])
    many_states, many, shared = jax.tree.map(jnp.asarray, (many_states, many, shared))

    @jax.jit
    def both_ways(many_states, many):
        together = jax.vmap(loss, in_axes=(0, 0, None))(many_states, many, shared)
        return together, jax.lax.map(lambda member: loss(*member, shared), (many_states, many))

    together, one_by_one = both_ways(many_states, many)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), together, one_by_one)
    assert abs(float(together[0][0] - together[0][1])) > 1e-2


@pytest.mark.parametrize(("weighting", "learned"), [("fixed", False), ("softmax", True)])
def test_weights_are_learned_where_they_are_used(weighting, learned):
    states, run, shared = jax.tree.map(jnp.asarray, arrays())
    objective = Objective(("soft", "local"), weighting, weighting, 0)
    graphdef, params, rest = nnx.split(model(objective.terms), nnx.Param, ...)
    total_loss = distillation_loss(objective)

    @jax.jit
    def gradient(params):
        def loss(params):
            merged = nnx.merge(graphdef, params, rest)
            return total_loss(merged, states, jnp.float32(LABEL_TERM), jax.random.key(0), run, shared)[0]

        return jax.grad(loss)(params)

    alignment = gradient(params)["alignment"]
    assert bool(np.any(np.asarray(alignment["layer_weights"][...]) != 0)) is learned
    assert bool(np.any(np.asarray(alignment["term_weights"][...]) != 0)) is learned
    assert np.all(np.any(np.asarray(alignment["shared"]["kernel"][...]) != 0, axis=0))


def test_projections_are_those_of_the_alignment():
    graphdef, params = nnx.split(model().alignment)
    # Scales and shifts that have learned something.
    params = jax.tree.map(lambda leaf: leaf + 0.3 * normal(leaf.size, *leaf.shape), params)
    features, weights = 3.0 + 2.0 * normal(20, 9, HOPS, D_TEACHER), normal(21, HOPS, 9, WIDTH)

    def total(project):
        summed = lambda params: jnp.sum(jnp.stack(project(nnx.merge(graphdef, params), features)) * weights)  # noqa: E731
        return jax.jit(jax.value_and_grad(summed))(params)

    (value, gradients), (expected, expected_gradients) = total(_projected), total(lambda alignment, x: alignment(x))
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradients, expected_gradients)
