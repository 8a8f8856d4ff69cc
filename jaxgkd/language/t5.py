"""The encoder of T5: what its configuration says and what its weights are called.

Raffel et al. 2020, https://arxiv.org/abs/1910.10683; version 1.1 and Flan-T5 (Chung et al. 2022,
https://arxiv.org/abs/2210.11416) have a gated feed-forward block. Defaults are those of Hugging Face's configuration
class. The decoder, if the checkpoint holds one, is left unread.
"""

from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.config import BOOKKEEPING, GENERATION, NEUTRAL, ConfigFields
from jaxgkd.language.t5_network import T5Config
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan

HARMLESS = (
    BOOKKEEPING
    | GENERATION
    | frozenset(
        [
            "classifier_dropout",
            "dropout_rate",
            # The decoder may be there or not; the encoder is the same.
            "is_encoder_decoder",
            "num_decoder_layers",
            "pad_token_id",
            # How the decoder's output head is tied and scaled; the encoder always shares the token table.
            "scale_decoder_outputs",
            "tie_word_embeddings",
            # The length of training texts; distances have no end.
            "n_positions",
        ]
    )
)

# In the name of a feed-forward block this word means GELU's tanh form where the block is gated, as in version 1.1.
GATED_GELU = "gated-gelu"

BLOCKS = tuple(f"{gate}{name}" for name in ACTIVATIONS for gate in ("", "gated-"))


def t5_config(fields: ConfigFields) -> T5Config:
    """Read the configuration of a T5 encoder.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    block = fields.choice("feed_forward_proj", "relu", BLOCKS)
    gated = block.startswith("gated-")
    activation = "gelu_new" if block == GATED_GELU else block.removeprefix("gated-")
    neutral = {name: accepted for name, accepted in NEUTRAL.items() if name not in HARMLESS}
    # Written by transformers beside the name they follow from.
    fields.neutral({**neutral, "is_gated_act": (gated,), "dense_act_fn": (activation,)})
    fields.harmless(HARMLESS)
    config = T5Config(
        vocabulary_size=fields.integer("vocab_size", 32128),
        width=fields.integer("d_model", 512),
        n_layers=fields.integer("num_layers", 6),
        n_heads=fields.integer("num_heads", 8),
        head_width=fields.integer("d_kv", 64),
        inner_width=fields.integer("d_ff", 2048),
        activation=activation,
        gated=gated,
        norm_epsilon=fields.number("layer_norm_epsilon", 1e-6),
        buckets=fields.integer("relative_attention_num_buckets", 32, at_least=4),
        reach=fields.integer("relative_attention_max_distance", 128),
    )
    fields.finish()
    if config.buckets % 2:
        raise fields.refusal("relative_attention_num_buckets", "half of them are for keys to the right")
    if config.reach <= config.buckets // 4:
        raise fields.refusal("relative_attention_max_distance", "the single distances alone reach further")
    return config


def t5_weights(config: T5Config) -> WeightPlan:
    """The tensors of a T5 encoder, under their names in a Hugging Face checkpoint."""
    d, inner, heads = config.width, config.inner_width, config.n_heads * config.head_width
    attention, feed_forward = "encoder.block.{layer}.layer.0.", "encoder.block.{layer}.layer.1."
    linear = {
        "query": (f"{attention}SelfAttention.q", (heads, d)),
        "key": (f"{attention}SelfAttention.k", (heads, d)),
        "value": (f"{attention}SelfAttention.v", (heads, d)),
        "output": (f"{attention}SelfAttention.o", (d, heads)),
        "down": (f"{feed_forward}DenseReluDense.wo", (d, inner)),
    }
    if config.gated:
        linear["gate"] = (f"{feed_forward}DenseReluDense.wi_0", (inner, d))
        linear["up"] = (f"{feed_forward}DenseReluDense.wi_1", (inner, d))
    else:
        linear["up"] = (f"{feed_forward}DenseReluDense.wi", (inner, d))
    layers = {
        f"{name}_kernel": StoredTensor(f"{stored}.weight", shape, transpose=True)
        for name, (stored, shape) in linear.items()
    }
    layers["attention_norm_scale"] = StoredTensor(f"{attention}layer_norm.weight", (d,))
    layers["feed_forward_norm_scale"] = StoredTensor(f"{feed_forward}layer_norm.weight", (d,))
    # Stored with the first layer, used by all.
    distances = f"{attention.format(layer=0)}SelfAttention.relative_attention_bias.weight"
    return WeightPlan(
        tensors={
            "embeddings": {"token": StoredTensor("shared.weight", (config.vocabulary_size, d))},
            "distances": {"bias": StoredTensor(distances, (config.buckets, config.n_heads))},
            "layers": layers,
            "final_norm": {"scale": StoredTensor("encoder.final_layer_norm.weight", (d,))},
        },
        n_layers=config.n_layers,
        anchor="shared.weight",
        prefixes=("", "transformer.", "model."),
        ignored=("decoder.*", "lm_head.weight", "classification_head.*", "classifier.*", "qa_outputs.*"),
        tied={"encoder.embed_tokens.weight": "shared.weight"},
    )
