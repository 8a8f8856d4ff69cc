"""BERT, RoBERTa and DistilBERT: what their configurations say and what their weights are called.

Devlin et al. 2019, https://arxiv.org/abs/1810.04805; Liu et al. 2019, https://arxiv.org/abs/1907.11692;
Sanh et al. 2019, https://arxiv.org/abs/1910.01108. Defaults are those of Hugging Face's configuration classes.
"""

from jaxgkd.errors import UnsupportedModelError
from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.config import BOOKKEEPING, GENERATION, NEUTRAL, ConfigFields
from jaxgkd.language.encoder import EncoderConfig
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan

# The masked-language-model head reuses the token table or does not; the encoder below it is the same.
HARMLESS = BOOKKEEPING | GENERATION | {"tie_word_embeddings"}

BERT_HARMLESS = HARMLESS | frozenset(
    [
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "hidden_dropout_prob",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ]
)

# The last three belong to the regression head of the ChemBERTa-2 family.
ROBERTA_HARMLESS = BERT_HARMLESS | {"is_gpu", "norm_mean", "norm_std"}

# Sinusoidal positions are stored in the checkpoint like learned ones.
DISTILBERT_HARMLESS = HARMLESS | frozenset(
    [
        "attention_dropout",
        "dropout",
        "pad_token_id",
        "qa_dropout",
        "seq_classif_dropout",
        "sinusoidal_pos_embds",
        "tie_weights_",
    ]
)

BERT_NEUTRAL = {**NEUTRAL, "directionality": ("bidi",), "position_embedding_type": ("absolute",)}

IGNORED_HEADS = ("*embeddings.position_ids", "*embeddings.token_type_ids", "classifier.*", "qa_outputs.*")


def bert_config(fields: ConfigFields) -> EncoderConfig:
    """Read the configuration of a BERT encoder.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.harmless(BERT_HARMLESS | {"pad_token_id"})
    return _bert_like(fields, max_positions=512, padding_id=None)


def roberta_config(fields: ConfigFields) -> EncoderConfig:
    """Read the configuration of a RoBERTa encoder: a BERT whose positions start above the padding id.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.harmless(ROBERTA_HARMLESS)
    return _bert_like(fields, max_positions=512, padding_id=fields.integer("pad_token_id", 1, at_least=0))


def distilbert_config(fields: ConfigFields) -> EncoderConfig:
    """Read the configuration of a DistilBERT encoder: a BERT without token types.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.neutral(NEUTRAL)
    fields.harmless(DISTILBERT_HARMLESS)
    config = EncoderConfig(
        vocabulary_size=fields.integer("vocab_size", 30522),
        width=fields.integer("dim", 768),
        n_layers=fields.integer("n_layers", 6),
        n_heads=fields.integer("n_heads", 12),
        inner_width=fields.integer("hidden_dim", 3072),
        n_positions=fields.integer("max_position_embeddings", 512),
        n_token_types=0,
        activation=fields.choice("activation", "gelu", ACTIVATIONS),
        norm_epsilon=1e-12,
    )
    fields.finish()
    _check_heads(config, fields, "n_heads")
    return config


def _bert_like(fields: ConfigFields, *, max_positions: int, padding_id: int | None) -> EncoderConfig:
    fields.neutral(BERT_NEUTRAL)
    config = EncoderConfig(
        vocabulary_size=fields.integer("vocab_size", 30522 if padding_id is None else 50265),
        width=fields.integer("hidden_size", 768),
        n_layers=fields.integer("num_hidden_layers", 12),
        n_heads=fields.integer("num_attention_heads", 12),
        inner_width=fields.integer("intermediate_size", 3072),
        n_positions=fields.integer("max_position_embeddings", max_positions),
        n_token_types=fields.integer("type_vocab_size", 2),
        activation=fields.choice("hidden_act", "gelu", ACTIVATIONS),
        norm_epsilon=fields.number("layer_norm_eps", 1e-12),
        padding_id=padding_id,
    )
    fields.finish()
    _check_heads(config, fields, "num_attention_heads")
    if config.max_tokens < 1:
        raise UnsupportedModelError(
            f"{config.n_positions} positions leave none after padding id {padding_id}",
            file=fields.file,
            field="max_position_embeddings",
            mend="use the config.json that belongs to the weights",
        )
    return config


def _check_heads(config: EncoderConfig, fields: ConfigFields, field: str) -> None:
    if config.width % config.n_heads:
        raise UnsupportedModelError(
            f"{config.n_heads} heads do not divide a width of {config.width}",
            file=fields.file,
            field=field,
            mend="use the config.json that belongs to the weights",
        )


def bert_weights(config: EncoderConfig) -> WeightPlan:
    """The tensors of a BERT encoder, under their names in a Hugging Face checkpoint."""
    return _bert_plan(config, "bert.", ("pooler.*", "cls.*", *IGNORED_HEADS))


def roberta_weights(config: EncoderConfig) -> WeightPlan:
    """The tensors of a RoBERTa encoder, under their names in a Hugging Face checkpoint."""
    return _bert_plan(config, "roberta.", ("pooler.*", "lm_head.*", "regression.*", *IGNORED_HEADS))


def distilbert_weights(config: EncoderConfig) -> WeightPlan:
    """The tensors of a DistilBERT encoder, under their names in a Hugging Face checkpoint."""
    heads = ("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*", "pre_classifier.*", *IGNORED_HEADS)
    return _plan(
        config,
        prefix="distilbert.",
        ignored=heads,
        layer="transformer.layer.{layer}.",
        linear={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
        },
        norm={"attention_norm": "sa_layer_norm", "feed_forward_norm": "output_layer_norm"},
    )


def _bert_plan(config: EncoderConfig, prefix: str, ignored: tuple[str, ...]) -> WeightPlan:
    return _plan(
        config,
        prefix=prefix,
        ignored=ignored,
        layer="encoder.layer.{layer}.",
        linear={
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "output": "attention.output.dense",
            "up": "intermediate.dense",
            "down": "output.dense",
        },
        norm={"attention_norm": "attention.output.LayerNorm", "feed_forward_norm": "output.LayerNorm"},
    )


def _plan(
    config: EncoderConfig,
    *,
    prefix: str,
    ignored: tuple[str, ...],
    layer: str,
    linear: dict[str, str],
    norm: dict[str, str],
) -> WeightPlan:
    d, inner = config.width, config.inner_width
    shapes = {"up": (inner, d), "down": (d, inner)}
    layers: dict[str, StoredTensor] = {}
    for name, stored in linear.items():
        shape = shapes.get(name, (d, d))
        layers[f"{name}_kernel"] = StoredTensor(f"{layer}{stored}.weight", shape, transpose=True)
        layers[f"{name}_bias"] = StoredTensor(f"{layer}{stored}.bias", shape[:1])
    for name, stored in norm.items():
        layers[f"{name}_scale"] = StoredTensor(f"{layer}{stored}.weight", (d,))
        layers[f"{name}_bias"] = StoredTensor(f"{layer}{stored}.bias", (d,))
    token = StoredTensor("embeddings.word_embeddings.weight", (config.vocabulary_size, d))
    embeddings = {
        "token": token,
        "position": StoredTensor("embeddings.position_embeddings.weight", (config.n_positions, d)),
        "norm_scale": StoredTensor("embeddings.LayerNorm.weight", (d,)),
        "norm_bias": StoredTensor("embeddings.LayerNorm.bias", (d,)),
    }
    if config.n_token_types:
        types = (config.n_token_types, d)
        embeddings["token_type"] = StoredTensor("embeddings.token_type_embeddings.weight", types)
    return WeightPlan(
        tensors={"embeddings": embeddings, "layers": layers},
        n_layers=config.n_layers,
        anchor=token.name,
        prefixes=("", prefix, "model."),
        ignored=ignored,
        # The first checkpoints were converted from TensorFlow and kept its names.
        renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    )
