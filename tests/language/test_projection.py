import jax
import numpy as np
import pytest

from jaxgkd.language.projection import project


@pytest.fixture
def layer():
    generator = np.random.default_rng(0)
    shapes = {"up_kernel": (6, 4), "up_bias": (4,), "up_lora_a": (6, 2), "up_lora_b": (2, 4), "down_kernel": (6, 3)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


INPUTS = np.random.default_rng(1).normal(size=(5, 7, 6)).astype(np.float32)


def test_each_part_is_optional(layer):
    np.testing.assert_allclose(project(layer, "down", INPUTS), INPUTS @ layer["down_kernel"], rtol=1e-5, atol=1e-5)
    plain = {name: layer[name] for name in ("up_kernel", "up_bias")}
    expected = INPUTS @ layer["up_kernel"] + layer["up_bias"]
    np.testing.assert_allclose(project(plain, "up", INPUTS), expected, rtol=1e-5, atol=1e-5)
    adapted = expected + INPUTS @ (layer["up_lora_a"] @ layer["up_lora_b"])
    np.testing.assert_allclose(project(layer, "up", INPUTS), adapted, rtol=1e-5, atol=1e-5)


def test_dropout_thins_the_inputs_of_the_adapter_alone(layer):
    inputs = np.ones((200, 50, 6), np.float32)
    keep = np.float32(0.75)
    layer = {"up_kernel": 0 * layer["up_kernel"], "up_lora_a": np.eye(6), "up_lora_b": np.eye(6)[:, :4]}
    layer |= {"up_lora_key": jax.random.key(0), "up_lora_keep": keep}
    passed = np.asarray(project(layer, "up", inputs))
    assert set(np.unique(passed)) == {0, np.float32(1 / 0.75)}
    np.testing.assert_allclose(passed.mean(), 1, atol=0.01)
    np.testing.assert_array_equal(passed, project(layer, "up", inputs))
    other = project({**layer, "up_lora_key": jax.random.key(1)}, "up", inputs)
    assert (passed != other).any()


def test_half_precision_stays_so(layer):
    small = {name: jax.numpy.asarray(array, "bfloat16") for name, array in layer.items()}
    small |= {"up_lora_a": layer["up_lora_a"], "up_lora_b": layer["up_lora_b"]}
    found = project(small, "up", jax.numpy.asarray(INPUTS, "bfloat16"))
    assert found.dtype == "bfloat16"
    np.testing.assert_allclose(np.float32(found), project(layer, "up", INPUTS), atol=0.2)
