import hashlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxgkd.errors import CheckpointError
from jaxgkd.language import load, weights_hash
from jaxgkd.language.checkpoint import SHARD_INDEX, SINGLE_FILE, StoredTensor, WeightPlan, read_weights

GOLDENS = Path(__file__).parent / "goldens"
LAYER_0_QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def tensors():
    return load_file(GOLDENS / "bert" / SINGLE_FILE)


@pytest.fixture
def folder(tmp_path):
    shutil.copy(GOLDENS / "bert" / "config.json", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def reference():
    return load(GOLDENS / "bert").weights()


def assert_same(folder, reference):
    jax.tree.map(np.testing.assert_array_equal, load(folder).weights(), reference)


def write_shards(folder, tensors, n_shards=3):
    names = sorted(tensors)
    weight_map = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        save_file({name: tensors[name] for name in names[shard::n_shards]}, folder / file)
        weight_map |= dict.fromkeys(names[shard::n_shards], file)
    (folder / SHARD_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_kernels_are_stacked_and_turned(tensors, reference):
    kernel = reference["layers"]["up_kernel"]
    assert kernel.shape == (3, 64, 96)
    np.testing.assert_array_equal(kernel[1], tensors["encoder.layer.1.intermediate.dense.weight"].T)
    np.testing.assert_array_equal(reference["embeddings"]["token"], tensors["embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("prefix", ["bert.", "model."])
def test_prefixes_and_heads_do_not_matter(folder, tensors, reference, prefix):
    prefixed = {prefix + name: array for name, array in tensors.items()}
    prefixed["cls.predictions.transform.dense.weight"] = np.zeros((64, 64), np.float32)
    prefixed["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
    prefixed[f"{prefix}embeddings.position_ids"] = np.arange(64)[None]
    save_file(prefixed, folder / SINGLE_FILE)
    assert_same(folder, reference)


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_prefixes_of_the_other_families(tmp_path, family):
    shutil.copy(GOLDENS / family / "config.json", tmp_path)
    tensors = {f"{family}.{name}": array for name, array in load_file(GOLDENS / family / SINGLE_FILE).items()}
    tensors["classifier.weight"] = np.zeros((2, 64), np.float32)
    tensors[{"roberta": "lm_head.bias", "distilbert": "vocab_projector.bias"}[family]] = np.zeros(160, np.float32)
    save_file(tensors, tmp_path / SINGLE_FILE)
    assert_same(tmp_path, load(GOLDENS / family).weights())


def test_the_pooler_may_be_missing(folder, tensors, reference):
    save_file({name: array for name, array in tensors.items() if "pooler" not in name}, folder / SINGLE_FILE)
    assert_same(folder, reference)


def test_names_from_tensorflow_are_known(folder, tensors, reference):
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, array in tensors.items():
        ending = next((ending for ending in old if name.endswith(ending)), "")
        renamed[name.removesuffix(ending) + old.get(ending, "")] = array
    assert sum("gamma" in name for name in renamed) == 7
    save_file(renamed, folder / SINGLE_FILE)
    assert_same(folder, reference)


def test_shards_are_one_checkpoint(folder, tensors, reference):
    write_shards(folder, tensors)
    assert_same(folder, reference)


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_are_converted(folder, tensors, stored):
    rounded = {name: array.astype(stored) for name, array in tensors.items()}
    save_file(rounded, folder / SINGLE_FILE)
    weights = load(folder).weights()
    np.testing.assert_array_equal(weights["layers"]["query_kernel"][0], rounded[LAYER_0_QUERY].astype(np.float32).T)
    assert weights["layers"]["query_kernel"].dtype == jnp.float32


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_missing_tensor_is_named(folder, tensors):
    del tensors["encoder.layer.2.output.dense.bias"]
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"encoder\.layer\.2\.output\.dense\.bias is missing")


def test_an_unexpected_tensor_is_named(folder, tensors):
    tensors["encoder.layer.3.output.dense.bias"] = np.zeros(64, np.float32)
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"encoder\.layer\.3\.output\.dense\.bias is not part")


def test_a_head_of_another_family_is_unexpected(folder, tensors):
    tensors["lm_head.bias"] = np.zeros(160, np.float32)
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"lm_head\.bias is not part")


def test_a_tensor_of_another_shape_is_named(folder, tensors):
    tensors[LAYER_0_QUERY] = np.ascontiguousarray(tensors[LAYER_0_QUERY][:32])
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"query\.weight has shape \[32, 64\] where config\.json asks for \[64, 64\]")


def test_a_transposed_tensor_is_no_substitute(folder, tensors):
    name = "encoder.layer.0.intermediate.dense.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"shape \[64, 96\] where config\.json asks for \[96, 64\]")


def test_two_names_of_one_weight_are_refused(folder, tensors):
    tensors["embeddings.LayerNorm.gamma"] = tensors["embeddings.LayerNorm.weight"].copy()
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, "two names of one weight")


def test_two_models_in_one_file_are_refused(folder, tensors):
    save_file({p + name: a.copy() for p in ("", "bert.") for name, a in tensors.items()}, folder / SINGLE_FILE)
    refused(folder, "2 times, with different prefixes")


def test_another_model_altogether_is_refused(folder):
    save_file({"weight": np.zeros(3, np.float32)}, folder / SINGLE_FILE)
    refused(folder, r"word_embeddings\.weight is missing")


def test_integer_weights_are_refused(folder, tensors):
    tensors[LAYER_0_QUERY] = tensors[LAYER_0_QUERY].astype(np.int8)
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"query\.weight is stored as I8")


@pytest.mark.parametrize("kept", [0, 4, 100, 20_000, 400_000])
def test_a_truncated_file_is_refused(folder, kept):
    (folder / SINGLE_FILE).write_bytes((GOLDENS / "bert" / SINGLE_FILE).read_bytes()[:kept])
    refused(folder, r"model\.safetensors: the file is truncated or damaged")


def test_a_damaged_header_is_refused(folder):
    damaged = bytearray((GOLDENS / "bert" / SINGLE_FILE).read_bytes())
    damaged[20] ^= 0xFF
    (folder / SINGLE_FILE).write_bytes(damaged)
    refused(folder, "truncated or damaged")


def test_pickles_are_refused_with_the_mend(folder):
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    refused(folder, r"pytorch_model\.bin, a pickle.*save_pretrained")


def test_a_folder_without_weights_is_refused(folder):
    refused(folder, "neither model.safetensors nor")


def test_a_missing_shard_is_named(folder, tensors):
    write_shards(folder, tensors)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, r"model-00002-of-00003\.safetensors is missing")


def test_a_truncated_shard_is_named(folder, tensors):
    write_shards(folder, tensors)
    shard = folder / "model-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    refused(folder, r"model-00003-of-00003\.safetensors: the file is truncated")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda names: names.update({"extra.weight": names[LAYER_0_QUERY]}), "does not hold: extra.weight"),
        (lambda names: names.pop(LAYER_0_QUERY), "leaves out a tensor of the shard: " + LAYER_0_QUERY),
        (lambda names: names.update({LAYER_0_QUERY: "../other.safetensors"}), "not the name of a safetensors file"),
        (lambda names: names.update({LAYER_0_QUERY: "pytorch_model.bin"}), "not the name of a safetensors file"),
        (lambda names: names.clear(), "lists no tensors"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder, tensors, edit, message):
    weight_map = write_shards(folder, tensors)
    edit(weight_map)
    (folder / SHARD_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, message)


def test_the_hash_is_of_the_weights(folder, tensors):
    golden = GOLDENS / "bert"
    assert weights_hash(golden) == hashlib.sha256((golden / SINGLE_FILE).read_bytes()).hexdigest()
    write_shards(folder, tensors)
    before = weights_hash(folder)
    assert before == weights_hash(str(folder)) != weights_hash(golden)
    tensors[LAYER_0_QUERY][0, 0] += 1
    write_shards(folder, tensors)
    assert weights_hash(folder) != before


def test_tensors_without_layers_are_not_stacked(tmp_path):
    save_file({"a": np.ones((2, 3), np.float32), "b.0": np.zeros(0, np.float32)}, tmp_path / SINGLE_FILE)
    tensors = {"turned": StoredTensor("a", (2, 3), transpose=True), "empty": StoredTensor("b.{layer}", (0,))}
    plan = WeightPlan(
        tensors={"all": tensors},
        n_layers=1,
        anchor="a",
        prefixes=("",),
        ignored=(),
    )
    weights = read_weights(tmp_path, plan, jnp.dtype("float32"))["all"]
    assert weights["turned"].shape == (3, 2)
    assert weights["empty"].shape == (1, 0)
