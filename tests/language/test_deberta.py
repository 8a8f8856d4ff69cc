import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxgkd.errors import CheckpointError, UnsupportedModelError
from jaxgkd.language import load, read_config

GOLDEN = Path(__file__).parent / "goldens" / "deberta_v2"
TODAY = json.loads((GOLDEN / "config.json").read_text())


def write(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


# The fields, not the numbers, of configurations as they were released over the years.
RELEASED = {
    "extra large, version 2": {
        "model_type": "deberta-v2",
        "attention_head_size": 8,
        "attention_probs_dropout_prob": 0.1,
        "conv_act": "gelu",
        "conv_kernel_size": 3,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-7,
        "max_position_embeddings": 512,
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        "position_buckets": 256,
        "relative_attention": True,
        "share_att_key": True,
        "type_vocab_size": 0,
        "vocab_size": 60,
    },
    "base, version 3": {
        "model_type": "deberta-v2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "pooler_dropout": 0,
        "pooler_hidden_act": "gelu",
        "pooler_hidden_size": 32,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 256,
        "relative_attention": True,
        "share_att_key": True,
        "transformers_version": "4.20.0",
        "type_vocab_size": 0,
        "vocab_size": 60,
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_layouts_are_read(tmp_path, name):
    _, config = read_config(write(tmp_path, RELEASED[name]))
    assert config.position_scores == {"c2p", "p2c"}
    assert (config.reach, config.buckets, config.span, config.max_tokens) == (512, 256, 256, 512)
    assert (config.width, config.vocabulary_size, config.conv_kernel) == (
        32,
        60,
        RELEASED[name].get("conv_kernel_size", 0),
    )
    assert config.shared_projections and config.normalised_distances and not config.absolute_positions


def test_defaults_are_those_of_the_configuration_class(tmp_path):
    _, config = read_config(write(tmp_path, {"model_type": "deberta-v2"}))
    assert (config.width, config.n_layers, config.n_heads, config.inner_width) == (1536, 24, 24, 6144)
    assert config.absolute_positions and not config.position_scores
    assert (config.reach, config.buckets, config.norm_epsilon) == (0, 0, 1e-7)


def test_what_is_switched_off_has_no_settings(tmp_path):
    off = {**TODAY, "relative_attention": False, "conv_act": "gelu", "conv_groups": 4}
    _, config = read_config(write(tmp_path, off))
    assert (config.reach, config.buckets, config.shared_projections, config.normalised_distances) == (
        0,
        0,
        False,
        False,
    )
    assert (config.conv_kernel, config.conv_groups, config.conv_activation) == (0, 1, "tanh")


REFUSED = [
    ("attention_head_size", 8),
    ("embedding_size", 32),
    ("num_attention_heads", 5),
    ("pos_att_type", ["p2p"]),
    ("pos_att_type", "c2p|p2p"),
    ("pos_att_type", ["c2p", "c2p"]),
    ("pos_att_type", {"c2p": True}),
    ("norm_rel_ebd", "batch_norm"),
    ("norm_rel_ebd", "layer_norm|other"),
    ("share_att_key", None),
    ("relative_attention", "yes"),
    ("position_buckets", 1),
    ("position_buckets", 200),
    ("position_buckets", "many"),
    ("conv_kernel_size", 4),
    ("conv_act", "gelu_fast"),
    ("hidden_act", "swiglu"),
    ("layer_norm_eps", 0),
    ("is_decoder", True),
    ("quantization_config", {"bits": 4}),
    ("talking_head", True),
    ("rope_scaling", {"type": "linear"}),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_what_would_change_the_numbers_is_refused_by_name(tmp_path, field, value):
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**TODAY, field: value}))
    assert caught.value.field == field


def test_groups_of_the_convolution_divide_the_width(tmp_path):
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**TODAY, "conv_kernel_size": 3, "conv_groups": 7}))
    assert caught.value.field == "conv_groups"


@pytest.mark.parametrize("prefix", ["deberta.", "model."])
def test_prefixes_heads_and_unused_positions_do_not_matter(tmp_path, prefix):
    shutil.copy(GOLDEN / "config.json", tmp_path)
    tensors = {prefix + name: values for name, values in load_file(GOLDEN / "model.safetensors").items()}
    tensors["lm_predictions.lm_head.dense.weight"] = tensors["mask_predictions.dense.weight"] = np.eye(2)
    tensors[f"{prefix}embeddings.position_embeddings.weight"] = np.zeros((64, 64), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    assert load(tmp_path).n_parameters == load(GOLDEN).n_parameters


def test_projections_that_the_configuration_does_not_mention_are_refused(tmp_path):
    shutil.copy(GOLDEN / "config.json", tmp_path)
    tensors = load_file(GOLDEN / "model.safetensors")
    tensors["encoder.layer.0.attention.self.pos_key_proj.weight"] = np.zeros((64, 64), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="pos_key_proj"):
        load(tmp_path)
