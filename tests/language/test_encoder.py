from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import Encoder, EncoderConfig, load

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ["bert", "roberta", "distilbert"]


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request):
    with np.load(GOLDENS / request.param / "expected.npz") as expected:
        return load(GOLDENS / request.param), dict(expected)


@pytest.fixture(scope="module")
def bert():
    with np.load(GOLDENS / "bert" / "expected.npz") as expected:
        return load(GOLDENS / "bert"), expected["input_ids"], expected["mask_right"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_hidden_state_is_the_reference(golden, side):
    model, expected = golden
    mask = expected[f"mask_{side}"]
    hidden = np.asarray(model.hidden_states(expected["input_ids"], mask))
    assert hidden.shape == expected[f"hidden_{side}"].shape
    np.testing.assert_allclose(hidden[:, mask > 0], expected[f"hidden_{side}"][:, mask > 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooled_states_are_pooled_hidden_states(golden, side, pooling):
    model, expected = golden
    mask, hidden = expected[f"mask_{side}"], expected[f"hidden_{side}"]
    layers = (3, 0, 2)
    pooled = model.pooled_states(expected["input_ids"], mask, layers=layers, pooling=pooling)
    assert pooled.shape == (4, 3, 64)
    for column, layer in enumerate(layers):
        for row in range(4):
            real = hidden[layer, row, mask[row] > 0]
            reference = {"mean": real.mean(0), "cls": real[0], "last": real[-1]}[pooling]
            np.testing.assert_allclose(pooled[row, column], reference, rtol=0, atol=1e-5)


def test_lower_layers_alone_suffice_for_lower_states(bert):
    model, ids, mask = bert
    everything = model.pooled_states(ids, mask, layers=(0, 1, 2, 3), pooling="mean")
    np.testing.assert_allclose(
        model.pooled_states(ids, mask, layers=(1,), pooling="mean")[:, 0], everything[:, 1], atol=1e-6
    )
    np.testing.assert_allclose(
        model.pooled_states(ids, mask, layers=(0,), pooling="mean")[:, 0], everything[:, 0], atol=1e-6
    )


@pytest.mark.parametrize("first", [0, 2, 3])
def test_upper_layers_continue_from_a_cached_state(golden, first):
    model, expected = golden
    mask = expected["mask_right"]
    hidden = model.hidden_states(expected["input_ids"], mask)
    continued = model.states_from(hidden[first], mask, first)
    np.testing.assert_allclose(continued, hidden[first:], atol=1e-6)


def test_a_large_batch_runs_in_blocks_and_gives_the_same():
    model = load(GOLDENS / "roberta")
    with np.load(GOLDENS / "roberta" / "expected.npz") as arrays:
        expected = dict(arrays)
    ids, mask = np.tile(expected["input_ids"], (33, 1))[:130], np.tile(expected["mask_left"], (33, 1))[:130]
    reference = np.tile(expected["hidden_left"], (1, 33, 1, 1))[:, :130]
    hidden = np.asarray(model.hidden_states(ids, mask))
    np.testing.assert_allclose(hidden[:, mask > 0], reference[:, mask > 0], rtol=0, atol=1e-5)
    pooled = model.pooled_states(ids, mask, layers=(3,), pooling="last")
    np.testing.assert_allclose(pooled[:, 0], reference[3, :, -1], rtol=0, atol=1e-5)
    upper = np.asarray(model.states_from(reference[2], mask, 2))[1]
    np.testing.assert_allclose(upper[mask > 0], reference[3][mask > 0], rtol=0, atol=1e-5)


def test_padding_does_not_matter_to_roberta_on_either_side():
    model = load(GOLDENS / "roberta")
    generator = np.random.default_rng(0)
    short = generator.integers(3, 160, size=(1, 6))
    alone = model.hidden_states(short, np.ones((1, 6), int))
    padding = np.ones((1, 4), int)  # id 1
    right = model.hidden_states(np.hstack([short, padding]), np.array([[1] * 6 + [0] * 4]))
    left = model.hidden_states(np.hstack([padding, short]), np.array([[0] * 4 + [1] * 6]))
    np.testing.assert_allclose(right[:, :, :6], alone, atol=2e-6)
    np.testing.assert_allclose(left[:, :, 4:], alone, atol=2e-6)


def test_the_module_splits_once_and_trains_inside_jit(bert):
    model, ids, mask = bert
    graphdef, params = nnx.split(model)

    @jax.jit
    def loss(params):
        encoder = nnx.merge(graphdef, params)
        return encoder.pooled_states(ids, mask, layers=(3,), pooling="mean")[:, 0, 0].sum()

    value, gradient = jax.value_and_grad(loss)(params)
    before = model.pooled_states(ids, mask, layers=(3,), pooling="mean")[:, 0, 0].sum()
    np.testing.assert_allclose(value, before, rtol=1e-5)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))

    kernel = gradient["layers"]["up_kernel"].get_value()
    direction = np.random.default_rng(0).normal(size=kernel.shape).astype(np.float32)
    slope = float((kernel * direction).sum())
    step = 1e-2 / np.linalg.norm(direction)

    def moved(sign):
        weights = model.weights()
        weights["layers"]["up_kernel"] = weights["layers"]["up_kernel"] + sign * step * direction
        pooled = Encoder(model.config, weights).pooled_states(ids, mask, layers=(3,), pooling="mean")
        return float(pooled[:, 0, 0].sum())

    np.testing.assert_allclose((moved(1) - moved(-1)) / (2 * step), slope, rtol=2e-2)


def test_fine_tuning_upper_layers_leaves_lower_ones_alone(bert):
    model, ids, mask = bert
    cached = model.hidden_states(ids, mask)[2]
    graphdef, params = nnx.split(model)

    @jax.jit
    @jax.grad
    def slope(params):
        return nnx.merge(graphdef, params).states_from(cached, mask, 2)[-1, :, 0, 0].sum()

    gradient = slope(params)
    for array in jax.tree.leaves(gradient["layers"]):
        np.testing.assert_array_equal(array[:2], 0)
        assert np.abs(array[2]).max() > 0
    assert all(np.abs(array).max() == 0 for array in jax.tree.leaves(gradient["embeddings"]))


def random_encoder(n_layers, seed=0):
    config = EncoderConfig(
        vocabulary_size=11,
        width=8,
        n_layers=n_layers,
        n_heads=2,
        inner_width=12,
        n_positions=9,
        n_token_types=1,
        activation="gelu",
        norm_epsilon=1e-12,
    )
    generator = np.random.default_rng(seed)
    kernels = {"query": (8, 8), "key": (8, 8), "value": (8, 8), "output": (8, 8), "up": (8, 12), "down": (12, 8)}
    layers = {f"{name}_kernel": generator.normal(size=(n_layers, *shape)) for name, shape in kernels.items()}
    layers |= {f"{name}_bias": generator.normal(size=(n_layers, shape[1])) for name, shape in kernels.items()}
    for name in ("attention_norm", "feed_forward_norm"):
        layers[f"{name}_scale"], layers[f"{name}_bias"] = generator.normal(size=(2, n_layers, 8))
    embeddings = {"token": generator.normal(size=(11, 8)), "position": generator.normal(size=(9, 8))}
    embeddings["token_type"] = generator.normal(size=(1, 8))
    embeddings["norm_scale"], embeddings["norm_bias"] = generator.normal(size=(2, 8))
    weights = {"embeddings": embeddings, "layers": layers}
    return Encoder(config, jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), weights))


def test_the_program_does_not_grow_with_depth():
    ids = np.zeros((2, 5), np.int32)

    def lines(n_layers):
        encoder = random_encoder(n_layers)
        traced = jax.jit(lambda ids: encoder.hidden_states(ids, jnp.ones_like(ids))).trace(ids)
        return len(str(traced.jaxpr).splitlines())

    assert lines(2) == lines(24)


def test_ids_outside_the_vocabulary_never_pass_silently():
    encoder = random_encoder(2)
    mask = np.ones((1, 3), int)
    for wrong in (11, -1):
        ids = np.array([[0, wrong, 2]])
        with pytest.raises(DataError, match="vocabulary of 11"):
            encoder.hidden_states(ids, mask)
        assert np.isnan(jax.jit(encoder.hidden_states)(ids, mask)).any()


def test_what_does_not_exist_is_refused():
    encoder = random_encoder(2)
    ids, mask = np.zeros((1, 3), int), np.ones((1, 3), int)
    with pytest.raises(ConfigError, match="at most 9"):
        encoder.hidden_states(np.zeros((1, 10), int), np.ones((1, 10), int))
    for layers in [(3,), (-1,), (0, 4)]:
        with pytest.raises(ConfigError, match="to 2"):
            encoder.pooled_states(ids, mask, layers=layers, pooling="mean")
    with pytest.raises(ConfigError, match="at least one"):
        encoder.pooled_states(ids, mask, layers=(), pooling="mean")
    with pytest.raises(ConfigError, match="pooling"):
        encoder.pooled_states(ids, mask, layers=(0,), pooling="sum")
    states = jnp.zeros((1, 3, 8))
    with pytest.raises(ConfigError, match="no hidden state 3"):
        encoder.states_from(states, mask, 3)
    with pytest.raises(ConfigError, match="width of 8"):
        encoder.states_from(states[..., :4], mask, 1)
    with pytest.raises(ConfigError, match="at most 9"):
        encoder.states_from(jnp.zeros((1, 10, 8)), np.ones((1, 10)), 1)


def test_facts_about_the_model(bert):
    model, _, _ = bert
    assert (model.width, model.n_layers, model.vocabulary_size, model.max_tokens) == (64, 3, 160, 64)
    embeddings = (160 + 64 + 2 + 2) * 64
    assert model.n_parameters == embeddings + 3 * (4 * 64 * 65 + 2 * 64 * 96 + 96 + 64 + 4 * 64)
    assert load(GOLDENS / "roberta").max_tokens == 62


def test_bfloat16_is_near(bert):
    model, ids, mask = bert
    small = load(GOLDENS / "bert", dtype="bfloat16")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(small.weights()))
    hidden = small.hidden_states(ids, mask)
    assert hidden.dtype == jnp.bfloat16
    pooled = small.pooled_states(ids, mask, layers=(0, 3), pooling="mean")
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, model.pooled_states(ids, mask, layers=(0, 3), pooling="mean"), rtol=0, atol=0.05)
