import json
from pathlib import Path

import pytest

from jaxgkd.errors import UnsupportedModelError
from jaxgkd.language import read_config

GOLDENS = Path(__file__).parent / "goldens"

# The fields, not the numbers, of configurations as they were released over the years.
RELEASED = {
    "gpt2, 2019": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "layer_norm_epsilon": 1e-05,
        "n_ctx": 64,
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 64,
        "n_special": 0,
        "predict_special_tokens": True,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50,
    },
    "biomedical gpt2": {
        "model_type": "gpt2",
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 64,
        "n_inner": None,
        "reorder_and_upcast_attn": True,
        "scale_attn_by_inverse_layer_idx": True,
        "scale_attn_weights": True,
        "vocab_size": 50,
    },
    "biogpt, 2022": {
        "model_type": "biogpt",
        "activation_dropout": 0.0,
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "is_decoder": True,
        "layer_norm_eps": 1e-12,
        "layerdrop": 0.0,
        "max_position_embeddings": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 1,
        "scale_embedding": True,
        "vocab_size": 50,
    },
}


def write(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("name", RELEASED)
def test_released_layouts_are_read(tmp_path, name):
    _, config = read_config(write(tmp_path, RELEASED[name]))
    assert (config.vocabulary_size, config.width, config.n_layers, config.max_tokens) == (50, 32, 2, 64)
    assert config.tied_head


def test_scores_may_be_scaled_by_layer(tmp_path):
    assert read_config(write(tmp_path, RELEASED["gpt2, 2019"]))[1].query_scales == (8**-0.5, 8**-0.5)
    assert read_config(write(tmp_path, RELEASED["biomedical gpt2"]))[1].query_scales == (8**-0.5, 8**-0.5 / 2)
    unscaled = {**RELEASED["gpt2, 2019"], "scale_attn_weights": False}
    assert read_config(write(tmp_path, unscaled))[1].query_scales == (1.0, 1.0)


def test_defaults_are_those_of_the_family(tmp_path):
    _, gpt2 = read_config(write(tmp_path, {"model_type": "gpt2"}))
    assert (gpt2.vocabulary_size, gpt2.width, gpt2.n_layers, gpt2.n_heads) == (50257, 768, 12, 12)
    assert (gpt2.inner_width, gpt2.max_tokens, gpt2.activation, gpt2.norm_epsilon) == (3072, 1024, "gelu_new", 1e-5)
    assert gpt2.counts_real_tokens
    _, biogpt = read_config(write(tmp_path, {"model_type": "biogpt"}))
    assert (biogpt.vocabulary_size, biogpt.width, biogpt.n_layers, biogpt.n_heads) == (42384, 1024, 24, 16)
    assert (biogpt.embedding_scale, biogpt.position_offset, biogpt.norm_epsilon) == (32.0, 2, 1e-5)


REFUSED = [
    ("gpt2", "activation_function", "quick_gelu"),
    ("gpt2", "add_cross_attention", True),
    ("gpt2", "n_head", 5),
    ("gpt2", "n_inner", 0),
    ("gpt2", "n_special", 3),
    ("gpt2", "scale_attn_weights", None),
    ("gpt2", "scale_attn_by_inverse_layer_idx", "yes"),
    ("gpt2", "multi_query", True),
    ("gpt2", "position_embedding_type", "alibi"),
    ("gpt2", "tie_word_embeddings", None),
    ("gpt2", "pruned_heads", {"0": [1]}),
    ("biogpt", "hidden_act", "gelu_10"),
    ("biogpt", "scale_embedding", 1),
    ("biogpt", "num_attention_heads", 5),
    ("biogpt", "is_encoder_decoder", True),
    ("biogpt", "num_key_value_heads", 2),
    ("biogpt", "quantization_config", {"bits": 4}),
]


@pytest.mark.parametrize(("family", "field", "value"), REFUSED)
def test_what_is_not_exact_is_refused(tmp_path, family, field, value):
    values = json.loads((GOLDENS / family / "config.json").read_text())
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**values, field: value}))
    assert caught.value.field == field
