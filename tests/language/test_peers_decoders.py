"""Variants of the causal families against PyTorch transformers, where ``pip install jaxgkd[peers]`` has put it."""

import json

import numpy as np
import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.language import load
from jaxgkd.language.generate import generate

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers")

SHAPE = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2_SHAPE = {"vocab_size": 53, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
BIOGPT_SHAPE = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

# What is written into config.json beside the shape; transformers reads the same file.
VARIANTS = {
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, one key head and its own head width": ("llama", {"num_key_value_heads": 1, "head_dim": 6}),
    "llama, all key heads": ("llama", {"num_key_value_heads": None, "hidden_act": "gelu", "rms_norm_eps": 1e-3}),
    "llama, theta outside": ("llama", {"rope_theta": 5e5, "rope_scaling": None}),
    "llama, linear, named as before": ("llama", {"rope_theta": 1e5, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama, dynamic": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    "llama, llama3": (
        "llama",
        {"rope_parameters": {**LLAMA3, "rope_theta": 1e4, "original_max_position_embeddings": 16}},
    ),
    "llama, yarn": ("llama", {"rope_parameters": {**YARN, "rope_theta": 1e4}}),
    "llama, yarn, ends of its own": (
        "llama",
        {"rope_parameters": {**YARN, "rope_theta": 3e4, "beta_fast": 4, "beta_slow": 0.5, "truncate": False}},
    ),
    "llama, yarn, two scales": (
        "llama",
        {"rope_parameters": {**YARN, "rope_theta": 1e4, "mscale": 0.7, "mscale_all_dim": 1.2}},
    ),
    "llama, yarn, its scale given": ("llama", {"rope_scaling": {**YARN, "attention_factor": 1.3}, "rope_theta": 2e4}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "mistral, window": ("mistral", {"sliding_window": 5}),
    "mistral, no window": ("mistral", {"sliding_window": None, "head_dim": 12}),
    "mistral, window of one": ("mistral", {"sliding_window": 1}),
    "qwen2, window in upper layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    ),
    "qwen2, window named but not used": ("qwen2", {"use_sliding_window": False, "sliding_window": 4}),
    "qwen2, layers listed": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
        },
    ),
    "qwen2, yarn": ("qwen2", {"rope_scaling": {**YARN}, "rope_theta": 1e6, "tie_word_embeddings": True}),
    "qwen3, biases": ("qwen3", {"attention_bias": True, "head_dim": 16}),
    "qwen3, head width by default": ("qwen3", {}),
    "qwen3, window": (
        "qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "gemma2, no caps": ("gemma2", {"head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma2, narrow caps": (
        "gemma2",
        {"head_dim": 8, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.7, "query_pre_attn_scalar": 3},
    ),
    "gemma2, window, bias, untied": (
        "gemma2",
        {"head_dim": 8, "sliding_window": 4, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "gemma2, layers listed": (
        "gemma2",
        {
            "head_dim": 8,
            "sliding_window": 3,
            "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gpt2, scores by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "gpt2, no scale": ("gpt2", {"scale_attn_weights": False, "n_inner": 24, "activation_function": "relu"}),
    "gpt2, untied": ("gpt2", {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-2}),
    "biogpt, epsilon that is not read": ("biogpt", {"layer_norm_eps": 0.3, "hidden_act": "gelu_new"}),
    "biogpt, no scale, untied": ("biogpt", {"scale_embedding": False, "tie_word_embeddings": False}),
}


def peer(folder, model_type, fields):
    """A random model of PyTorch transformers, saved to ``folder`` beside a config.json with just these fields."""
    shape = {"gpt2": GPT2_SHAPE, "biogpt": BIOGPT_SHAPE}.get(model_type, SHAPE)
    values = {"model_type": model_type, **shape, **fields}
    (folder / "config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms away from one and biases away from zero, so that none of them can be forgotten.
            parameter.add_((0.3 if parameter.ndim == 1 else 0.15) * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(values))
    return model


def batch(side):
    random = np.random.default_rng(1)
    real = np.arange(20) < np.array([[20], [13], [6], [1]])
    mask = (real if side == "right" else real[:, ::-1]).astype(np.int64)
    return random.integers(0, 53, size=(4, 20)), mask


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_the_reference(tmp_path, name):
    model_type, fields = VARIANTS[name]
    model = peer(tmp_path, model_type, fields)
    ours = load(tmp_path)
    for side in ("right", "left"):
        ids, mask = batch(side)
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        if model_type == "gpt2":
            inputs["position_ids"] = torch.tensor(np.maximum(mask.cumsum(1) - 1, 0))
        with torch.no_grad():
            expected = model(**inputs, output_hidden_states=True, use_cache=False)
        hidden = np.stack([states.numpy() for states in expected.hidden_states])
        real = mask > 0
        np.testing.assert_allclose(
            np.asarray(ours.hidden_states(ids, mask))[:, real], hidden[:, real], rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(
            np.asarray(ours.logits(ids, mask))[real], expected.logits.numpy()[real], rtol=1e-5, atol=1e-5
        )


@pytest.mark.filterwarnings("default")
def test_a_dynamic_rope_is_refused_where_it_would_begin_to_change(tmp_path):
    peer(tmp_path, "llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
    ids = np.zeros((1, 65), np.int64)
    with pytest.raises(ConfigError, match="at most 64"):
        load(tmp_path).hidden_states(ids, np.ones_like(ids))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", ["mistral, window", "llama, yarn", "gemma2, narrow caps", "gpt2, untied", "biogpt, no scale, untied"]
)
def test_greedy_decoding_is_the_reference(tmp_path, name):
    model = peer(tmp_path, *VARIANTS[name])
    ids, mask = batch("left")
    with torch.no_grad():
        expected = model.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=None,
        )
    tokens, _ = generate(load(tmp_path), ids, mask, max_new_tokens=12)
    np.testing.assert_array_equal(tokens, expected[:, 20:].numpy())
