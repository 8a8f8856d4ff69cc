"""GPT-2 and BioGPT: what their configurations say and what their weights are called.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Luo et al. 2022,
https://arxiv.org/abs/2210.10341. Positions are learned: GPT-2's count real tokens, BioGPT's count columns as those of
the reference do, so there a text should not be padded on its left. Defaults are those of Hugging Face's configuration
classes.
"""

import math

from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.config import BOOKKEEPING, GENERATION, ConfigFields
from jaxgkd.language.decoder_network import DecoderConfig
from jaxgkd.language.llama import CAUSAL_NEUTRAL, output_head
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan

# Scores are float32 in any case, which is what reorder_and_upcast_attn asks for; n_ctx is never read.
GPT2_HARMLESS = (
    BOOKKEEPING
    | GENERATION
    | frozenset(
        [
            "attn_pdrop",
            "embd_pdrop",
            "n_ctx",
            "pad_token_id",
            "predict_special_tokens",
            "reorder_and_upcast_attn",
            "resid_pdrop",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ]
    )
)

# The reference normalises with an epsilon of 1e-5 whatever layer_norm_eps says.
BIOGPT_HARMLESS = (
    BOOKKEEPING
    | GENERATION
    | frozenset(
        [
            "activation_dropout",
            "attention_probs_dropout_prob",
            "hidden_dropout_prob",
            "layer_norm_eps",
            "layerdrop",
            "pad_token_id",
        ]
    )
)

BIOGPT_EPSILON = 1e-5
BIOGPT_POSITION_OFFSET = 2

IGNORED = ("score.*", "classifier.*", "multiple_choice_head.*", "v_head.*")

# The causal mask, which old checkpoints carry along.
GPT2_IGNORED = (*IGNORED, "h.*.attn.bias", "h.*.attn.masked_bias")


def gpt2_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a GPT-2.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.neutral({**CAUSAL_NEUTRAL, "n_special": (0,)})
    fields.harmless(GPT2_HARMLESS)
    width, n_heads = fields.integer("n_embd", 768), fields.integer("n_head", 12)
    n_layers = fields.integer("n_layer", 12)
    _check_heads(fields, "n_head", width, n_heads)
    scale = (width // n_heads) ** -0.5 if fields.flag("scale_attn_weights", True) else 1.0
    by_layer = fields.flag("scale_attn_by_inverse_layer_idx", False)
    config = DecoderConfig(
        vocabulary_size=fields.integer("vocab_size", 50257),
        width=width,
        n_layers=n_layers,
        n_heads=n_heads,
        n_key_heads=n_heads,
        head_width=width // n_heads,
        inner_width=fields.integer_or_none("n_inner", None) or 4 * width,
        max_tokens=fields.integer("n_positions", 1024),
        activation=fields.choice("activation_function", "gelu_new", ACTIVATIONS),
        norm="layer",
        norm_epsilon=fields.number("layer_norm_epsilon", 1e-5),
        windows=(None,) * n_layers,
        query_scales=tuple(scale / (layer + 1) if by_layer else scale for layer in range(n_layers)),
        rope=None,
        biases=frozenset(["query_key_value", "output", "up", "down"]),
        fused_attention=True,
        gated=False,
        counts_real_tokens=True,
        tied_head=fields.flag("tie_word_embeddings", True),
    )
    fields.finish()
    return config


def biogpt_config(fields: ConfigFields) -> DecoderConfig:
    """Read the configuration of a BioGPT.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.neutral(CAUSAL_NEUTRAL)
    fields.harmless(BIOGPT_HARMLESS)
    width, n_heads = fields.integer("hidden_size", 1024), fields.integer("num_attention_heads", 16)
    n_layers = fields.integer("num_hidden_layers", 24)
    _check_heads(fields, "num_attention_heads", width, n_heads)
    config = DecoderConfig(
        vocabulary_size=fields.integer("vocab_size", 42384),
        width=width,
        n_layers=n_layers,
        n_heads=n_heads,
        n_key_heads=n_heads,
        head_width=width // n_heads,
        inner_width=fields.integer("intermediate_size", 4096),
        max_tokens=fields.integer("max_position_embeddings", 1024),
        activation=fields.choice("hidden_act", "gelu", ACTIVATIONS),
        norm="layer",
        norm_epsilon=BIOGPT_EPSILON,
        windows=(None,) * n_layers,
        query_scales=((width // n_heads) ** -0.5,) * n_layers,
        rope=None,
        biases=frozenset(["query", "key", "value", "output", "up", "down"]),
        gated=False,
        embedding_scale=math.sqrt(width) if fields.flag("scale_embedding", True) else 1.0,
        position_offset=BIOGPT_POSITION_OFFSET,
        tied_head=fields.flag("tie_word_embeddings", True),
    )
    fields.finish()
    return config


def _check_heads(fields: ConfigFields, field: str, width: int, n_heads: int) -> None:
    if width % n_heads:
        raise fields.refusal(field, f"it does not divide a width of {width}")


def gpt2_weights(config: DecoderConfig) -> WeightPlan:
    """The tensors of a GPT-2, under their names in a Hugging Face checkpoint."""
    d, inner = config.width, config.inner_width
    # Kernels lie as [in, out] in these files.
    linear = {
        "query_key_value": ("attn.c_attn", (d, 3 * d)),
        "output": ("attn.c_proj", (d, d)),
        "up": ("mlp.c_fc", (d, inner)),
        "down": ("mlp.c_proj", (inner, d)),
    }
    layers: dict[str, StoredTensor] = {}
    for name, (stored, shape) in linear.items():
        layers[f"{name}_kernel"] = StoredTensor(f"h.{{layer}}.{stored}.weight", shape)
        layers[f"{name}_bias"] = StoredTensor(f"h.{{layer}}.{stored}.bias", shape[1:])
    return _plan(
        config,
        layers,
        prefix="transformer.",
        layer="h.{layer}.",
        norms={"attention_norm": "ln_1", "feed_forward_norm": "ln_2"},
        final="ln_f",
        token="wte",
        position="wpe",
        head="lm_head.weight",
        ignored=GPT2_IGNORED,
    )


def biogpt_weights(config: DecoderConfig) -> WeightPlan:
    """The tensors of a BioGPT, under their names in a Hugging Face checkpoint."""
    d, inner = config.width, config.inner_width
    linear = {
        "query": ("self_attn.q_proj", (d, d)),
        "key": ("self_attn.k_proj", (d, d)),
        "value": ("self_attn.v_proj", (d, d)),
        "output": ("self_attn.out_proj", (d, d)),
        "up": ("fc1", (inner, d)),
        "down": ("fc2", (d, inner)),
    }
    layers: dict[str, StoredTensor] = {}
    for name, (stored, shape) in linear.items():
        layers[f"{name}_kernel"] = StoredTensor(f"layers.{{layer}}.{stored}.weight", shape, transpose=True)
        layers[f"{name}_bias"] = StoredTensor(f"layers.{{layer}}.{stored}.bias", shape[:1])
    return _plan(
        config,
        layers,
        prefix="biogpt.",
        layer="layers.{layer}.",
        norms={"attention_norm": "self_attn_layer_norm", "feed_forward_norm": "final_layer_norm"},
        final="layer_norm",
        token="embed_tokens",
        position="embed_positions",
        head="output_projection.weight",
        ignored=IGNORED,
    )


def _plan(
    config: DecoderConfig,
    layers: dict[str, StoredTensor],
    *,
    prefix: str,
    layer: str,
    norms: dict[str, str],
    final: str,
    token: str,
    position: str,
    head: str,
    ignored: tuple[str, ...],
) -> WeightPlan:
    d = config.width
    for name, stored in norms.items():
        layers[f"{name}_scale"] = StoredTensor(f"{layer}{stored}.weight", (d,))
        layers[f"{name}_bias"] = StoredTensor(f"{layer}{stored}.bias", (d,))
    table = StoredTensor(f"{token}.weight", (config.vocabulary_size, d))
    rows = config.max_tokens + config.position_offset
    return WeightPlan(
        tensors={
            "embeddings": {"token": table, "position": StoredTensor(f"{position}.weight", (rows, d))},
            "layers": layers,
            "final_norm": {"scale": StoredTensor(f"{final}.weight", (d,)), "bias": StoredTensor(f"{final}.bias", (d,))},
            **output_head(config, head),
        },
        n_layers=config.n_layers,
        anchor=table.name,
        prefixes=(prefix, ""),
        saved_prefix=prefix,
        ignored=ignored,
        tied={head: table.name} if config.tied_head else {},
    )
