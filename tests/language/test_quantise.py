import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.language import (
    LoraConfig,
    generate,
    initialise,
    merge,
    quantise,
    save,
    save_orbax,
    tune_adapters,
    tune_model,
)
from jaxgkd.language.decoder import last_states
from jaxgkd.language.lora import adapt, adapted_weights, initial_adapters, linear_maps
from jaxgkd.language.quantise import BLOCK
from tests.language.test_tuning import FIRST, LLAMA, SECOND, SETTINGS, pairs_of, right_answers

# The largest step of the NF4 levels, between -1 and -0.6962, halved (Dettmers et al. 2023, appendix E).
NF4_ERROR = (1 - 0.6961928) / 2
LARGEST_ERROR = {8: 0.5 / 127, 4: NF4_ERROR}
IDS = np.random.default_rng(0).integers(64, size=(3, 12))


def kernels(model):
    return {name: array for name, array in model.weights()["layers"].items() if name.endswith("_kernel")}


@pytest.fixture(scope="module")
def base():
    return tune_model(initialise(LLAMA, key=jax.random.key(0)), pairs_of(FIRST), SETTINGS, key=jax.random.key(1))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_kernel_is_off_by_half_a_step_of_its_block(base, bits):
    import qwix

    few = quantise(base, bits)
    for name, exact in kernels(base).items():
        exact, rounded = np.asarray(exact, np.float64), np.asarray(qwix.dequantize(kernels(few)[name]))
        layers, inputs, outputs = exact.shape
        block = np.gcd(inputs, BLOCK)
        largest = np.abs(exact.reshape(layers, -1, block, outputs)).max(axis=2, keepdims=True)
        error = np.abs(rounded - exact).reshape(layers, -1, block, outputs)
        assert (error <= 1.01 * LARGEST_ERROR[bits] * largest).all() and error.any()


@pytest.mark.parametrize("bits", [8, 4])
def test_memory_falls_and_everything_else_stays(base, bits):
    few = quantise(base, bits)
    assert few.n_parameters == base.n_parameters and linear_maps(few) == linear_maps(base)
    for group, arrays in base.weights().items():
        for name, array in arrays.items():
            if not name.endswith("_kernel"):
                np.testing.assert_array_equal(few.weights()[group][name], array)
    compiled = {
        name: jax.jit(lambda weights: jax.tree.map(lambda array: array.astype(jnp.float32).sum(), weights))
        .lower(kernels(model))
        .compile()
        .memory_analysis()
        .argument_size_in_bytes
        for name, model in {"exact": base, "few": few}.items()
    }
    # One float32 scale for 48 inputs or 32 beside each of their numbers.
    assert compiled["few"] < compiled["exact"] * (bits / 32 + 1 / 16)


@pytest.mark.parametrize("bits", [8, 4])
def test_what_it_gives_is_what_its_rounded_kernels_give(base, bits):
    import qwix

    few = quantise(base, bits)
    weights = few.weights()
    put_back = {name: qwix.dequantize(kernel) for name, kernel in kernels(few).items()}
    rounded = type(base)(base.config, {**weights, "layers": {**weights["layers"], **put_back}})
    mask = np.ones_like(IDS)
    np.testing.assert_allclose(few.logits(IDS, mask), rounded.logits(IDS, mask), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(few.hidden_states(IDS, mask), rounded.hidden_states(IDS, mask), rtol=1e-5, atol=1e-5)
    said = [generate(model, IDS, mask, max_new_tokens=4).tokens for model in (few, rounded)]
    np.testing.assert_array_equal(*said)


def gradient_of_adapters(model, remember):
    """A function that compiles the gradient of a sum of states with respect to adapters."""
    lora = LoraConfig(rank=2)
    adapters = jax.tree.map(lambda array: array + 0.05, initial_adapters(model, lora, key=jax.random.key(2)))

    def total(adapters, weights):
        states = last_states(model.config, adapted_weights(weights, adapters, lora), IDS, jnp.ones_like(IDS))
        return jnp.square(states * remember).sum()

    return jax.jit(jax.grad(total)).lower(adapters, model.weights()).compile(), adapters


@pytest.mark.thorough
def test_gradients_are_those_beside_the_rounded_kernels_and_keep_no_kernel_in_floating_point(base):
    import qwix

    remember = np.random.default_rng(1).normal(size=(3, 12, 48)).astype(np.float32)
    few = quantise(base, 8)
    weights = few.weights()
    put_back = {name: qwix.dequantize(kernel) for name, kernel in kernels(few).items()}
    rounded = type(base)(base.config, {**weights, "layers": {**weights["layers"], **put_back}})
    (ours, adapters), (plain, _) = (gradient_of_adapters(model, remember) for model in (few, rounded))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        ours(adapters, few.weights()),
        plain(adapters, rounded.weights()),
    )
    # Deeper, it needs more memory for states and adapters, and none for kernels put back.
    deep, deeper = (initialise({**LLAMA, "num_hidden_layers": n}, key=jax.random.key(0)) for n in (8, 16))
    of_depth = [gradient_of_adapters(quantise(model, 8), remember)[0].memory_analysis() for model in (deep, deeper)]
    exact = [gradient_of_adapters(model, remember)[0].memory_analysis() for model in (deep, deeper)]
    grown = of_depth[1].temp_size_in_bytes - of_depth[0].temp_size_in_bytes
    grown_exact = exact[1].temp_size_in_bytes - exact[0].temp_size_in_bytes
    one_layer = sum(np.prod(kernel.shape[1:]) for kernel in kernels(deep).values()) * 4
    assert grown - grown_exact < 8 * one_layer / 4


@pytest.mark.parametrize("bits", [pytest.param(8, marks=pytest.mark.thorough), 4])
def test_adapters_learn_beside_it_and_it_stays_as_it_is(base, bits):
    few = quantise(base, bits)
    before = jax.tree.map(np.array, few.weights())
    lora = LoraConfig(rank=8, targets=tuple(linear_maps(base)))
    adapters = tune_adapters(few, pairs_of(SECOND), SETTINGS, lora, key=jax.random.key(2))
    assert right_answers(adapt(few, adapters, lora), SECOND) > 0.9
    jax.tree.map(np.testing.assert_array_equal, few.weights(), before)
    with pytest.raises(ConfigError, match="merged into a quantised base"):
        merge(few, adapters, lora)


def test_what_cannot_be_done_is_refused(base, tmp_path):
    few = quantise(base, 4)
    for write in (save, save_orbax):
        with pytest.raises(ConfigError, match="a quantised model is not saved"):
            write(few, tmp_path / "model")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="quantised already"):
        quantise(few, 8)
    with pytest.raises(ConfigError, match="not kept in 3 bits"):
        quantise(base, 3)
    with pytest.raises(ConfigError):
        tune_model(few, pairs_of(FIRST), SETTINGS, key=jax.random.key(0))
