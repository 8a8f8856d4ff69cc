from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.language import LoraConfig, adapt, adapted_weights, initial_adapters, load, merge, save
from jaxgkd.language.decoder import last_states
from jaxgkd.language.lora import linear_maps

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ["deberta_v2", "t5_encoder", "gemma2", "gpt2"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return load(GOLDENS / request.param)


@pytest.fixture(scope="module")
def llama():
    return load(GOLDENS / "llama")


def random_adapters(model, config, seed=0):
    adapters = initial_adapters(model, config, key=jax.random.key(seed))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda array: jnp.asarray(generator.normal(size=array.shape), jnp.float32) * 0.1, adapters)


IDS = np.random.default_rng(0).integers(4, 160, size=(2, 9))
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4])


def states(model):
    return np.asarray(model.hidden_states(IDS, MASK))[:, MASK > 0]


def test_new_adapters_change_nothing(model):
    config = LoraConfig(rank=4)
    adapters = initial_adapters(model, config, key=jax.random.key(0))
    np.testing.assert_array_equal(states(adapt(model, adapters, config)), states(model))
    for adapter in adapters.values():
        assert np.abs(adapter["a"]).max() > 0.9 * adapter["a"].shape[1] ** -0.5
        assert np.abs(adapter["b"]).max() == 0


def test_default_targets_are_queries_and_values(model):
    names = set(initial_adapters(model, LoraConfig(), key=jax.random.key(0)))
    assert names == ({"query_key_value"} if "query_key_value" in linear_maps(model) else {"query", "value"})


def test_adapters_on_every_map_are_the_kernels_they_add_up_to(model):
    config = LoraConfig(rank=3, alpha=5.0, targets=tuple(linear_maps(model)))
    adapters = random_adapters(model, config)
    weights = model.weights()
    layers = dict(weights["layers"])
    for name, adapter in adapters.items():
        product = np.einsum("lir,lro->lio", *(np.float64(adapter[part]) for part in "ab"))
        layers[f"{name}_kernel"] = jnp.asarray(np.float64(layers[f"{name}_kernel"]) + 5 / 3 * product, jnp.float32)
    expected = states(type(model)(model.config, {**weights, "layers": layers}))
    assert np.abs(expected - states(model)).max() > 1e-2
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(states(adapt(model, adapters, config)), expected, rtol=0, atol=2e-5 * scale)
    np.testing.assert_allclose(states(merge(model, adapters, config)), expected, rtol=0, atol=2e-5 * scale)


def test_merging_keeps_the_dtype_and_the_base(llama):
    model = load(GOLDENS / "llama", dtype="bfloat16")
    before = jax.tree.map(np.array, model.weights())
    config = LoraConfig(rank=2, targets=("up",))
    adapters = random_adapters(model, config)
    merged = merge(model, adapters, config).weights()
    jax.tree.map(np.testing.assert_array_equal, model.weights(), before)
    kernel = merged["layers"]["up_kernel"]
    assert kernel.dtype == jnp.bfloat16
    product = np.einsum("lir,lro->lio", adapters["up"]["a"], adapters["up"]["b"]) * 8
    exact = np.float32(before["layers"]["up_kernel"]) + product
    np.testing.assert_array_equal(kernel, jnp.asarray(exact, jnp.bfloat16))
    np.testing.assert_array_equal(merged["layers"]["down_kernel"], before["layers"]["down_kernel"])


def test_dropout_is_of_training_alone(llama):
    config = LoraConfig(rank=2, dropout=0.5)
    adapters = random_adapters(llama, config)

    @jax.jit
    def last(key):
        weights = adapted_weights(llama.weights(), adapters, config, dropout_key=key)
        return last_states(llama.config, weights, IDS, MASK)

    whole = np.asarray(adapt(llama, adapters, config).hidden_states(IDS, MASK))[-1]
    np.testing.assert_allclose(last(None), whole, rtol=0, atol=1e-5)
    first, second = last(jax.random.key(0)), last(jax.random.key(1))
    np.testing.assert_array_equal(first, last(jax.random.key(0)))
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - whole).max() > 1e-3
    still = adapted_weights(llama.weights(), adapters, LoraConfig(rank=2), dropout_key=jax.random.key(0))
    assert not any(name.endswith("_lora_key") for name in still["layers"])


def test_every_layer_and_map_drops_other_inputs(llama):
    config = LoraConfig(dropout=0.1, targets=("query", "value"))
    adapters = initial_adapters(llama, config, key=jax.random.key(0))
    layers = adapted_weights(llama.weights(), adapters, config, dropout_key=jax.random.key(0))["layers"]
    keys = np.concatenate([jax.random.key_data(layers[f"{name}_lora_key"]) for name in ("query", "value")])
    assert len(np.unique(keys, axis=0)) == 2 * llama.n_layers


def test_gradients_reach_the_adapters_and_only_them(llama):
    config = LoraConfig(rank=2)
    adapters = random_adapters(llama, config)

    @jax.jit
    def total(adapters):
        return last_states(llama.config, adapted_weights(llama.weights(), adapters, config), IDS, MASK).sum()

    gradient = jax.grad(total)(adapters)
    assert jax.tree.structure(gradient) == jax.tree.structure(adapters)
    direction = jax.tree.map(lambda g: g / jnp.linalg.norm(g), gradient)
    slope = sum(float(jnp.linalg.norm(g)) for g in jax.tree.leaves(gradient))

    def moved(step):
        return float(total(jax.tree.map(lambda a, d: a + step * d, adapters, direction)))

    np.testing.assert_allclose((moved(5e-3) - moved(-5e-3)) / 1e-2, slope, rtol=2e-2)


@pytest.mark.parametrize(("field", "value"), [("rank", 0), ("alpha", 0.0), ("dropout", 1.0), ("dropout", -0.1)])
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError) as caught:
        LoraConfig(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("targets", [("query", "q_proj"), ("query", "query")])
def test_targets_that_are_not_there_are_refused(llama, targets):
    with pytest.raises(ConfigError, match=r"choose some of down, gate, key, output, query, up, value") as caught:
        initial_adapters(llama, LoraConfig(targets=targets), key=jax.random.key(0))
    assert caught.value.field == "targets"


def test_a_model_with_adapters_beside_it_is_not_saved_as_if_merged(llama, tmp_path):
    config = LoraConfig()
    adapters = random_adapters(llama, config)
    with pytest.raises(ConfigError, match="merge adapters"):
        save(adapt(llama, adapters, config), tmp_path / "no")
    save(merge(llama, adapters, config), tmp_path / "yes")
    np.testing.assert_array_equal(states(load(tmp_path / "yes")), states(merge(llama, adapters, config)))
