import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file

from jaxgkd.errors import CheckpointError
from jaxgkd.language import load, weights_hash
from jaxgkd.language.flax_files import FLAX_FILE, FLAX_INDEX
from jaxgkd.language.safetensors_files import SINGLE_FILE

GOLDENS = Path(__file__).parent / "goldens"


TABLES = ("embeddings", "embed_tokens", "wte", "wpe", "shared", "relative_attention_bias")

# Models whose norms have no bias call the scale a weight in Flax too.
WEIGHT_NORMS = ("t5_encoder", "llama")


def flax_name(family, name, values):
    """What Flax calls a tensor of PyTorch, and how it holds it."""
    *path, leaf = name.split(".")
    if leaf == "weight" and path[-1].endswith(TABLES):
        return (*path, "embedding"), values
    if leaf == "weight" and values.ndim == 2:
        return (*path, "kernel"), values.T
    return (*path, "scale" if leaf == "weight" and family not in WEIGHT_NORMS else leaf), values


def flax_tree(family, prefix=()):
    tensors = load_file(GOLDENS / family / SINGLE_FILE)
    return {prefix + path: values for path, values in (flax_name(family, *item) for item in tensors.items())}


@pytest.fixture
def folder(tmp_path):
    shutil.copy(GOLDENS / "bert" / "config.json", tmp_path)
    return tmp_path


def write(folder, tree):
    (folder / FLAX_FILE).write_bytes(msgpack_serialize(unflatten_dict(tree)))


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("prefixed", [False, True])
def test_flax_weights_are_the_same_model(tmp_path, family, prefixed):
    shutil.copy(GOLDENS / family / "config.json", tmp_path)
    write(tmp_path, flax_tree(family, (family,) if prefixed else ()))
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).weights(), load(GOLDENS / family).weights())


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5_encoder"])
def test_flax_knows_decoders_and_t5_too(tmp_path, family):
    shutil.copy(GOLDENS / family / "config.json", tmp_path)
    write(tmp_path, flax_tree(family))
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).weights(), load(GOLDENS / family).weights())


def test_a_collection_may_stand_around_the_weights(folder):
    write(folder, {("params", *path): values for path, values in flax_tree("bert").items()})
    jax.tree.map(np.testing.assert_array_equal, load(folder).weights(), load(GOLDENS / "bert").weights())


def test_half_precision_is_read(folder):
    tree = {path: values.astype(ml_dtypes.bfloat16) for path, values in flax_tree("bert").items()}
    write(folder, tree)
    weights = load(folder, dtype="bfloat16").weights()
    np.testing.assert_array_equal(weights["embeddings"]["token"], tree["embeddings", "word_embeddings", "embedding"])


def write_shards(folder, tree):
    weight_map = {}
    paths = sorted(tree)
    for number in range(2):
        name = f"flax_model-0000{number + 1}-of-00002.msgpack"
        shard = {path: tree[path] for path in paths[number::2]}
        (folder / name).write_bytes(msgpack_serialize(unflatten_dict(shard)))
        weight_map |= {"/".join(path): name for path in shard}
    (folder / FLAX_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_shards_are_one_checkpoint(folder):
    write_shards(folder, flax_tree("bert"))
    jax.tree.map(np.testing.assert_array_equal, load(folder).weights(), load(GOLDENS / "bert").weights())
    assert len(weights_hash(folder)) == 64


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_missing_shard_is_named(folder):
    write_shards(folder, flax_tree("bert"))
    (folder / "flax_model-00002-of-00002.msgpack").unlink()
    refused(folder, r"shard flax_model-00002-of-00002\.msgpack is missing")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda names: names.popitem(), "do not agree on where tensor"),
        (lambda names: names.update({"extra/kernel": max(names.values())}), "tensor extra/kernel"),
        (lambda names: names.update({min(names): max(names.values())}), "do not agree"),
        (lambda names: names.update({min(names): "../flax_model.msgpack"}), "in which msgpack file of this folder"),
        (lambda names: names.clear(), "in which msgpack file of this folder"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder, edit, message):
    weight_map = write_shards(folder, flax_tree("bert"))
    edit(weight_map)
    (folder / FLAX_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, message)


def test_a_tensor_in_two_shards_is_refused(folder):
    tree = flax_tree("bert")
    write_shards(folder, tree)
    first = min(tree)
    both = {path: tree[path] for path in [first, *sorted(tree)[1::2]]}
    (folder / "flax_model-00002-of-00002.msgpack").write_bytes(msgpack_serialize(unflatten_dict(both)))
    refused(folder, f"tensor {'/'.join(first)} is there twice")


@pytest.mark.parametrize("kept", [0, 10, 20_000, 400_000])
def test_a_truncated_file_is_refused(folder, kept):
    write(folder, flax_tree("bert"))
    content = (folder / FLAX_FILE).read_bytes()
    (folder / FLAX_FILE).write_bytes(content[:kept])
    refused(folder, "truncated or damaged")


@pytest.mark.parametrize("content", [b"\x01", b"\x80", msgpack_serialize({"a": {"b": "text"}})])
def test_what_is_no_tree_of_arrays_is_refused(folder, content):
    (folder / FLAX_FILE).write_bytes(content)
    refused(folder, "holds no tree|is missing|a/b is no array but str")


def test_integer_weights_are_refused(folder):
    tree = flax_tree("bert")
    path = ("embeddings", "word_embeddings", "embedding")
    write(folder, {**tree, path: tree[path].astype(np.int32)})
    refused(folder, r"word_embeddings\.weight is stored as int32")


def test_missing_and_unexpected_tensors_are_named(folder):
    tree = flax_tree("bert")
    write(folder, {path: values for path, values in tree.items() if path[-3:] != ("2", "output", "dense")})
    without = {path: values for path, values in tree.items() if path[:3] != ("encoder", "layer", "2")}
    write(folder, without)
    refused(folder, r"encoder\.layer\.2\..* is missing")
    write(folder, {**tree, ("extra", "kernel"): np.zeros((2, 2), np.float32)})
    refused(folder, r"extra\.weight is not part")


def test_safetensors_come_first(folder):
    shutil.copy(GOLDENS / "bert" / SINGLE_FILE, folder)
    (folder / FLAX_FILE).write_bytes(b"never opened")
    load(folder)
