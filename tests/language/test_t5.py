import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxgkd.errors import CheckpointError, UnsupportedModelError
from jaxgkd.language import load, read_config

GOLDEN = Path(__file__).parent / "goldens" / "t5_encoder"
TODAY = json.loads((GOLDEN / "config.json").read_text())
TOKEN = "shared.weight"


def write(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


SHAPE = {"d_ff": 48, "d_kv": 8, "d_model": 32, "num_heads": 4, "num_layers": 2, "vocab_size": 60}

# The fields, not the numbers, of configurations as they were released over the years.
RELEASED = {
    "first release": {
        "model_type": "t5",
        **SHAPE,
        "architectures": ["T5ForConditionalGeneration"],
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-6,
        "n_positions": 512,
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_num_buckets": 32,
        "task_specific_params": {"summarization": {"num_beams": 4}},
    },
    "instruction tuned": {
        "model_type": "t5",
        **SHAPE,
        "dense_act_fn": "gelu_new",
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "num_decoder_layers": 2,
        "output_past": True,
        "relative_attention_max_distance": 128,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_layouts_are_read(tmp_path, name):
    _, config = read_config(write(tmp_path, RELEASED[name]))
    assert (config.width, config.n_heads, config.head_width, config.inner_width) == (32, 4, 8, 48)
    assert (config.buckets, config.reach) == (32, 128)
    assert (config.gated, config.activation) == (
        (True, "gelu_new") if "dense_act_fn" in RELEASED[name] else (False, "relu")
    )


@pytest.mark.parametrize(
    ("block", "expected"),
    [("gelu", (False, "gelu")), ("gated-silu", (True, "silu")), ("gated-relu", (True, "relu"))],
)
def test_other_blocks_keep_their_word(tmp_path, block, expected):
    _, config = read_config(write(tmp_path, {"model_type": "t5", **SHAPE, "feed_forward_proj": block}))
    assert (config.gated, config.activation) == expected


REFUSED = [
    ("feed_forward_proj", "swish-glu"),
    ("feed_forward_proj", "gated-swiglu"),
    ("dense_act_fn", "relu"),
    ("is_gated_act", False),
    ("relative_attention_num_buckets", 3),
    ("relative_attention_num_buckets", 33),
    ("relative_attention_max_distance", 8),
    ("layer_norm_epsilon", None),
    ("is_decoder", True),
    ("d_kv", "16"),
    ("sparse_step", 2),
    ("position_encoding_type", "alibi"),
    ("quantization_config", {"bits": 8}),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_what_would_change_the_numbers_is_refused_by_name(tmp_path, field, value):
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**TODAY, field: value}))
    assert caught.value.field == field


@pytest.mark.parametrize("model_type", ["umt5", "mt5", "switch_transformers", "longt5"])
def test_relatives_are_refused_by_type(tmp_path, model_type):
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**TODAY, "model_type": model_type}))
    assert caught.value.field == "model_type"


def read(folder, tensors):
    shutil.copy(GOLDEN / "config.json", folder)
    save_file(tensors, folder / "model.safetensors")
    return load(folder)


def test_a_decoder_and_a_second_token_table_are_left(tmp_path):
    tensors = load_file(GOLDEN / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors[TOKEN].copy()
    tensors["decoder.embed_tokens.weight"] = tensors[TOKEN].copy()
    tensors["decoder.block.0.layer.0.SelfAttention.q.weight"] = np.zeros((64, 64), np.float32)
    tensors["lm_head.weight"] = np.zeros((160, 64), np.float32)
    assert read(tmp_path, tensors).n_parameters == load(GOLDEN).n_parameters


def test_the_token_table_may_go_by_its_other_name(tmp_path):
    tensors = load_file(GOLDEN / "model.safetensors")
    token = tensors["encoder.embed_tokens.weight"] = tensors.pop(TOKEN)
    np.testing.assert_array_equal(read(tmp_path, tensors).weights()["embeddings"]["token"], token)


def test_two_different_token_tables_are_refused(tmp_path):
    tensors = load_file(GOLDEN / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors[TOKEN] + 1
    with pytest.raises(CheckpointError, match="one weight in this model, but they differ"):
        read(tmp_path, tensors)


def test_distances_of_a_later_layer_are_refused(tmp_path):
    tensors = load_file(GOLDEN / "model.safetensors")
    name = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    tensors[name.format(1)] = tensors[name.format(0)].copy()
    with pytest.raises(CheckpointError, match=r"block\.1\..*relative_attention_bias\.weight is not part"):
        read(tmp_path, tensors)
