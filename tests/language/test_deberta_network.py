from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.language import Deberta, load, read_config
from jaxgkd.language.deberta import deberta_weights
from jaxgkd.language.deberta_network import DebertaConfig, align, convolve, distance_rows, position_scores
from jaxgkd.language.weight_plan import stacked_shape

GOLDEN = Path(__file__).parent / "goldens" / "deberta_v2"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "expected.npz") as expected:
        return load(GOLDEN), dict(expected)


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_hidden_state_is_the_reference(golden, side):
    model, expected = golden
    mask = expected[f"mask_{side}"]
    hidden = np.asarray(model.hidden_states(expected["input_ids"], mask))
    assert hidden.shape == expected[f"hidden_{side}"].shape
    np.testing.assert_allclose(hidden[:, mask > 0], expected[f"hidden_{side}"][:, mask > 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_bfloat16_is_near(golden, side):
    _, expected = golden
    mask = expected[f"mask_{side}"]
    hidden = load(GOLDEN, dtype="bfloat16").hidden_states(expected["input_ids"], mask)
    assert hidden.dtype == jnp.bfloat16
    for state, reference in zip(np.float32(hidden)[:, mask > 0], expected[f"hidden_{side}"][:, mask > 0], strict=True):
        assert np.linalg.norm(state - reference) < 2e-2 * np.linalg.norm(reference)


def test_pooling_and_continuing_agree_with_the_hidden_states(golden):
    model, expected = golden
    ids, mask = expected["input_ids"], expected["mask_left"]
    hidden = model.hidden_states(ids, mask)
    np.testing.assert_allclose(model.states_from(hidden[1], mask, 1), hidden[1:], atol=1e-5)
    pooled = model.pooled_states(ids, mask, layers=(2, 0), pooling="last")
    np.testing.assert_allclose(pooled, np.swapaxes(expected["hidden_left"][[2, 0], :, -1], 0, 1), atol=1e-5)


def test_padding_does_not_matter_on_either_side(golden):
    model, _ = golden
    short = np.random.default_rng(0).integers(3, 160, size=(1, 6))
    alone = model.hidden_states(short, np.ones((1, 6), int))
    padding = np.full((1, 4), 7)
    right = model.hidden_states(np.hstack([short, padding]), np.array([[1] * 6 + [0] * 4]))
    left = model.hidden_states(np.hstack([padding, short]), np.array([[0] * 4 + [1] * 6]))
    np.testing.assert_allclose(right[:, :, :6], alone, atol=3e-6)
    np.testing.assert_allclose(left[:, :, 4:], alone, atol=3e-6)


def bucket(distance, buckets, reach):
    """A distance's bucket, from its definition: single up to the middle, then on a logarithmic scale up to reach."""
    middle = buckets // 2
    if abs(distance) <= middle:
        return distance
    share = np.log(abs(distance) / middle) / np.log((reach - 1) / middle)
    # Ends of buckets are whole numbers that rounding may miss by the last bit.
    return int(np.sign(distance)) * (int(np.ceil(round(share * (middle - 1), 5))) + middle)


def config_of(**changes):
    _, config = read_config(GOLDEN)
    return replace(config, **changes)


@pytest.mark.parametrize(("buckets", "reach", "tokens"), [(8, 64, 64), (256, 512, 512), (6, 20, 30), (0, 5, 9)])
def test_rows_of_distances_follow_the_definition(buckets, reach, tokens):
    config = config_of(buckets=buckets, reach=reach)
    rows = distance_rows(config, tokens)
    assert len(rows) == 2 * tokens - 1
    for row, distance in zip(rows, range(tokens - 1, -tokens, -1), strict=True):
        expected = bucket(distance, buckets, reach) if buckets else distance
        assert row == np.clip(expected + config.span, 0, 2 * config.span - 1), distance


@pytest.mark.parametrize("t", [1, 2, 7])
def test_align_is_its_equation(t):
    products = np.random.default_rng(0).normal(size=(3, t, 2 * t - 1)).astype(np.float32)
    aligned = np.asarray(align(products))
    for i in range(t):
        for j in range(t):
            np.testing.assert_array_equal(aligned[:, i, j], products[:, i, t - 1 - i + j])


@pytest.mark.parametrize("scores", [{"c2p"}, {"p2c"}, {"c2p", "p2c"}])
@pytest.mark.parametrize("shared", [False, True])
def test_position_scores_are_looked_up_one_by_one(scores, shared):
    b, t, heads, e = 2, 9, 4, 3
    d = heads * e
    config = config_of(
        width=d, buckets=4, reach=8, position_scores=frozenset(scores), shared_projections=shared, n_heads=heads
    )
    generator = np.random.default_rng(1)
    names = ("key", "query") if shared else ("position_key", "position_query")
    layer = {f"{name}_kernel": generator.normal(size=(d, d)) for name in names}
    layer |= {f"{name}_bias": generator.normal(size=d) for name in names}
    table = generator.normal(size=(2 * config.span, d))
    query, key = generator.normal(size=(2, b * heads, t, e))
    distances = table[distance_rows(config, t)]
    found = position_scores(config, *jax.tree.map(np.float32, (layer, query, key, distances)))

    key_rows, query_rows = (
        (table @ layer[f"{name}_kernel"] + layer[f"{name}_bias"]).reshape(-1, heads, e) for name in names
    )
    expected = np.zeros((b * heads, t, t))
    for n in range(b * heads):
        for i in range(t):
            for j in range(t):
                row = np.clip(bucket(i - j, 4, 8) + 4, 0, 7)
                if "c2p" in scores:
                    expected[n, i, j] += query[n, i] @ key_rows[row, n % heads]
                if "p2c" in scores:
                    expected[n, i, j] += key[n, j] @ query_rows[row, n % heads]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (5, 2)])
def test_the_convolution_beside_the_first_layer(kernel, groups):
    b, t, d = 2, 6, 8
    config = config_of(width=d, conv_kernel=kernel, conv_groups=groups, conv_activation="tanh")
    generator = np.random.default_rng(2)
    weights = {"filter": generator.normal(size=(d, d // groups, kernel)), "bias": generator.normal(size=d)}
    weights |= {"norm_scale": generator.normal(size=d), "norm_bias": generator.normal(size=d)}
    mask = np.array([[1] * 6, [0, 0, 1, 1, 1, 1]])
    states, output = generator.normal(size=(2, b, t, d)) * mask[:, :, None]
    found = convolve(config, *jax.tree.map(np.float32, (weights, states, output)), mask)

    padded = np.pad(states, ((0, 0), (kernel // 2, kernel // 2), (0, 0)))
    seen = np.zeros((b, t, d))
    for channel in range(d):
        group = channel // (d // groups)
        part = slice(group * (d // groups), (group + 1) * (d // groups))
        for column in range(t):
            window = padded[:, column : column + kernel, part]
            seen[:, column, channel] = np.einsum("bkc,ck->b", window, weights["filter"][channel])
    added = output + np.tanh((seen + weights["bias"]) * mask[:, :, None])
    centred = added - added.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_epsilon)
    expected = (normed * weights["norm_scale"] + weights["norm_bias"]) * mask[:, :, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def random_model(n_layers, **changes):
    config = DebertaConfig(
        vocabulary_size=11,
        width=8,
        n_layers=n_layers,
        n_heads=2,
        inner_width=12,
        max_tokens=16,
        n_token_types=1,
        activation="gelu",
        norm_epsilon=1e-7,
        absolute_positions=True,
        position_scores=frozenset({"c2p", "p2c"}),
        reach=16,
        buckets=4,
        shared_projections=False,
        normalised_distances=True,
        conv_kernel=3,
        **changes,
    )
    generator = np.random.default_rng(0)
    plan = deberta_weights(config)
    shapes = {
        group: {n: stacked_shape(s, n_layers) for n, s in tensors.items()} for group, tensors in plan.tensors.items()
    }
    weights = {
        group: {name: jnp.asarray(generator.normal(size=shape), jnp.float32) for name, shape in named.items()}
        for group, named in shapes.items()
    }
    return Deberta(config, weights)


def test_the_program_does_not_grow_with_depth():
    ids = np.zeros((2, 5), np.int32)

    def lines(n_layers):
        model = random_model(n_layers)
        return len(str(jax.jit(lambda ids: model.hidden_states(ids, ids + 1)).trace(ids).jaxpr).splitlines())

    assert lines(12) == lines(24)


def test_the_convolution_runs_once_and_only_from_the_bottom():
    model = random_model(3)
    ids = np.arange(10).reshape(2, 5)
    mask = np.ones_like(ids)
    hidden = model.hidden_states(ids, mask)
    for first in (0, 1, 2):
        np.testing.assert_allclose(model.states_from(hidden[first], mask, first), hidden[first:], atol=1e-5)
    without = Deberta(replace(model.config, conv_kernel=0), model.weights()).hidden_states(ids, mask)
    assert np.abs(without[1] - hidden[1]).max() > 1e-2


def test_gradients_flow_to_every_weight():
    model = random_model(2)
    ids, mask = np.arange(10).reshape(2, 5), np.ones((2, 5), int)
    direction = np.random.default_rng(1).normal(size=(2, 5, 8))
    gradient = jax.grad(lambda w: (Deberta(model.config, w).hidden_states(ids, mask)[-1] * direction).sum())(
        model.weights()
    )
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        # A key's bias shifts all scores of a query alike, which the softmax does not see.
        if "['key_bias']" not in jax.tree_util.keystr(path):
            assert np.abs(leaf).max() > 0, path


def test_wider_batches_than_positions_are_refused(golden):
    model, _ = golden
    with pytest.raises(ConfigError, match="at most 64"):
        model.hidden_states(np.zeros((1, 65), int), np.ones((1, 65), int))
