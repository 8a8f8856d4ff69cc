import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from safetensors.numpy import load_file, save_file

from jaxgkd.errors import CheckpointError
from jaxgkd.language import checkpoint, load, weights_hash
from jaxgkd.language.checkpoint import StoredTensor, WeightPlan, read_weights
from jaxgkd.language.safetensors_files import SHARD_INDEX, SINGLE_FILE

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
    refused(folder, r"query\.weight has shape \[32, 64\] where the configuration asks for \[64, 64\]")


def test_a_transposed_tensor_is_no_substitute(folder, tensors):
    name = "encoder.layer.0.intermediate.dense.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    save_file(tensors, folder / SINGLE_FILE)
    refused(folder, r"shape \[64, 96\] where the configuration asks for \[96, 64\]")


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


def test_the_hash_is_of_the_weights_and_of_what_network_they_make(folder, tensors):
    golden = GOLDENS / "bert"
    hashes = [hashlib.sha256((golden / name).read_bytes()).hexdigest() for name in (SINGLE_FILE, "config.json")]
    assert weights_hash(golden) == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    write_shards(folder, tensors)
    before = weights_hash(folder)
    assert before == weights_hash(str(folder)) != weights_hash(golden)
    tensors[LAYER_0_QUERY][0, 0] += 1
    write_shards(folder, tensors)
    assert (other := weights_hash(folder)) != before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert weights_hash(folder) != other


def test_a_shard_that_is_left_over_is_named(folder, tensors):
    write_shards(folder, tensors)
    shutil.copy(folder / "model-00003-of-00003.safetensors", folder / "model-00004-of-00004.safetensors")
    refused(folder, r"model-00004-of-00004\.safetensors: the index does not list this shard")


def test_a_tensor_in_two_shards_is_named(folder, tensors):
    write_shards(folder, tensors)
    shard = folder / "model-00003-of-00003.safetensors"
    save_file({**load_file(shard), LAYER_0_QUERY: tensors[LAYER_0_QUERY]}, shard)
    refused(folder, r"00003-of-00003\.safetensors: tensor .* is in shard model-0000[12]-of-00003\.safetensors too")


HEADED = WeightPlan(
    tensors={
        "embeddings": {"token": StoredTensor("wte", (5, 3))},
        "layers": {"up_kernel": StoredTensor("h.{layer}.up", (4, 3), transpose=True)},
        "head": {"kernel": StoredTensor("head", (5, 3), prefixed=False, transpose=True, optional=True)},
    },
    n_layers=2,
    anchor="wte",
    prefixes=("", "model."),
    ignored=(),
)
TIED = replace(HEADED, tensors={"embeddings": HEADED.tensors["embeddings"], "layers": HEADED.tensors["layers"]})
TIED = replace(TIED, tied={"head": "wte"})


def headed_tensors(prefix="model."):
    generator = np.random.default_rng(0)
    tensors = {f"{prefix}wte": (5, 3), f"{prefix}h.0.up": (4, 3), f"{prefix}h.1.up": (4, 3), "head": (5, 3)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in tensors.items()}


def read(folder, tensors, plan, **options):
    save_file(tensors, folder / SINGLE_FILE)
    return read_weights(folder, plan, jnp.dtype(options.pop("dtype", "float32")), **options)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_head_stands_outside_of_the_prefix(tmp_path, prefix):
    tensors = headed_tensors(prefix)
    weights = read(tmp_path, tensors, HEADED)
    np.testing.assert_array_equal(weights["head"]["kernel"], tensors["head"].T)
    np.testing.assert_array_equal(weights["layers"]["up_kernel"][1], tensors[f"{prefix}h.1.up"].T)


def test_what_is_optional_may_be_missing_and_nothing_else(tmp_path):
    tensors = headed_tensors()
    del tensors["head"]
    assert read(tmp_path, tensors, HEADED)["head"] == {}
    del tensors["model.h.1.up"]
    with pytest.raises(CheckpointError, match=r"model\.h\.1\.up is missing"):
        read(tmp_path, tensors, HEADED)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("kept", ["wte", "head", "both"])
def test_a_tied_weight_may_be_stored_once_or_twice(tmp_path, prefix, kept):
    tensors = headed_tensors(prefix)
    token = tensors["head"] = tensors[f"{prefix}wte"].copy()
    if kept != "both":
        del tensors["head" if kept == "wte" else f"{prefix}wte"]
    weights = read(tmp_path, tensors, TIED)
    assert weights.keys() == {"embeddings", "layers"}
    np.testing.assert_array_equal(weights["embeddings"]["token"], token)


def test_a_tied_weight_stored_with_two_values_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.wte and head are one weight in this model, but they differ"):
        read(tmp_path, headed_tensors(), TIED)


def test_an_array_is_read_to_where_it_is_wanted(tmp_path):
    tensors = headed_tensors()
    device = jax.devices()[0]
    asked = {}

    def placement(path, shape):
        asked[path] = shape
        return SingleDeviceSharding(device)

    weights = read(tmp_path, tensors, HEADED, placement=placement)
    assert asked == {"embeddings/token": (5, 3), "layers/up_kernel": (2, 3, 4), "head/kernel": (3, 5)}
    plain = read(tmp_path, tensors, HEADED)
    jax.tree.map(np.testing.assert_array_equal, weights, plain)
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path, tensors, HEADED, placement=placement("", ())), plain)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 300, 200)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_part_of_an_array_can_be_read_alone(tmp_path, shape, dtype):
    n_layers, width, inner = shape
    kernels = np.random.default_rng(1).normal(size=(n_layers, inner, width)).astype(ml_dtypes.bfloat16)
    save_file({f"{layer}.up": kernels[layer] for layer in range(n_layers)}, tmp_path / SINGLE_FILE)
    tensors = {"layers": {"up": StoredTensor("{layer}.up", (inner, width), transpose=True)}}
    plan = WeightPlan(tensors, n_layers=n_layers, anchor="0.up", prefixes=("",), ignored=())
    expected = kernels.swapaxes(1, 2).astype(dtype)
    parts = []

    def place_part(path, shape, read, placement):
        for bounds in [((0, n_layers), (1, width), (0, 2)), ((n_layers - 1, n_layers), (0, 1), (1, inner))]:
            parts.append((bounds, read(bounds)))
        return read(tuple((0, size) for size in shape))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "place", place_part)
        whole = read_weights(tmp_path, plan, jnp.dtype(dtype))["layers"]["up"]
    assert whole.dtype == dtype
    np.testing.assert_array_equal(whole, expected)
    for bounds, values in parts:
        np.testing.assert_array_equal(values, expected[tuple(slice(*pair) for pair in bounds)])


SHARDED = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxgkd.language import load

mesh = jax.make_mesh((4,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
def placement(path, shape):
    axes = ("model",) if path.endswith("kernel") else ()
    return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - len(axes)), *axes))
sharded, plain = load(sys.argv[1], placement=placement), load(sys.argv[1])
kernel = sharded.weights()["layers"]["up_kernel"]
assert [part.data.shape for part in kernel.addressable_shards] == [(3, 64, 24)] * 4
jax.tree.map(np.testing.assert_array_equal, sharded.weights(), plain.weights())
ids = np.arange(24).reshape(2, 12)
np.testing.assert_allclose(sharded.hidden_states(ids, ids * 0 + 1), plain.hidden_states(ids, ids * 0 + 1), atol=1e-5)
"""


def test_a_model_is_read_straight_onto_a_mesh():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SHARDED, GOLDENS / "bert"], env={**os.environ, **flags}, check=True)


MEMORY = """
import json, resource, sys
from pathlib import Path
import jax.numpy as jnp
from jaxgkd.language.checkpoint import StoredTensor, WeightPlan, read_weights

def anonymous():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("RssAnon")) * 1024

jnp.zeros(1).block_until_ready()
peak = before = anonymous()
def watch(*_):
    global peak
    peak = max(peak, anonymous())
tensors = {f"up{number}": StoredTensor(f"{{layer}}.{number}", (1024, 512), transpose=True) for number in range(4)}
plan = WeightPlan({"layers": tensors}, n_layers=8, anchor="0.0", prefixes=("",), ignored=())
import jaxgkd.language.checkpoint as checkpoint
place = checkpoint.place
def watched(*arguments):
    result = place(*arguments).block_until_ready()
    watch()
    return result
checkpoint.place = watched
weights = read_weights(Path(sys.argv[1]), plan, jnp.dtype("bfloat16"))
size = sum(array.nbytes for array in weights["layers"].values())
print(json.dumps([size, peak - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from /proc")
def test_reading_takes_the_memory_of_the_weights_once(tmp_path):
    kernel = np.ones((1024, 512), ml_dtypes.bfloat16)
    save_file({f"{layer}.{number}": kernel for layer in range(8) for number in range(4)}, tmp_path / SINGLE_FILE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", MEMORY, tmp_path]
    size, taken = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert size == 32 * 2**20
    assert taken < 1.2 * size


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
