from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.language import T5Encoder, load
from jaxgkd.language.t5 import t5_weights
from jaxgkd.language.t5_network import T5Config, distance_buckets, rms_norm
from jaxgkd.language.weight_plan import stacked_shape

GOLDEN = Path(__file__).parent / "goldens" / "t5_encoder"


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


@pytest.mark.parametrize("first", [0, 2, 3])
def test_upper_layers_continue_from_a_cached_state(golden, first):
    model, expected = golden
    mask = expected["mask_right"]
    hidden = model.hidden_states(expected["input_ids"], mask)
    np.testing.assert_allclose(model.states_from(hidden[first], mask, first), hidden[first:], atol=1e-5)


def test_the_last_norm_is_part_of_the_last_state_alone(golden):
    model, expected = golden
    ids, mask = expected["input_ids"], expected["mask_left"]
    pooled = model.pooled_states(ids, mask, layers=(3, 2, 0), pooling="last")
    np.testing.assert_allclose(pooled, np.swapaxes(expected["hidden_left"][[3, 2, 0], :, -1], 0, 1), atol=1e-5)
    lower = model.pooled_states(ids, mask, layers=(2,), pooling="last")
    np.testing.assert_allclose(lower[:, 0], pooled[:, 1], atol=1e-5)


def small(**changes):
    shape = T5Config(
        vocabulary_size=11,
        width=8,
        n_layers=2,
        n_heads=2,
        head_width=3,
        inner_width=12,
        activation="relu",
        gated=False,
        norm_epsilon=1e-6,
        buckets=32,
        reach=128,
    )
    return replace(shape, **changes)


# The first distance of each bucket to the right, and, with the sign turned, of each to the left.
FIRST_DISTANCES = {
    (32, 128): [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91],
    (8, 16): [0, 1, 2, 6],
    (32, 64): [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 14, 18, 23, 30, 39, 50],
}


@pytest.mark.parametrize(("buckets", "reach"), FIRST_DISTANCES)
def test_buckets_begin_where_the_reference_begins_them(buckets, reach):
    t = 200
    found = distance_buckets(small(buckets=buckets, reach=reach), t)
    firsts = np.array(FIRST_DISTANCES[buckets, reach])
    for distance in range(t):
        number = np.searchsorted(firsts, distance, side="right") - 1
        assert found[distance, 0] == number
        assert found[0, distance] == (number + buckets // 2 if distance else 0)
    np.testing.assert_array_equal(found[1:, 1:], found[:-1, :-1])


def test_the_norm_is_its_equation():
    generator = np.random.default_rng(0)
    states, scale = np.float32(generator.normal(size=(3, 8))), np.float32(generator.normal(size=8))
    exact = states.astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(rms_norm(states, scale, 1e-6), expected, rtol=1e-5)


def random_model(config, seed=0):
    generator = np.random.default_rng(seed)
    weights = {
        group: {
            name: jnp.asarray(generator.normal(size=stacked_shape(stored, config.n_layers)), jnp.float32)
            for name, stored in tensors.items()
        }
        for group, tensors in t5_weights(config).tensors.items()
    }
    return T5Encoder(config, weights)


def oracle(config, weights, ids):
    """The last hidden state of one text without padding, in float64."""
    weights = jax.tree.map(lambda array: np.asarray(array, np.float64), weights)
    layers, e = weights["layers"], config.head_width
    bias = weights["distances"]["bias"][distance_buckets(config, len(ids))]

    def norm(states, scale):
        return states / np.sqrt((states**2).mean(-1, keepdims=True) + config.norm_epsilon) * scale

    states = weights["embeddings"]["token"][ids]
    for n in range(config.n_layers):
        inputs = norm(states, layers["attention_norm_scale"][n])
        heads = []
        for head in range(config.n_heads):
            part = slice(head * e, (head + 1) * e)
            query, key, value = (inputs @ layers[f"{name}_kernel"][n][:, part] for name in ("query", "key", "value"))
            scores = np.exp(query @ key.T + bias[:, :, head])
            heads.append(scores / scores.sum(-1, keepdims=True) @ value)
        states = states + np.hstack(heads) @ layers["output_kernel"][n]
        inputs = norm(states, layers["feed_forward_norm_scale"][n])
        if config.gated:
            inner = np.maximum(inputs @ layers["gate_kernel"][n], 0) * (inputs @ layers["up_kernel"][n])
        else:
            inner = np.maximum(inputs @ layers["up_kernel"][n], 0)
        states = states + inner @ layers["down_kernel"][n]
    return norm(states, weights["final_norm"]["scale"])


@pytest.mark.parametrize("gated", [False, True])
def test_both_blocks_and_heads_of_any_width_against_float64(gated):
    model = random_model(small(gated=gated))
    ids = np.random.default_rng(1).integers(0, 11, size=(1, 7))
    found = model.hidden_states(ids, np.ones((1, 7), int))[-1, 0]
    np.testing.assert_allclose(found, oracle(model.config, model.weights(), ids[0]), rtol=1e-4, atol=1e-4)


def test_the_program_does_not_grow_with_depth():
    ids = np.zeros((2, 5), np.int32)

    def lines(n_layers):
        model = random_model(small(n_layers=n_layers))
        return len(str(jax.jit(lambda ids: model.hidden_states(ids, ids + 1)).trace(ids).jaxpr).splitlines())

    assert lines(2) == lines(24)
