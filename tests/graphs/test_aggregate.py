import importlib
import os
import subprocess
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxgkd.graphs import aggregate, aggregate_heads, build_layout, edge_softmax, to_edges, to_nodes

# The package gives the name of this module to the function in it.
module = importlib.import_module("jaxgkd.graphs.aggregate")

REDUCTIONS = ["sum", "mean", "max"]
compiled = jax.jit(aggregate, static_argnames="reduce")
compiled_softmax = jax.jit(edge_softmax)


def random_edges(seed, n_senders, n_receivers, n_edges):
    """Edges with repetitions; the last sender and the last two receivers have none."""
    random = np.random.default_rng(seed)
    return random.integers(0, n_senders - 1, n_edges), random.integers(0, n_receivers - 2, n_edges)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def reduced(values, senders, receivers, n_receivers, weights, reduce):
    """The index equation, one edge at a time, in float64."""
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    out = np.zeros((n_receivers, values.shape[1]))
    for i in range(n_receivers):
        messages = [weights[e] * values[senders[e]] for e in np.flatnonzero(receivers == i)]
        if messages:
            out[i] = {"sum": np.sum, "mean": np.mean, "max": np.max}[reduce](messages, axis=0)
    return out


@jax.jit
def every_way(values, weights, layout):
    plain = {reduce: aggregate(values, layout, reduce=reduce) for reduce in REDUCTIONS}
    return plain, {reduce: aggregate(values, layout, edge_weights=weights, reduce=reduce) for reduce in REDUCTIONS}


@pytest.mark.parametrize(
    ("n_senders", "n_receivers", "n_edges", "width"), [(7, 7, 25, 3), (9, 4, 30, 33), (4, 9, 12, 64), (5, 6, 0, 2)]
)
def test_reduces_over_the_edges_of_every_receiver(n_senders, n_receivers, n_edges, width):
    senders, receivers = random_edges(0, n_senders, n_receivers, n_edges)
    layout = build_layout(senders, receivers, n_receivers, n_senders=n_senders)
    values, weights = normal(1, n_senders, width) - 1.0, normal(2, n_edges)
    plain, weighted = every_way(values, weights[np.asarray(layout.order)], layout)
    for got, used in ((plain, np.ones(n_edges)), (weighted, weights)):
        for reduce in REDUCTIONS:
            expected = reduced(values, senders, receivers, n_receivers, used, reduce)
            np.testing.assert_allclose(got[reduce], expected, atol=1e-5, err_msg=reduce)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=6, max_size=6))
@settings(deadline=None, max_examples=20)
def test_any_graph_reduces_as_the_index_equation_says(edges):
    senders, receivers = np.array(edges).T
    layout = build_layout(senders, receivers, 5, n_senders=4)
    values, weights = normal(3, 4, 2), normal(4, 6)
    _, weighted = every_way(values, weights[np.asarray(layout.order)], layout)
    for reduce in REDUCTIONS:
        expected = reduced(values, senders, receivers, 5, weights, reduce)
        np.testing.assert_allclose(weighted[reduce], expected, atol=1e-5, err_msg=reduce)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_node_without_edges_gets_zeros_and_sends_no_gradient(reduce):
    layout = build_layout(np.array([0, 1]), np.array([0, 0]), 3)
    values = jnp.full((3, 2), -5.0)

    @jax.jit
    def value_and_gradient(values):
        return jax.value_and_grad(
            lambda v: (jnp.sum((out := aggregate(v, layout, reduce=reduce)) ** 2), out), has_aux=True
        )(values)

    (_, out), gradient = value_and_gradient(values)
    assert np.all(np.asarray(out)[1:] == 0)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[2] == 0)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients_of_values_and_weights_are_the_finite_differences(reduce):
    senders, receivers = random_edges(5, 6, 7, 14)
    layout = build_layout(senders, receivers, 7, n_senders=6)
    probe = normal(6, 7, 2)

    @jax.jit
    def loss(values, weights):
        return jnp.sum(probe * aggregate(values, layout, edge_weights=weights, reduce=reduce))

    # The sum and the mean are linear in each argument, so that a wide step costs no accuracy; the maximum changes
    # its edge when the step is wide.
    step = 0.1 if reduce != "max" else 2e-3
    check_grads(loss, (normal(7, 6, 2), normal(8, 14)), order=1, modes=["rev"], eps=step, atol=5e-3, rtol=5e-3)


def test_second_derivatives_are_the_finite_differences():
    senders, receivers = random_edges(9, 5, 6, 9)
    layout = build_layout(senders, receivers, 6, n_senders=5)

    @jax.jit
    def loss(values, weights):
        return jnp.sum(jnp.tanh(aggregate(values, layout, edge_weights=weights)))

    check_grads(loss, (normal(10, 5, 2), normal(11, 9)), order=2, modes=["rev"], eps=2e-2, atol=1e-2, rtol=1e-2)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


ARGUMENTS = ("values", "weights", "layout")


@pytest.mark.parametrize(
    ("mapped", "reduce"),
    [(some, "sum") for size in (1, 2, 3) for some in combinations(ARGUMENTS, size)]
    + [(ARGUMENTS, "mean"), (ARGUMENTS, "max"), (("layout",), "max")],
)
def test_vmap_over_any_arguments_is_a_loop(mapped, reduce):
    members = [
        {
            "values": normal(i, 5, 2),
            "weights": normal(10 + i, 8),
            "layout": build_layout(*random_edges(20 + i, 5, 6, 8), 6, n_senders=5),
        }
        for i in range(3)
    ]
    members = [{name: (m if name in mapped else members[0])[name] for name in ARGUMENTS} for m in members]

    def value_and_gradients(member):
        def loss(values, weights):
            out = aggregate(values, member["layout"], edge_weights=weights, reduce=reduce)
            return jnp.sum(out**2), out

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(member["values"], member["weights"])

    axes = {name: 0 if name in mapped else None for name in ARGUMENTS}
    together = {name: stacked([m[name] for m in members]) if name in mapped else members[0][name] for name in ARGUMENTS}
    got = jax.jit(jax.vmap(value_and_gradients, in_axes=(axes,)))(together)
    single = jax.jit(value_and_gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, stacked([single(m) for m in members]))


def test_vmap_inside_vmap_over_other_axes_is_a_double_loop():
    layout = build_layout(*random_edges(0, 5, 6, 8), 6, n_senders=5)
    values, weights = normal(1, 3, 5, 2), normal(2, 8, 4)

    def run(values, weights):
        return jax.vmap(lambda w: aggregate(values, layout, edge_weights=w), in_axes=1, out_axes=1)(weights)

    got = jax.jit(jax.vmap(run, in_axes=(0, None)))(values, weights)
    values, weights = np.asarray(values), np.asarray(weights)
    senders, receivers = np.asarray(layout.senders), np.asarray(layout.receivers)
    for i in range(3):
        for h in range(4):
            expected = reduced(values[i], senders, receivers, 6, weights[:, h], "sum")
            np.testing.assert_allclose(got[i, :, h], expected, atol=1e-5)


def test_scan_and_jit_give_what_a_loop_gives():
    layout = build_layout(*random_edges(0, 6, 6, 15), 6)
    start = normal(1, 6, 2)

    @jax.jit
    def scanned(start, layout):
        return jax.lax.scan(lambda state, _: (aggregate(state, layout, reduce="mean"), None), start, length=4)[0]

    state = start
    for _ in range(4):
        state = compiled(state, layout, reduce="mean")
    np.testing.assert_allclose(scanned(start, layout), state, atol=1e-6)


def test_lower_precision_is_summed_in_float32_both_ways():
    n = 1000
    fan_in = build_layout(np.arange(n), np.zeros(n, int), 1, n_senders=n)
    fan_out = build_layout(np.zeros(n, int), np.arange(n), n, n_senders=1)
    ones = jnp.ones((n, 1), jnp.bfloat16)
    # Summed in bfloat16, ones stop at 256.
    total = compiled(ones, fan_in)
    assert total.dtype == jnp.bfloat16
    assert float(total[0, 0]) == n
    gradient = jax.jit(jax.grad(lambda values: jnp.sum(aggregate(values, fan_out), dtype=jnp.float32)))(ones[:1])
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[0, 0]) == n
    for reduce in REDUCTIONS:
        weighted = jax.eval_shape(partial(aggregate, reduce=reduce), ones, fan_in, edge_weights=jnp.ones(n))
        assert weighted.dtype == jnp.bfloat16


def test_the_order_of_the_edges_does_not_matter():
    senders, receivers = random_edges(0, 6, 7, 20)
    values, weights = normal(1, 6, 3), normal(2, 20)
    shuffle = np.random.default_rng(3).permutation(20)
    layout = build_layout(senders, receivers, 7, n_senders=6)
    other = build_layout(senders[shuffle], receivers[shuffle], 7, n_senders=6)
    got = every_way(values, weights[np.asarray(layout.order)], layout)
    shuffled = every_way(values, weights[shuffle[np.asarray(other.order)]], other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), shuffled, got)


def test_weight_gradients_in_blocks_are_those_of_all_edges_at_once(monkeypatch):
    layout = build_layout(*random_edges(0, 6, 6, 20), 6)
    values, weights, probe = normal(1, 6, 3), normal(2, 20), normal(3, 6, 3)

    expected = np.sum(np.asarray(values)[layout.senders] * np.asarray(probe)[layout.receivers], axis=1)
    for block in (20, 10, 7):
        monkeypatch.setattr(module, "_WEIGHT_GRADIENT_NUMBERS", 3 * block + 1)

        def gradient(weights):
            return jax.grad(lambda w: jnp.sum(probe * aggregate(values, layout, edge_weights=w)))(weights)

        single, mapped = jax.jit(lambda w: (gradient(w), jax.vmap(gradient)(jnp.stack([w, -w]))))(weights)
        np.testing.assert_allclose(single, expected, atol=1e-5)
        np.testing.assert_allclose(mapped, [expected, expected], atol=1e-5)


def test_heads_are_sums_side_by_side():
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)
    values, weights = normal(1, 6, 4, 3), normal(2, 20, 4)
    got = jax.jit(aggregate_heads)(values, layout, weights)
    for head in range(4):
        expected = reduced(values[:, head], layout.senders, layout.receivers, 7, weights[:, head], "sum")
        np.testing.assert_allclose(got[:, head], expected, atol=1e-5)
    assert jax.jit(aggregate_heads)(values.astype(jnp.bfloat16), layout, weights).dtype == jnp.bfloat16


@pytest.mark.parametrize("numbers", [2**19, 30])
def test_gradients_of_heads_are_the_finite_differences(numbers, monkeypatch):
    monkeypatch.setattr(module, "_WEIGHT_GRADIENT_NUMBERS", numbers)
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)
    check_grads(
        jax.jit(lambda v, w: aggregate_heads(v, layout, w)),
        (normal(1, 6, 2, 3), normal(2, 20, 2)),
        order=2,
        modes=["rev"],
        atol=1e-2,
        rtol=1e-2,
    )


def test_heads_of_many_seeds_are_those_of_each():
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)
    values, weights = normal(1, 3, 6, 2, 3), normal(2, 3, 20, 2)
    run = jax.value_and_grad(lambda v, w: jnp.sum(aggregate_heads(v, layout, w) ** 2), argnums=(0, 1))
    got = jax.jit(jax.vmap(run))(values, weights)
    expected = stacked([run(v, w) for v, w in zip(values, weights, strict=True)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), got, expected)


def test_messages_go_to_edges_and_are_summed_at_nodes():
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)
    values, messages = normal(1, 6, 3), normal(2, 20, 3)
    np.testing.assert_array_equal(to_edges(values, layout), np.asarray(values)[layout.senders])
    ends = to_edges(messages[:7], layout, end="receiver")
    np.testing.assert_array_equal(ends, np.asarray(messages)[layout.receivers])
    expected = np.zeros((7, 3))
    np.add.at(expected, np.asarray(layout.receivers), np.asarray(messages, np.float64))
    np.testing.assert_allclose(jax.jit(to_nodes)(messages, layout), expected, atol=1e-5)


def test_gradients_of_messages_are_the_finite_differences():
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)

    def summed(at_senders, at_receivers, messages):
        ends = to_edges(at_senders, layout) * to_edges(at_receivers, layout, end="receiver")
        return to_nodes(jnp.tanh(ends + messages), layout)

    arguments = (normal(1, 6, 2), normal(3, 7, 2), normal(2, 20, 2))
    check_grads(jax.jit(summed), arguments, order=2, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_messages_of_many_seeds_are_those_of_each():
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)
    run = jax.value_and_grad(lambda v: jnp.sum(to_nodes(jnp.tanh(to_edges(v, layout)), layout) ** 2))
    values = normal(1, 3, 6, 2)
    got = jax.jit(jax.vmap(run))(values)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, stacked([run(v) for v in values]))


def test_a_maximum_by_blocks_of_columns_has_the_gradient_of_all_columns_at_once(monkeypatch):
    layout = build_layout(*random_edges(0, 6, 7, 20), 7, n_senders=6)
    values, weights, probe = normal(1, 6, 7), normal(2, 20), normal(3, 7, 7)

    def gradients():
        def loss(v, w):
            return jnp.sum(probe * aggregate(v, layout, edge_weights=w, reduce="max"))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(values, weights)

    at_once = gradients()
    monkeypatch.setattr(module, "_MAX_COLUMNS", 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients(), at_once)


def test_the_product_of_other_platforms_is_that_of_the_cpu():
    layout = build_layout(*random_edges(0, 6, 9, 20), 9, n_senders=6)
    arguments = (normal(1, 20), layout.senders, layout.receivers, layout.row_start, normal(2, 6, 3))
    here, elsewhere = jax.jit(lambda *a: (module._compressed(*a), module._gathered(*a)))(*arguments)
    np.testing.assert_allclose(here, elsewhere, atol=1e-6)


@pytest.mark.parametrize("mapped", [(4,), (0, 4), (0, 1, 2, 3, 4)])
def test_many_members_on_other_platforms_are_those_of_the_cpu(mapped, monkeypatch):
    layout = build_layout(*random_edges(0, 6, 9, 20), 9, n_senders=6)
    one = (normal(1, 20), layout.senders, layout.receivers, layout.row_start, normal(2, 6, 3))
    arguments = [jnp.stack([a, a]) if i in mapped else a for i, a in enumerate(one)]
    run = lambda *a: jax.vmap(module._product, in_axes=[0 if i in mapped else None for i in range(5)])(*a)  # noqa: E731
    here = jax.jit(lambda *a: run(*a))(*arguments)

    def on_another_platform(*arguments, cpu, default):
        del cpu
        return default(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", on_another_platform)
    np.testing.assert_allclose(jax.jit(lambda *a: run(*a))(*arguments), here, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU sums without holding the messages")
def test_a_sum_and_its_gradient_never_hold_edges_times_width():
    n, n_edges, width = 200, 30_000, 64
    layout = build_layout(*np.random.default_rng(0).integers(0, n, (2, n_edges)), n)

    def step(values, weights, layout):
        return jax.value_and_grad(lambda v: jnp.sum(aggregate(v, layout, edge_weights=weights) ** 2))(values)

    memory = jax.jit(step).lower(jnp.ones((n, width)), jnp.ones(n_edges), layout).compile().memory_analysis()
    assert memory is not None
    messages = 4 * n_edges * width
    assert memory.temp_size_in_bytes < messages / 4


def softmax_of(edge_logits, self_logits, receivers):
    edge_logits, self_logits = np.asarray(edge_logits, np.float64), np.asarray(self_logits, np.float64)
    edge_part, self_part = np.exp(edge_logits), np.exp(self_logits)
    total = self_part.copy()
    np.add.at(total, receivers, edge_part)
    return edge_part / total[receivers], self_part / total


def test_edge_softmax_is_the_softmax_over_edges_and_the_node_itself():
    layout = build_layout(*random_edges(0, 6, 6, 20), 6)
    edge_logits, self_logits = normal(1, 20, 2), normal(2, 6, 2)
    edges, itself = compiled_softmax(edge_logits, self_logits, layout)
    expected = softmax_of(edge_logits, self_logits, np.asarray(layout.receivers))
    np.testing.assert_allclose(edges, expected[0], atol=1e-6)
    np.testing.assert_allclose(itself, expected[1], atol=1e-6)
    total = np.array(itself)
    np.add.at(total, np.asarray(layout.receivers), edges)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    # Nodes without edges attend to themselves alone.
    np.testing.assert_array_equal(np.asarray(itself)[-2:], 1.0)


def test_edge_softmax_follows_a_permutation_of_the_edges_and_ignores_a_shift():
    senders, receivers = random_edges(0, 6, 6, 20)
    shuffle = np.random.default_rng(1).permutation(20)
    layout, other = build_layout(senders, receivers, 6), build_layout(senders[shuffle], receivers[shuffle], 6)
    edge_logits, self_logits = normal(2, 20, 3), normal(3, 6, 3)
    edges, itself = compiled_softmax(edge_logits[np.asarray(layout.order)], self_logits, layout)
    shifted = compiled_softmax(edge_logits[shuffle[np.asarray(other.order)]] + 500, self_logits + 500, other)
    by_edge = np.zeros((20, 3))
    by_edge[shuffle[np.asarray(other.order)]] = shifted[0]
    np.testing.assert_allclose(by_edge[np.asarray(layout.order)], edges, atol=1e-4)
    np.testing.assert_allclose(shifted[1], itself, atol=1e-4)


def test_edge_softmax_gradients_are_the_finite_differences():
    layout = build_layout(*random_edges(0, 4, 5, 8), 5)
    probes = normal(1, 8, 2), normal(2, 5, 2)

    @jax.jit
    def loss(edge_logits, self_logits):
        edges, itself = edge_softmax(edge_logits, self_logits, layout)
        return jnp.sum(probes[0] * edges) + jnp.sum(probes[1] * itself)

    check_grads(loss, (normal(3, 8, 2), normal(4, 5, 2)), order=1, modes=["rev"], eps=1e-2, atol=5e-3, rtol=5e-3)


def test_edge_softmax_without_edges_is_one():
    layout = build_layout(np.zeros(0, int), np.zeros(0, int), 3)
    edges, itself = compiled_softmax(jnp.zeros((0, 2)), normal(0, 3, 2), layout)
    assert edges.shape == (0, 2)
    np.testing.assert_array_equal(itself, np.ones((3, 2)))


def test_shard_map_on_four_devices():
    """In a process of its own, since the number of devices is fixed when jax starts."""
    script = Path(__file__).with_name("on_four_devices.py")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    child = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr[-3000:]
    assert len(child.stdout.splitlines()) == 7
