import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit

from jaxgkd.errors import ConfigError
from jaxgkd.language.decoder_network import (
    DecoderConfig,
    batch_context,
    embed,
    head_logits,
    run_layer,
    run_layers,
    token_positions,
)
from jaxgkd.language.rope import Rope

V, D, INNER, B, T = 11, 8, 12, 3, 6

# The parts of Gemma 2 and Qwen 3 together, and those of GPT-2.
ROTARY = DecoderConfig(
    vocabulary_size=V,
    width=D,
    n_layers=3,
    n_heads=4,
    n_key_heads=2,
    head_width=6,
    inner_width=INNER,
    max_tokens=16,
    activation="silu",
    norm="rms",
    norm_epsilon=1e-3,
    windows=(2, None, 3),
    query_scales=(0.4, 0.4, 0.4),
    rope=Rope((1.0, 0.2, 0.01), 1.1),
    biases=frozenset(["query", "output", "up"]),
    head_norms=True,
    output_norms=True,
    norm_offset=1.0,
    embedding_scale=math.sqrt(D),
    score_cap=0.8,
    logit_cap=0.5,
    tied_head=True,
)
LEARNED = DecoderConfig(
    vocabulary_size=V,
    width=D,
    n_layers=3,
    n_heads=2,
    n_key_heads=2,
    head_width=4,
    inner_width=INNER,
    max_tokens=16,
    activation="gelu",
    norm="layer",
    norm_epsilon=1e-3,
    windows=(None, None, None),
    query_scales=(0.5, 0.25, 0.125),
    rope=None,
    biases=frozenset(["query_key_value", "output", "up", "down"]),
    fused_attention=True,
    gated=False,
    counts_real_tokens=True,
    position_offset=2,
)


one_layer = jax.jit(run_layer, static_argnums=0)


def random_weights(config, seed=0):
    random = np.random.default_rng(seed)
    queries, keys = config.n_heads * config.head_width, config.n_key_heads * config.head_width
    kernels = {"output": (queries, D), "up": (D, INNER), "down": (INNER, D)}
    if config.fused_attention:
        kernels["query_key_value"] = (D, queries + 2 * keys)
    else:
        kernels |= {"query": (D, queries), "key": (D, keys), "value": (D, keys)}
    if config.gated:
        kernels["gate"] = (D, INNER)
    norms = {"attention_norm": D, "feed_forward_norm": D}
    if config.output_norms:
        norms |= {"attention_output_norm": D, "feed_forward_output_norm": D}
    if config.head_norms:
        norms |= {"query_norm": config.head_width, "key_norm": config.head_width}
    n = config.n_layers
    layers = {f"{name}_kernel": random.normal(size=(n, *shape)) / 2 for name, shape in kernels.items()}
    layers |= {f"{name}_bias": random.normal(size=(n, kernels[name][1])) for name in config.biases}
    layers |= {f"{name}_scale": random.normal(size=(n, size)) for name, size in norms.items()}
    final = {"scale": random.normal(size=D)}
    if config.norm == "layer":
        layers |= {f"{name}_bias": random.normal(size=(n, size)) for name, size in norms.items()}
        final["bias"] = random.normal(size=D)
    embeddings = {"token": random.normal(size=(V, D))}
    if config.rope is None:
        embeddings["position"] = random.normal(size=(config.max_tokens + config.position_offset, D))
    head = {} if config.tied_head else {"kernel": random.normal(size=(V, D))}
    weights = {"embeddings": embeddings, "layers": layers, "final_norm": final, "head": head}
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), weights)


def batch(seed=3):
    random = np.random.default_rng(seed)
    mask = np.ones((B, T), np.int32)
    mask[1, 4:], mask[2, :3] = 0, 0
    return random.normal(size=(B, T, D)).astype(np.float32), mask


def oracle_norm(config, layer, name, states):
    scale = layer[f"{name}_scale"] + config.norm_offset
    if config.norm == "rms":
        return states / np.sqrt((states**2).mean(-1, keepdims=True) + config.norm_epsilon) * scale
    centred = states - states.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_epsilon) * scale + layer[f"{name}_bias"]


def oracle_layer(config, layer, states, mask, positions, number):
    """One layer in float64, token by token and head by head."""
    layer = {name: np.asarray(array, np.float64) for name, array in layer.items()}
    linear = lambda name, x: x @ layer[f"{name}_kernel"] + layer.get(f"{name}_bias", 0.0)  # noqa: E731
    norm = lambda name, x: oracle_norm(config, layer, name, x)  # noqa: E731
    e, shared, window = config.head_width, config.n_heads // config.n_key_heads, config.windows[number]
    inputs = norm("attention_norm", states)
    if config.fused_attention:
        query, key, value = np.split(linear("query_key_value", inputs), 3, axis=-1)
    else:
        query, key, value = (linear(name, inputs) for name in ("query", "key", "value"))

    def head_of(states, name, row, t, head):
        states = states[row, t, head * e : (head + 1) * e]
        if config.head_norms:
            states = norm(f"{name}_norm", states)
        if config.rope is not None:
            pairs = (states[: e // 2] + 1j * states[e // 2 :]) * config.rope.scale
            pairs = pairs * np.exp(1j * positions[row, t] * np.array(config.rope.frequencies))
            states = np.concatenate([pairs.real, pairs.imag])
        return states

    attended = np.zeros((B, T, config.n_heads * e))
    for row, t, head in np.ndindex(B, T, config.n_heads):
        seen = [s for s in range(t + 1) if mask[row, s] and (window is None or t - s < window)]
        if seen:
            turned = head_of(query, "query", row, t, head)
            scores = np.array([turned @ head_of(key, "key", row, s, head // shared) for s in seen])
            scores = scores * config.query_scales[number]
            if config.score_cap is not None:
                scores = config.score_cap * np.tanh(scores / config.score_cap)
            weights = np.exp(scores) / np.exp(scores).sum()
            group = slice(head // shared * e, (head // shared + 1) * e)
            attended[row, t, head * e : (head + 1) * e] = weights @ value[row, seen, group]
    added = linear("output", attended)
    states = states + (norm("attention_output_norm", added) if config.output_norms else added)
    inputs = norm("feed_forward_norm", states)
    up = linear("up", inputs)
    activation = {"silu": lambda x: x * expit(x), "gelu": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2)))}
    act = activation[config.activation]
    added = linear("down", act(linear("gate", inputs)) * up if config.gated else act(up))
    return states + (norm("feed_forward_output_norm", added) if config.output_norms else added)


@pytest.mark.parametrize("config", [ROTARY, LEARNED])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_layer_against_float64(config, number):
    states, mask = batch()
    layer = jax.tree.map(lambda stack: stack[number], random_weights(config)["layers"])
    positions = token_positions(config, jnp.asarray(mask))
    result, _ = one_layer(
        config,
        layer,
        states,
        batch_context(config, positions, jnp.asarray(mask)),
        kind=config.window_kinds.index(config.windows[number]),
        query_scale=config.query_scales[number],
    )
    expected = oracle_layer(config, layer, states.astype(np.float64), mask, np.asarray(positions), number)
    real = mask > 0
    np.testing.assert_allclose(np.asarray(result)[real], expected[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [ROTARY, LEARNED])
@pytest.mark.parametrize("bounds", [(0, 3), (1, 3), (0, 2)])
def test_scanned_layers_are_layers_one_after_another(config, bounds):
    states, mask = batch()
    weights = random_weights(config)
    context = batch_context(config, token_positions(config, jnp.asarray(mask)), jnp.asarray(mask))
    top, (below, keys) = run_layers(
        config, weights["layers"], states, context, read=lambda s, key, value: (s, key), bounds=bounds
    )
    assert len(below) == len(keys) == bounds[1] - bounds[0]
    expected = jnp.asarray(states)
    for row, number in enumerate(range(*bounds)):
        expected, (key, _) = one_layer(
            config,
            jax.tree.map(lambda stack, number=number: stack[number], weights["layers"]),
            expected,
            context,
            kind=config.window_kinds.index(config.windows[number]),
            query_scale=config.query_scales[number],
        )
        np.testing.assert_allclose(below[row], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(keys[row], key, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(top, below[-1])


def test_positions_count_columns_or_real_tokens():
    mask = jnp.array([[1, 1, 1, 0], [0, 0, 1, 1]])
    np.testing.assert_array_equal(token_positions(ROTARY, mask), [[0, 1, 2, 3], [0, 1, 2, 3]])
    np.testing.assert_array_equal(token_positions(LEARNED, mask), [[0, 1, 2, 2], [0, 0, 0, 1]])


def test_embeddings_are_scaled_or_placed():
    ids, positions = jnp.array([[1, 10]]), jnp.array([[0, 5]])
    weights = random_weights(ROTARY)
    np.testing.assert_allclose(
        embed(ROTARY, weights, ids, positions)[0], math.sqrt(D) * weights["embeddings"]["token"][ids[0]]
    )
    weights = random_weights(LEARNED)
    table = weights["embeddings"]
    np.testing.assert_allclose(
        embed(LEARNED, weights, ids, positions)[0], table["token"][ids[0]] + table["position"][jnp.array([2, 7])]
    )


def test_logits_are_capped_and_come_from_their_table():
    states = np.random.default_rng(0).normal(size=(2, D)).astype(np.float32)
    weights = random_weights(ROTARY)
    expected = 0.5 * np.tanh(states @ np.asarray(weights["embeddings"]["token"]).T / 0.5)
    np.testing.assert_allclose(head_logits(ROTARY, weights, states), expected, rtol=1e-5, atol=1e-6)
    weights = random_weights(LEARNED)
    np.testing.assert_allclose(head_logits(LEARNED, weights, states), states @ weights["head"]["kernel"].T, rtol=1e-5)


def test_without_a_head_there_are_no_logits():
    with pytest.raises(ConfigError, match="without its output head"):
        head_logits(LEARNED, {**random_weights(LEARNED), "head": {}}, jnp.zeros((1, D)))


def test_the_program_does_not_grow_with_depth():
    _, mask = batch()

    def lines(n_layers):
        deep = dataclasses.replace(
            ROTARY, n_layers=n_layers, windows=(2, None) * (n_layers // 2), query_scales=(0.4,) * n_layers
        )
        weights = random_weights(deep)
        context = batch_context(deep, token_positions(deep, jnp.asarray(mask)), jnp.asarray(mask))

        def run(states):
            return run_layers(deep, weights["layers"], states, context, read=lambda s, key, value: None)[0]

        return len(str(jax.make_jaxpr(run)(jnp.zeros((B, T, D)))).splitlines())

    assert lines(4) == lines(32)
