import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import UnsupportedModelError
from jaxgkd.language.config import ConfigFields
from jaxgkd.language.rope import (
    Rope,
    llama3_frequencies,
    plain_frequencies,
    read_rope,
    rotate,
    rotation,
    yarn_frequencies,
    yarn_scale,
)

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def read(head_width=128, max_positions=4096, **values):
    return read_rope(ConfigFields(values, "config.json"), head_width=head_width, max_positions=max_positions)


def turns(rope, text_length):
    return np.array(rope.frequencies) * text_length / (2 * math.pi)


@pytest.mark.parametrize("theta", [1e4, 5e5, 1e6])
def test_plain_frequencies(theta):
    expected = [theta ** (-2 * pair / 96) for pair in range(48)]
    np.testing.assert_allclose(plain_frequencies(theta, 96), expected, rtol=1e-6)
    assert plain_frequencies(theta, 96)[0] == 1.0


def test_rotation_is_a_rotation_of_pairs():
    states = np.random.default_rng(0).normal(size=(1, 2, 5, 8)).astype(np.float32)
    frequencies = (1.0, 0.3, 0.05, 0.002)
    positions = np.array([[0, 1, 2, 7, 40]])
    turned = np.asarray(rotate(states, rotation(Rope(frequencies, 1.5), positions)))
    pairs = states[..., :4] + 1j * states[..., 4:]
    expected = 1.5 * pairs * np.exp(1j * positions[0][:, None] * np.array(frequencies))
    np.testing.assert_allclose(turned[..., :4] + 1j * turned[..., 4:], expected, rtol=1e-5, atol=1e-5)


def test_scores_depend_on_differences_of_positions():
    query, key = np.random.default_rng(1).normal(size=(2, 1, 1, 6, 16)).astype(np.float32)
    rope = Rope(tuple(plain_frequencies(1e4, 16).tolist()))

    def scores(offset):
        turn = rotation(rope, offset + np.arange(6)[None])
        return jnp.einsum("bhqe,bhke->bhqk", rotate(query, turn), rotate(key, turn))

    np.testing.assert_allclose(scores(0), scores(100), atol=1e-4)


def test_bfloat16_is_turned_in_float32():
    states = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 3, 4)), jnp.bfloat16)
    turn = rotation(Rope((1.0, 0.1)), np.array([[0, 300, 1001]]))
    turned = rotate(states, turn)
    assert turned.dtype == jnp.bfloat16
    exact = np.asarray(rotate(states.astype(jnp.float32), turn))
    np.testing.assert_allclose(np.float32(turned), exact, rtol=2**-8)


def test_llama3_keeps_fast_pairs_divides_slow_ones_and_blends_between():
    plain = plain_frequencies(5e5, 128)
    scaled = llama3_frequencies(plain, factor=8.0, low_factor=1.0, high_factor=4.0, trained_positions=8192)
    turned = 8192 * plain.astype(np.float64) / (2 * math.pi)
    share = np.clip((turned - 1) / 3, 0, 1)
    np.testing.assert_allclose(scaled, plain * ((1 - share) / 8 + share), rtol=1e-6)
    assert (turned > 4).any() and ((turned > 1) & (turned < 4)).any() and (turned < 1).any()


@pytest.mark.parametrize("whole", [True, False])
def test_yarn_ramps_from_kept_to_divided(whole):
    plain = plain_frequencies(1e4, 64)
    scaled = yarn_frequencies(
        plain, theta=1e4, factor=4.0, fast_turns=32, slow_turns=1, trained_positions=2048, whole_bounds=whole
    )
    turned = 2048 * plain.astype(np.float64) / (2 * math.pi)
    share = scaled / plain
    np.testing.assert_allclose(share[turned > 60], 1.0, rtol=1e-6)
    np.testing.assert_allclose(share[turned < 0.5], 0.25, rtol=1e-6)
    between = share[(turned < 30) & (turned > 1.2)]
    assert (np.diff(between) < 0).all() and between.max() < 1 and between.min() > 0.25


def test_yarn_without_stretch_is_plain():
    plain = plain_frequencies(1e4, 64)
    settings = {"theta": 1e4, "fast_turns": 32, "slow_turns": 1, "trained_positions": 2048, "whole_bounds": True}
    np.testing.assert_allclose(yarn_frequencies(plain, factor=1.0, **settings), plain, rtol=1e-6)


def test_the_scale_of_yarn():
    assert yarn_scale(1.0, None, None) == 1.0
    assert yarn_scale(4.0, None, None) == pytest.approx(0.1 * math.log(4) + 1)
    assert yarn_scale(40.0, 1.0, 1.0) == 1.0
    assert yarn_scale(40.0, 2.0, 1.0) == pytest.approx((0.2 * math.log(40) + 1) / (0.1 * math.log(40) + 1))
    assert yarn_scale(4.0, 0.7, None) == yarn_scale(4.0, None, None)


def test_nothing_said_is_plain():
    plain = Rope(tuple(plain_frequencies(1e4, 128).tolist()))
    assert read() == plain
    assert read(rope_scaling=None, rope_theta=10000) == plain
    assert read(rope_parameters=None) == plain
    assert read(rope_scaling={}) == plain
    assert read(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}) == plain
    assert read(rope_theta=5e5) != plain


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 2},
        {"rope_type": "llama3", **LLAMA3},
        {"rope_type": "yarn", "factor": 4.0, "beta_fast": None, "original_max_position_embeddings": 4096},
    ],
)
def test_both_layouts_say_the_same(scaling):
    inside = read(rope_parameters={**scaling, "rope_theta": 5e5})
    assert read(rope_theta=5e5, rope_scaling=scaling) == inside
    assert read(rope_scaling={**scaling, "rope_theta": 5e5}) == inside
    assert read(rope_theta=5e5, rope_scaling={**scaling, "type": scaling["rope_type"]}) == inside
    older = {**scaling, "type": scaling["rope_type"]}
    del older["rope_type"]
    assert read(rope_theta=5e5, rope_scaling=older) == inside
    assert read(rope_theta=5e5, rope_scaling=scaling, rope_parameters={**scaling, "rope_theta": 5e5}) == inside


def test_scalings_change_what_they_say():
    plain = read()
    linear = read(rope_scaling={"type": "linear", "factor": 4.0})
    np.testing.assert_allclose(turns(linear, 4 * 4096), turns(plain, 4096), rtol=1e-6)
    assert read(rope_scaling={"type": "dynamic", "factor": 4.0}) == plain
    trained = {"original_max_position_embeddings": 4096}
    assert read(rope_scaling={"type": "dynamic", "factor": 4.0, **trained}) == plain
    trained = read(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096})
    assert trained == read(rope_scaling={"rope_type": "yarn", "factor": 4.0})
    assert trained.scale == pytest.approx(1.1386, abs=1e-4)
    assert read(rope_scaling={"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.0}).scale == 1.0
    shorter = {**LLAMA3, "original_max_position_embeddings": 1024}
    assert read(rope_scaling={"type": "llama3", **shorter}) != read(rope_scaling={"type": "llama3", **LLAMA3})


REFUSED = [
    ("rope_scaling.type", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}}),
    ("rope_scaling.type", {"rope_scaling": {"type": "su"}}),
    ("rope_scaling.rope_type", {"rope_scaling": {"rope_type": "proportional"}}),
    ("rope_scaling.rope_type", {"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}),
    ("rope_parameters.rope_type", {"rope_parameters": {"rope_type": None}}),
    ("rope_parameters.mrope_section", {"rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6]}}),
    ("rope_parameters.full_attention", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
    ("rope_parameters.factor", {"rope_parameters": {"rope_type": "default", "factor": 4.0}}),
    ("rope_parameters.partial_rotary_factor", {"rope_parameters": {"partial_rotary_factor": 0.5}}),
    ("partial_rotary_factor", {"partial_rotary_factor": 0.25}),
    ("rope_scaling.factor", {"rope_scaling": {"type": "linear"}}),
    ("rope_scaling.factor", {"rope_scaling": {"type": "linear", "factor": "4"}}),
    ("rope_scaling.factor", {"rope_scaling": {"type": "yarn", "factor": None}}),
    ("rope_scaling.finetuned", {"rope_scaling": {"type": "yarn", "factor": 4.0, "finetuned": True}}),
    ("rope_scaling.high_freq_factor", {"rope_scaling": {"type": "llama3", **LLAMA3, "high_freq_factor": 1.0}}),
    ("rope_scaling.low_freq_factor", {"rope_scaling": {"type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}}),
    ("rope_scaling.original_max_position_embeddings", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    ("rope_scaling", {"rope_scaling": "linear"}),
    ("rope_theta", {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}),
    ("rope_theta", {"rope_theta": -1.0}),
    ("rope_parameters", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 1e4}}),
]


@pytest.mark.parametrize(("field", "values"), REFUSED)
def test_what_is_not_exact_is_refused(field, values):
    if field.endswith("original_max_position_embeddings"):
        values["rope_scaling"]["original_max_position_embeddings"] = 2048
    with pytest.raises(UnsupportedModelError) as caught:
        read(**values)
    assert caught.value.field == field
