"""DeBERTa-v2 and v3: what their configurations say and what their weights are called.

He et al. 2021, https://arxiv.org/abs/2006.03654 and https://arxiv.org/abs/2111.09543. Defaults are those of Hugging
Face's configuration class.
"""

from jaxgkd.errors import UnsupportedModelError
from jaxgkd.language.activations import ACTIVATIONS
from jaxgkd.language.config import BOOKKEEPING, GENERATION, NEUTRAL, ConfigFields
from jaxgkd.language.deberta_network import DebertaConfig
from jaxgkd.language.weight_plan import StoredTensor, WeightPlan

HARMLESS = (
    BOOKKEEPING
    | GENERATION
    | frozenset(
        [
            "attention_probs_dropout_prob",
            "classifier_dropout",
            "cls_dropout",
            "hidden_dropout_prob",
            # Which head predicts masked words, and whether it reuses the token table.
            "legacy",
            "pad_token_id",
            "pooler_dropout",
            "pooler_hidden_act",
            "pooler_hidden_size",
            "summary_activation",
            "summary_last_dropout",
            "summary_type",
            "summary_use_proj",
            "tie_word_embeddings",
        ]
    )
)


def deberta_config(fields: ConfigFields) -> DebertaConfig:
    """Read the configuration of a DeBERTa-v2 or v3 encoder.

    Raises:
      UnsupportedModelError: a field would not be reproduced exactly.
    """
    fields.harmless(HARMLESS)
    width = fields.integer("hidden_size", 1536)
    n_heads = fields.integer("num_attention_heads", 24)
    if width % n_heads:
        raise UnsupportedModelError(
            f"{n_heads} heads do not divide a width of {width}",
            file=fields.file,
            field="num_attention_heads",
            mend="use the config.json that belongs to the weights",
        )
    fields.neutral({**NEUTRAL, "attention_head_size": (width // n_heads,), "embedding_size": (width,)})
    n_positions = fields.integer("max_position_embeddings", 512)
    relative = fields.flag("relative_attention", False)
    reach = fields.integer("max_relative_positions", -1, at_least=-1)
    buckets = fields.integer("position_buckets", -1, at_least=-1)
    conv_kernel = fields.integer("conv_kernel_size", 0, at_least=0)
    conv_groups = fields.integer("conv_groups", 1)
    conv_activation = fields.choice("conv_act", "tanh", ACTIVATIONS)
    norms = fields.word_set("norm_rel_ebd", "none", ("none", "layer_norm"))
    shared = fields.flag("share_att_key", False)
    config = DebertaConfig(
        vocabulary_size=fields.integer("vocab_size", 128100),
        width=width,
        n_layers=fields.integer("num_hidden_layers", 24),
        n_heads=n_heads,
        inner_width=fields.integer("intermediate_size", 6144),
        max_tokens=n_positions,
        n_token_types=fields.integer("type_vocab_size", 0, at_least=0),
        activation=fields.choice("hidden_act", "gelu", ACTIVATIONS),
        norm_epsilon=fields.number("layer_norm_eps", 1e-7),
        absolute_positions=fields.flag("position_biased_input", True),
        position_scores=fields.word_set("pos_att_type", "", ("c2p", "p2c")),
        reach=(reach if reach > 0 else n_positions) if relative else 0,
        buckets=max(buckets, 0) if relative else 0,
        shared_projections=shared and relative,
        normalised_distances="layer_norm" in norms and relative,
        conv_kernel=conv_kernel,
        conv_groups=conv_groups if conv_kernel else 1,
        conv_activation=conv_activation if conv_kernel else "tanh",
    )
    fields.finish()
    if config.buckets and not 1 <= config.buckets // 2 < config.reach - 1:
        raise fields.refusal("position_buckets", f"distances up to {config.reach} do not fall into so many buckets")
    if conv_kernel and conv_kernel % 2 == 0:
        raise fields.refusal("conv_kernel_size", "an even kernel has no middle")
    if conv_kernel and width % conv_groups:
        raise fields.refusal("conv_groups", f"it does not divide a width of {width}")
    return config


def deberta_weights(config: DebertaConfig) -> WeightPlan:
    """The tensors of a DeBERTa encoder, under their names in a Hugging Face checkpoint."""
    d, inner = config.width, config.inner_width
    layer = "encoder.layer.{layer}."
    linear = {
        "query": ("attention.self.query_proj", (d, d)),
        "key": ("attention.self.key_proj", (d, d)),
        "value": ("attention.self.value_proj", (d, d)),
        "output": ("attention.output.dense", (d, d)),
        "up": ("intermediate.dense", (inner, d)),
        "down": ("output.dense", (d, inner)),
    }
    if config.reach and not config.shared_projections:
        if "c2p" in config.position_scores:
            linear["position_key"] = ("attention.self.pos_key_proj", (d, d))
        if "p2c" in config.position_scores:
            linear["position_query"] = ("attention.self.pos_query_proj", (d, d))
    layers: dict[str, StoredTensor] = {}
    for name, (stored, shape) in linear.items():
        layers[f"{name}_kernel"] = StoredTensor(f"{layer}{stored}.weight", shape, transpose=True)
        layers[f"{name}_bias"] = StoredTensor(f"{layer}{stored}.bias", shape[:1])
    for name, stored in {"attention_norm": "attention.output", "feed_forward_norm": "output"}.items():
        layers |= _norm(name, f"{layer}{stored}.LayerNorm", d)

    token = StoredTensor("embeddings.word_embeddings.weight", (config.vocabulary_size, d))
    embeddings = {"token": token, **_norm("norm", "embeddings.LayerNorm", d)}
    if config.absolute_positions:
        embeddings["position"] = StoredTensor("embeddings.position_embeddings.weight", (config.max_tokens, d))
    if config.n_token_types:
        embeddings["token_type"] = StoredTensor("embeddings.token_type_embeddings.weight", (config.n_token_types, d))
    distances: dict[str, StoredTensor] = {}
    if config.reach:
        distances["table"] = StoredTensor("encoder.rel_embeddings.weight", (2 * config.span, d))
    if config.normalised_distances:
        distances |= _norm("norm", "encoder.LayerNorm", d)
    convolution: dict[str, StoredTensor] = {}
    if config.conv_kernel:
        shape = (d, d // config.conv_groups, config.conv_kernel)
        convolution["filter"] = StoredTensor("encoder.conv.conv.weight", shape)
        convolution["bias"] = StoredTensor("encoder.conv.conv.bias", (d,))
        convolution |= _norm("norm", "encoder.conv.LayerNorm", d)
    return WeightPlan(
        tensors={"embeddings": embeddings, "distances": distances, "convolution": convolution, "layers": layers},
        n_layers=config.n_layers,
        anchor=token.name,
        prefixes=("", "deberta.", "model."),
        ignored=(
            "pooler.*",
            "cls.*",
            "lm_predictions.*",
            "mask_predictions.*",
            "classifier.*",
            "qa_outputs.*",
            "embeddings.position_ids",
            # Released with the weights of models that do not use them.
            *(() if config.absolute_positions else ("embeddings.position_embeddings.weight",)),
        ),
    )


def _norm(name: str, stored: str, width: int) -> dict[str, StoredTensor]:
    return {
        f"{name}_scale": StoredTensor(f"{stored}.weight", (width,)),
        f"{name}_bias": StoredTensor(f"{stored}.bias", (width,)),
    }
