"""Llama, Mistral, Qwen and Gemma 2: what their configurations say and what their weights are called.

Touvron et al. 2023, https://arxiv.org/abs/2307.09288; Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783; Jiang
et al. 2023, https://arxiv.org/abs/2310.06825; Qwen team 2024 and 2025, https://arxiv.org/abs/2412.15115 and
https://arxiv.org/abs/2505.09388; Gemma team 2024, https://arxiv.org/abs/2408.00118. Defaults are those of Hugging
Face's configuration classes.
"""

import math
from typing import Any

from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.config import BOOKKEEPING, GENERATION, NEUTRAL, ConfigFields
from jaxgkd.language.decoder_network import DecoderConfig
from jaxgkd.language.rope import read_rope
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan

FULL, SLIDING = "full_attention", "sliding_attention"

# Splitting products for tensor parallelism, pretraining_tp, adds up the same numbers. The rest is how a model is run
# and who repackaged it.
HARMLESS = (
    BOOKKEEPING
    | GENERATION
    | frozenset(
        [
            "_flash_attn_2_enabled",
            "attention_dropout",
            "cache_implementation",
            "is_llama_config",
            "max_sequence_length",
            "pad_token_id",
            "pretraining_tp",
            "transformers.js_config",
            "unsloth_fixed",
            "unsloth_version",
        ]
    )
)

# A causal model is one whether it calls itself a decoder or not.
CAUSAL_NEUTRAL = {**NEUTRAL, "is_decoder": (False, True), "rope_interleaved": (False,)}

ATTENTION = frozenset(["query", "key", "value", "output"])
FEED_FORWARD = frozenset(["gate", "up", "down"])

# Heads for other tasks, and frequencies that old checkpoints carry along.
IGNORED = ("*rotary_emb.inv_freq", "score.*", "classifier.*", "qa_outputs.*", "v_head.*")


def llama_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a Llama 1, 2 or 3.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.neutral({"sliding_window": ()})
    biases = ATTENTION if fields.flag("attention_bias", False) else frozenset()
    if fields.flag("mlp_bias", False):
        biases |= FEED_FORWARD
    return _rotary(
        fields,
        max_tokens=2048,
        inner_width=11008,
        biases=biases,
        windows=(None,) * _n_layers(fields),
    )


def mistral_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a Mistral: a Llama whose layers all see through one window, or none does.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    n_layers, window = _n_layers(fields), fields.integer_or_none("sliding_window", 4096)
    windows = (window,) * n_layers
    if _windows(fields, windows, window) != windows:
        raise fields.refusal("layer_types", "all layers of this family have one window or none has")
    return _rotary(fields, max_tokens=131072, inner_width=14336, n_key_heads=8, windows=windows)


def qwen2_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a Qwen 2 or 2.5: a Llama with biases, where upper layers may have a window.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    # Positions in pictures and films, which sibling families have.
    fields.neutral({"use_mrope": (False,)})
    return _qwen(fields, head_width=None, biases=ATTENTION - {"output"})


def qwen3_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a Qwen 3: a Qwen 2 that normalises queries and keys instead of shifting them.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    biases = ATTENTION if fields.flag("attention_bias", False) else frozenset()
    return _qwen(fields, head_width=128, biases=biases, head_norms=True)


def gemma2_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a Gemma 2: every other layer has a window, scores and logits are capped.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    n_layers, window = _n_layers(fields, 26), fields.integer("sliding_window", 4096)
    activation = fields.choice("hidden_activation", "gelu_pytorch_tanh", ACTIVATIONS)
    # Older names of two fields, which are not read and must not say anything else.
    fields.neutral({"hidden_act": (activation,), "sliding_window_size": (window,)})
    fields.neutral({"use_bidirectional_attention": (False,)})
    alternating = tuple(None if layer % 2 else window for layer in range(n_layers))
    width = fields.integer("hidden_size", 2304)
    return _rotary(
        fields,
        vocabulary_size=256000,
        width=2304,
        inner_width=9216,
        n_layers=26,
        n_heads=8,
        n_key_heads=4,
        head_width=256,
        max_tokens=8192,
        tied_head=True,
        biases=ATTENTION if fields.flag("attention_bias", False) else frozenset(),
        windows=_windows(fields, alternating, window),
        activation=activation,
        score_width=fields.number("query_pre_attn_scalar", 256),
        norm_offset=1.0,
        output_norms=True,
        embedding_scale=math.sqrt(width),
        score_cap=fields.number_or_none("attn_logit_softcapping", 50.0),
        logit_cap=fields.number_or_none("final_logit_softcapping", 30.0),
    )


def _qwen(fields: ConfigFields, **parts: Any) -> DecoderConfig:
    n_layers, window = _n_layers(fields), fields.integer_or_none("sliding_window", 4096)
    first = fields.integer("max_window_layers", 28, at_least=0)
    if not fields.flag("use_sliding_window", False):
        window = None
    upper = tuple(window if layer >= first else None for layer in range(n_layers))
    return _rotary(
        fields,
        vocabulary_size=151936,
        inner_width=22016,
        n_key_heads=32,
        max_tokens=32768,
        windows=_windows(fields, upper, window),
        **parts,
    )


def _n_layers(fields: ConfigFields, default: int = 32) -> int:
    return fields.integer("num_hidden_layers", default)


def _windows(fields: ConfigFields, default: tuple[int | None, ...], window: int | None) -> tuple[int | None, ...]:
    """Each layer's window by ``layer_types``, where config.json lists them."""
    types = fields.words("layer_types", (FULL, SLIDING), length=len(default))
    if types is None:
        return default
    if window is None and SLIDING in types:
        raise fields.refusal("layer_types", f"{SLIDING} needs a sliding_window")
    return tuple(window if kind == SLIDING else None for kind in types)


def _rotary(
    fields: ConfigFields,
    *,
    max_tokens: int,
    inner_width: int,
    windows: tuple[int | None, ...],
    vocabulary_size: int = 32000,
    width: int = 4096,
    n_layers: int = 32,
    n_heads: int = 32,
    n_key_heads: int | None = None,
    head_width: int | None = None,
    tied_head: bool = False,
    activation: str | None = None,
    score_width: float | None = None,
    **parts: Any,
) -> DecoderConfig:
    """Read what all these families have in common; the arguments are the family's defaults and its own parts."""
    fields.neutral(CAUSAL_NEUTRAL)
    fields.harmless(HARMLESS)
    width, n_heads = fields.integer("hidden_size", width), fields.integer("num_attention_heads", n_heads)
    if head_width is None:
        head_width = fields.integer_or_none("head_dim", None)
        if head_width is None and width % n_heads:
            raise fields.refusal("num_attention_heads", f"it does not divide a width of {width}")
    else:
        head_width = fields.integer("head_dim", head_width)
    head_width = head_width or width // n_heads
    if head_width % 2:
        raise fields.refusal("head_dim", f"heads of {head_width} features cannot be rotated in pairs")
    n_key_heads = fields.integer_or_none("num_key_value_heads", n_key_heads) or n_heads
    if n_heads % n_key_heads:
        raise fields.refusal("num_key_value_heads", f"it does not divide {n_heads} heads")
    max_tokens = fields.integer("max_position_embeddings", max_tokens)
    config = DecoderConfig(
        vocabulary_size=fields.integer("vocab_size", vocabulary_size),
        width=width,
        n_layers=fields.integer("num_hidden_layers", n_layers),
        n_heads=n_heads,
        n_key_heads=n_key_heads,
        head_width=head_width,
        inner_width=fields.integer("intermediate_size", inner_width),
        max_tokens=max_tokens,
        activation=activation or fields.choice("hidden_act", "silu", ACTIVATIONS),
        norm="rms",
        norm_epsilon=fields.number("rms_norm_eps", 1e-6),
        windows=windows,
        query_scales=((score_width or head_width) ** -0.5,) * len(windows),
        rope=read_rope(fields, head_width=head_width, max_positions=max_tokens),
        tied_head=fields.flag("tie_word_embeddings", tied_head),
        **parts,
    )
    fields.finish()
    return config


def rotary_weights(config: DecoderConfig) -> WeightPlan:
    """The tensors of a Llama, Mistral, Qwen or Gemma 2, under their names in a Hugging Face checkpoint."""
    d, inner = config.width, config.inner_width
    queries, keys = config.n_heads * config.head_width, config.n_key_heads * config.head_width
    linear = {
        "query": ("self_attn.q_proj", (queries, d)),
        "key": ("self_attn.k_proj", (keys, d)),
        "value": ("self_attn.v_proj", (keys, d)),
        "output": ("self_attn.o_proj", (d, queries)),
        "gate": ("mlp.gate_proj", (inner, d)),
        "up": ("mlp.up_proj", (inner, d)),
        "down": ("mlp.down_proj", (d, inner)),
    }
    norms = {"attention_norm": ("input_layernorm", d)}
    if config.output_norms:
        norms |= {
            "attention_output_norm": ("post_attention_layernorm", d),
            "feed_forward_norm": ("pre_feedforward_layernorm", d),
            "feed_forward_output_norm": ("post_feedforward_layernorm", d),
        }
    else:
        norms["feed_forward_norm"] = ("post_attention_layernorm", d)
    if config.head_norms:
        norms |= {
            "query_norm": ("self_attn.q_norm", config.head_width),
            "key_norm": ("self_attn.k_norm", config.head_width),
        }
    layers: dict[str, StoredTensor] = {}
    for name, (stored, shape) in linear.items():
        layers[f"{name}_kernel"] = StoredTensor(f"layers.{{layer}}.{stored}.weight", shape, transpose=True)
        if name in config.biases:
            layers[f"{name}_bias"] = StoredTensor(f"layers.{{layer}}.{stored}.bias", shape[:1])
    for name, (stored, size) in norms.items():
        layers[f"{name}_scale"] = StoredTensor(f"layers.{{layer}}.{stored}.weight", (size,))
    table = StoredTensor("embed_tokens.weight", (config.vocabulary_size, d))
    return WeightPlan(
        tensors={
            "embeddings": {"token": table},
            "layers": layers,
            "final_norm": {"scale": StoredTensor("norm.weight", (d,))},
            **output_head(config, "lm_head.weight"),
        },
        n_layers=config.n_layers,
        anchor=table.name,
        prefixes=("model.", ""),
        saved_prefix="model.",
        ignored=IGNORED,
        tied={"lm_head.weight": table.name} if config.tied_head else {},
    )


def output_head(config: DecoderConfig, name: str) -> dict[str, dict[str, StoredTensor]]:
    """The group of a plan that holds the output head, where it is not the token table: there, or left out on saving."""
    shape = (config.vocabulary_size, config.width)
    head = {} if config.tied_head else {"kernel": StoredTensor(name, shape, prefixed=False, optional=True)}
    return {"head": head}
