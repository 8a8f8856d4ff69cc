import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxgkd.errors import ConfigError
from jaxgkd.language import Encoder, load, save, save_orbax

GOLDENS = Path(__file__).parent / "goldens"
CHECKPOINTS = sorted(folder.name for folder in GOLDENS.iterdir() if folder.is_dir())


def assert_same(model, other):
    jax.tree.map(np.testing.assert_array_equal, model.weights(), other.weights())


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("write", [save, save_orbax])
def test_what_is_saved_is_read_back(name, write, tmp_path):
    model = load(GOLDENS / name)
    write(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert type(again) is type(model)
    assert again.config == model.config
    assert_same(again, model)
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_tensors_are_those_of_the_original(name, tmp_path):
    save(load(GOLDENS / name), tmp_path)
    original, saved = load_file(GOLDENS / name / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    unread = {key for key in original if key.startswith("pooler.")}
    assert saved.keys() == original.keys() - unread
    for key, values in saved.items():
        np.testing.assert_array_equal(values, original[key])


def test_bfloat16_stays_bfloat16(tmp_path):
    model = load(GOLDENS / "bert", dtype="bfloat16")
    save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert {array.dtype for array in load_file(tmp_path / "model.safetensors").values()} == {
        np.dtype(ml_dtypes.bfloat16)
    }
    assert_same(load(tmp_path, dtype="bfloat16"), model)


def test_orbax_is_read_in_another_dtype(tmp_path):
    save_orbax(load(GOLDENS / "bert", dtype="bfloat16"), tmp_path)
    again = load(tmp_path)
    assert {array.dtype for array in jax.tree.leaves(again.weights())} == {jnp.dtype("float32")}
    assert_same(again, load(GOLDENS / "bert", dtype="bfloat16"))


def test_the_configuration_keeps_what_the_model_does_not_need(tmp_path):
    save(load(GOLDENS / "roberta"), tmp_path)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (GOLDENS / "roberta", tmp_path))
    assert after == before


@pytest.mark.parametrize("write", [save, save_orbax])
def test_a_folder_with_something_in_it_is_left_alone(write, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something already"):
        write(load(GOLDENS / "bert"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_bare_weights_have_no_configuration_to_save(tmp_path):
    model = load(GOLDENS / "bert")
    with pytest.raises(ConfigError, match="made from bare weights"):
        save(Encoder(model.config, model.weights()), tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_a_part_of_a_model_is_not_saved_as_the_whole(tmp_path):
    model = load(GOLDENS / "bert")
    model.config = replace(model.config, n_layers=2)
    with pytest.raises(ConfigError, match="no longer what its config"):
        save(model, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_pytorch_opens_what_is_saved_and_agrees(name, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip("transformers")
    model = load(GOLDENS / name)
    save(model, tmp_path)
    opened_by = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    theirs, report = getattr(transformers, opened_by).from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    with np.load(GOLDENS / name / "expected.npz") as expected:
        ids, mask = expected["input_ids"], expected["mask_right"]
    with torch.no_grad():
        tokens = {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask).long()}
        outputs = theirs.eval()(**tokens, output_hidden_states=True)
    real = mask > 0
    hidden = np.asarray(model.hidden_states(ids, mask))
    reference = torch.stack(outputs.hidden_states).numpy()
    np.testing.assert_allclose(hidden[:, real], reference[:, real], rtol=0, atol=1e-5)
    if "logits" in outputs:
        logits = np.asarray(model.logits(ids, mask))
        np.testing.assert_allclose(logits[real], outputs.logits.numpy()[real], rtol=0, atol=1e-5)
