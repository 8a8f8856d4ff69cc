import json
from pathlib import Path

import pytest

from jaxgkd.errors import UnsupportedModelError
from jaxgkd.language import read_config

GOLDENS = Path(__file__).parent / "goldens"

SMALL_BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 50,
}


def write(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def golden(family):
    return json.loads((GOLDENS / family / "config.json").read_text())


# The fields, not the numbers, of configurations as they were released over the years.
RELEASED = {
    "multilingual, 2019": {
        **SMALL_BERT,
        "attention_probs_dropout_prob": 0.1,
        "directionality": "bidi",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "output_past": True,
        "pad_token_id": 0,
        "pooler_fc_size": 768,
        "pooler_num_attention_heads": 12,
        "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128,
        "pooler_type": "first_token_transform",
        "pruned_heads": {},
        "torchscript": False,
        "type_vocab_size": 2,
        "use_bfloat16": False,
        "is_decoder": False,
        "do_sample": False,
        "num_beams": 1,
        "top_k": 50,
        "bad_words_ids": None,
    },
    "sentence encoder, transformers 4": {
        **SMALL_BERT,
        "_name_or_path": "somewhere",
        "architectures": ["BertModel"],
        "classifier_dropout": None,
        "gradient_checkpointing": False,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "position_embedding_type": "absolute",
        "torch_dtype": "float16",
        "transformers_version": "4.30.0",
        "use_cache": True,
    },
    "cross-encoder": {**SMALL_BERT, "sentence_transformers": {"version": "4.1"}, "_attn_implementation_autoset": True},
    "chemistry, 2022": {
        "model_type": "roberta",
        "architectures": ["RobertaForRegression"],
        "bos_token_id": 0,
        "hidden_size": 48,
        "is_gpu": True,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 515,
        "norm_mean": [0.5],
        "norm_std": [1.0],
        "num_attention_heads": 12,
        "num_hidden_layers": 3,
        "intermediate_size": 464,
        "type_vocab_size": 1,
        "vocab_size": 600,
    },
    "fine-tuned, 2019": {
        "model_type": "distilbert",
        "activation": "gelu",
        "attention_dropout": 0.1,
        "dim": 32,
        "dropout": 0.1,
        "finetuning_task": "sst-2",
        "hidden_dim": 64,
        "max_position_embeddings": 512,
        "n_heads": 4,
        "n_layers": 2,
        "output_past": True,
        "pad_token_id": 0,
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": True,
        "tie_weights_": True,
        "vocab_size": 50,
    },
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_layouts_are_read(tmp_path, name):
    values = RELEASED[name]
    _, config = read_config(write(tmp_path, values))
    assert config.vocabulary_size == values["vocab_size"]
    assert config.width == values.get("hidden_size", values.get("dim"))


def test_every_number_reaches_the_configuration(tmp_path):
    values = {
        **SMALL_BERT,
        "max_position_embeddings": 40,
        "type_vocab_size": 3,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    }
    _, config = read_config(write(tmp_path, values))
    assert (config.vocabulary_size, config.width, config.inner_width) == (50, 32, 64)
    assert (config.n_layers, config.n_heads, config.n_positions, config.n_token_types) == (2, 2, 40, 3)
    assert (config.activation, config.norm_epsilon, config.padding_id) == ("gelu_new", 1e-5, None)


def test_both_layouts_give_one_configuration(tmp_path):
    today = golden("bert")
    older = {key: value for key, value in today.items() if key not in ("dtype", "is_decoder", "add_cross_attention")}
    older |= {"torch_dtype": "float32", "position_embedding_type": "absolute", "transformers_version": "4.20.0"}
    assert read_config(write(tmp_path, older))[1] == read_config(GOLDENS / "bert")[1]


def test_roberta_counts_positions_from_its_padding_id(tmp_path):
    _, config = read_config(write(tmp_path, {**golden("roberta"), "pad_token_id": 3}))
    assert config.padding_id == 3
    assert config.max_tokens == 60


REFUSED = [
    ("bert", "hidden_act", "gelu_10"),
    ("bert", "position_embedding_type", "relative_key"),
    ("bert", "position_embedding_type", "relative_key_query"),
    ("bert", "position_embedding_type", "alibi"),
    ("bert", "is_decoder", True),
    ("bert", "add_cross_attention", True),
    ("bert", "is_encoder_decoder", True),
    ("bert", "tie_encoder_decoder", True),
    ("bert", "chunk_size_feed_forward", 8),
    ("bert", "pruned_heads", {"0": [1]}),
    ("bert", "quantization_config", {"bits": 4}),
    ("bert", "auto_map", {"AutoModel": "modeling.Model"}),
    ("bert", "per_layer_config", {"0": {}}),
    ("bert", "directionality", "left"),
    ("bert", "embedding_size", 16),
    ("bert", "num_attention_heads", 5),
    ("bert", "num_hidden_layers", 0),
    ("bert", "layer_norm_eps", "small"),
    ("bert", "type_vocab_size", 0),
    ("roberta", "position_embedding_type", "relative_key"),
    ("roberta", "pad_token_id", None),
    ("roberta", "max_position_embeddings", 2),
    ("roberta", "adapter_layers", 2),
    ("distilbert", "activation", "quick_gelu"),
    ("distilbert", "layer_norm_eps", 1e-5),
    ("distilbert", "is_decoder", True),
    ("distilbert", "n_heads", 7),
    ("distilbert", "hidden_size", 64),
    ("distilbert", "pruned_heads", {"1": [0]}),
]


@pytest.mark.parametrize(("family", "field", "value"), REFUSED)
def test_what_would_change_the_numbers_is_refused_by_name(tmp_path, family, field, value):
    with pytest.raises(UnsupportedModelError) as caught:
        read_config(write(tmp_path, {**golden(family), field: value}))
    assert caught.value.field == field
    assert str(tmp_path / "config.json") in str(caught.value)
