import json
import math
from pathlib import Path

import pytest

from jaxgkd.errors import UnsupportedModelError
from jaxgkd.language import read_config
from jaxgkd.language.rope import plain_frequencies

GOLDENS = Path(__file__).parent / "goldens"

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "max_position_embeddings": 128,
    "vocab_size": 50,
}


def write(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def golden(family):
    return json.loads((GOLDENS / family / "config.json").read_text())


# The fields, not the numbers, of configurations as they were released over the years.
RELEASED = {
    "llama, first": {
        **SMALL,
        "model_type": "llama",
        "num_key_value_heads": None,
        "max_sequence_length": 2048,
        "pad_token_id": -1,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.28.0.dev0",
        "use_cache": True,
    },
    "llama 2, in parts": {**SMALL, "model_type": "llama", "pretraining_tp": 2, "rope_scaling": None},
    "code llama": {**SMALL, "model_type": "llama", "rope_theta": 1000000, "attention_bias": False},
    "llama, small": {
        **SMALL,
        "model_type": "llama",
        "is_llama_config": True,
        "rope_interleaved": False,
        "transformers.js_config": {"dtype": "q4"},
        "unsloth_version": "2025.1",
    },
    "llama 3.1": {
        **SMALL,
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": [128001, 128008, 128009],
        "mlp_bias": False,
        "head_dim": 8,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
    "mistral, first": {**SMALL, "model_type": "mistral", "rope_theta": 10000.0, "sliding_window": 4096},
    "mistral, later": {**SMALL, "model_type": "mistral", "head_dim": None, "sliding_window": None},
    "qwen2.5": {
        **SMALL,
        "model_type": "qwen2",
        "max_window_layers": 3,
        "sliding_window": 131072,
        "use_mrope": False,
        "use_sliding_window": False,
        "rope_theta": 1000000.0,
    },
    "qwen3": {
        **SMALL,
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 16,
        "max_window_layers": 4,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "gemma 2": {
        **SMALL,
        "model_type": "gemma2",
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "head_dim": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 224,
        "sliding_window": 4096,
        "sliding_window_size": 4096,
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_layouts_are_read(tmp_path, name):
    values = RELEASED[name]
    _, config = read_config(write(tmp_path, values))
    assert (config.vocabulary_size, config.width, config.n_layers) == (50, 32, 4)
    assert config.n_key_heads == (values["num_key_value_heads"] or 4)


def test_both_layouts_give_one_configuration(tmp_path):
    for family in ("llama", "llama3_rope", "mistral", "qwen2", "qwen3", "gemma2"):
        today = golden(family)
        rope = dict(today["rope_parameters"])
        older = {key: value for key, value in today.items() if key not in ("dtype", "rope_parameters", "layer_types")}
        older |= {"torch_dtype": "float32", "rope_theta": rope.pop("rope_theta"), "transformers_version": "4.40.0"}
        older["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        assert read_config(write(tmp_path, older))[1] == read_config(GOLDENS / family)[1]


def test_every_number_reaches_the_configuration(tmp_path):
    values = {
        **SMALL,
        "model_type": "llama",
        "head_dim": 12,
        "rms_norm_eps": 1e-3,
        "hidden_act": "gelu",
        "rope_theta": 7.0,
        "attention_bias": True,
        "tie_word_embeddings": True,
    }
    _, config = read_config(write(tmp_path, values))
    assert (config.n_heads, config.n_key_heads, config.head_width, config.inner_width) == (4, 2, 12, 64)
    assert (config.activation, config.norm, config.norm_epsilon, config.max_tokens) == ("gelu", "rms", 1e-3, 128)
    assert config.rope.frequencies == tuple(plain_frequencies(7.0, 12).tolist())
    assert config.biases == {"query", "key", "value", "output"}
    assert config.query_scales == (12**-0.5,) * 4
    assert config.windows == (None,) * 4
    assert config.tied_head and config.gated


def test_defaults_are_those_of_the_family(tmp_path):
    def default(model_type):
        return read_config(write(tmp_path, {"model_type": model_type}))[1]

    llama, mistral, qwen2, qwen3, gemma = map(default, ["llama", "mistral", "qwen2", "qwen3", "gemma2"])
    assert (llama.vocabulary_size, llama.inner_width, llama.n_key_heads, llama.max_tokens) == (32000, 11008, 32, 2048)
    assert (mistral.n_key_heads, mistral.windows) == (8, (4096,) * 32)
    assert (qwen2.vocabulary_size, qwen2.head_width, qwen2.windows) == (151936, 128, (None,) * 32)
    assert qwen2.biases == {"query", "key", "value"}
    assert (qwen3.head_width, qwen3.head_norms, qwen3.biases) == (128, True, frozenset())
    assert (gemma.n_layers, gemma.n_heads, gemma.head_width, gemma.width) == (26, 8, 256, 2304)
    assert gemma.windows == (4096, None) * 13
    assert (gemma.score_cap, gemma.logit_cap, gemma.norm_offset, gemma.tied_head) == (50.0, 30.0, 1.0, True)
    assert (gemma.query_scales[0], gemma.embedding_scale) == (1 / 16, math.sqrt(2304))
    assert [config.tied_head for config in (llama, mistral, qwen2, qwen3)] == [False] * 4


S, F = "sliding_attention", "full_attention"
WINDOWS = [
    ("mistral", {"sliding_window": 8}, (8, 8, 8, 8)),
    ("mistral", {"sliding_window": 8, "layer_types": [S, S, S, S]}, (8, 8, 8, 8)),
    ("mistral", {"sliding_window": None, "layer_types": [F, F, F, F]}, (None,) * 4),
    ("qwen2", {"sliding_window": 8}, (None,) * 4),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": True}, (None,) * 4),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}, (None, 8, 8, 8)),
    ("qwen3", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}, (8, 8, 8, 8)),
    ("qwen3", {"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0}, (None,) * 4),
    ("qwen3", {"sliding_window": 8, "use_sliding_window": True, "layer_types": [S, F, F, S]}, (8, None, None, 8)),
    ("gemma2", {"sliding_window": 8}, (8, None, 8, None)),
    ("gemma2", {"sliding_window": 8, "layer_types": [F, F, S, F]}, (None, None, 8, None)),
]


@pytest.mark.parametrize(("model_type", "fields", "windows"), WINDOWS)
def test_windows_of_every_layer(tmp_path, model_type, fields, windows):
    assert read_config(write(tmp_path, {**SMALL, "model_type": model_type, **fields}))[1].windows == windows


REFUSED = [
    ("llama", "hidden_act", "gelu_10"),
    ("llama", "attention_bias", "no"),
    ("llama", "mlp_bias", None),
    ("llama", "num_key_value_heads", 3),
    ("llama", "head_dim", 15),
    ("llama", "rms_norm_eps", 0),
    ("llama", "tie_word_embeddings", 1),
    ("llama", "sliding_window", 128),
    ("llama", "layer_types", ["full_attention"] * 3),
    ("llama", "num_local_experts", 8),
    ("llama", "num_experts", 8),
    ("llama", "partial_rotary_factor", 0.5),
    ("llama", "rope_scaling", {"type": "longrope"}),
    ("llama", "rope_interleaved", True),
    ("llama", "alibi", True),
    ("llama", "quantization_config", {"quant_method": "gptq"}),
    ("llama", "auto_map", {"AutoModel": "modeling.Model"}),
    ("llama", "logits_scaling", 8.0),
    ("llama", "embedding_multiplier", 12.0),
    ("llama", "tie_last_hidden_states", False),
    ("llama", "per_layer_config", {"0": {}}),
    ("llama", "original_max_position_embeddings", 32),
    ("mistral", "sliding_window", 0),
    ("mistral", "sliding_window", [4096, None, 4096]),
    ("mistral", "layer_types", ["sliding_attention"] * 3),
    ("mistral", "attention_bias", True),
    ("qwen2", "layer_types", ["full_attention", "sliding_attention", "full_attention"]),
    ("qwen2", "layer_types", ["full_attention"] * 2),
    ("qwen2", "layer_types", ["chunked_attention"] * 3),
    ("qwen2", "use_mrope", True),
    ("qwen2", "max_window_layers", -1),
    ("qwen2", "num_experts", 60),
    ("qwen3", "head_dim", None),
    ("qwen3", "mlp_bias", True),
    ("gemma2", "sliding_window", None),
    ("gemma2", "attn_logit_softcapping", 0.0),
    ("gemma2", "final_logit_softcapping", "30"),
    ("gemma2", "query_pre_attn_scalar", None),
    ("gemma2", "hidden_act", "silu"),
    ("gemma2", "hidden_activation", "gelu_fast"),
    ("gemma2", "sliding_window_size", 16),
    ("gemma2", "use_bidirectional_attention", True),
    ("gemma2", "layer_types", "sliding_attention"),
]


@pytest.mark.parametrize(("family", "field", "value"), REFUSED)
def test_what_is_not_exact_is_refused(tmp_path, family, field, value):
    with pytest.raises(UnsupportedModelError) as caught:
        values = {**golden(family), field: value}
        if field == "rope_scaling":
            del values["rope_parameters"]
        read_config(write(tmp_path, values))
    assert caught.value.field.split(".")[0] == field
    assert str(tmp_path / "config.json") in str(caught.value)


def test_heads_without_a_width_of_their_own_divide_the_width(tmp_path):
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**SMALL, "model_type": "llama", "num_attention_heads": 6}))
    assert caught.value.field == "num_attention_heads"
