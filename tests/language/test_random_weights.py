import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from jaxgkd.errors import ConfigError, UnsupportedModelError
from jaxgkd.language import initialise, load, save

GOLDENS = Path(__file__).parent / "goldens"
LLAMA = json.loads((GOLDENS / "llama" / "config.json").read_text())


@pytest.fixture(scope="module")
def llama():
    return initialise({**LLAMA, "initializer_range": 0.1}, key=jax.random.key(0))


def test_shapes_are_those_of_the_checkpoint(llama):
    loaded = load(GOLDENS / "llama")
    assert type(llama) is type(loaded) and llama.config == loaded.config
    assert jax.tree.map(jnp.shape, llama.weights()) == jax.tree.map(jnp.shape, loaded.weights())


def test_weights_are_drawn_as_said(llama):
    weights = llama.weights()
    for name, array in {**weights["layers"], **weights["embeddings"], **weights["head"]}.items():
        if name.endswith("_scale"):
            np.testing.assert_array_equal(array, 1)
        else:
            assert np.std(array) == pytest.approx(0.1, rel=0.05)
            assert abs(np.mean(array)) < 0.01
    assert (weights["layers"]["gate_kernel"] != weights["layers"]["up_kernel"]).any()
    other = initialise({**LLAMA, "initializer_range": 0.1}, key=jax.random.key(1)).weights()
    assert (other["layers"]["up_kernel"] != weights["layers"]["up_kernel"]).any()


def test_norms_and_biases_begin_neutral():
    for name in ("gemma2", "bert"):
        values = json.loads((GOLDENS / name / "config.json").read_text())
        layers = initialise(values, key=jax.random.key(0)).weights()["layers"]
        np.testing.assert_array_equal(layers["attention_norm_scale"], 0 if name == "gemma2" else 1)
        assert not any(np.asarray(array).any() for key, array in layers.items() if key.endswith("bias"))


def test_dtype_and_place_are_chosen(llama):
    asked = []

    def placement(path, shape):
        asked.append(path)
        return SingleDeviceSharding(jax.devices()[0])

    small = initialise(LLAMA, key=jax.random.key(0), dtype="bfloat16", placement=placement)
    assert {leaf.dtype for leaf in jax.tree.leaves(small.weights())} == {jnp.dtype("bfloat16")}
    assert "layers/up_kernel" in asked and len(asked) == len(jax.tree.leaves(small.weights()))


def test_a_random_model_is_saved_like_any_other(llama, tmp_path):
    save(llama, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).weights(), llama.weights())


def test_what_is_not_understood_is_refused():
    with pytest.raises(UnsupportedModelError) as caught:
        initialise({**LLAMA, "rope_scaling": {"rope_type": "unknown"}}, key=jax.random.key(0))
    assert "rope" in caught.value.field
    with pytest.raises(UnsupportedModelError) as caught:
        initialise({"hidden_size": 8}, key=jax.random.key(0))
    assert caught.value.field == "model_type"
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        initialise(LLAMA, key=jax.random.key(0), dtype="float16")
