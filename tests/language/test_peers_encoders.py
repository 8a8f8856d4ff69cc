"""Variants of the encoder families against PyTorch transformers, where ``pip install jaxgkd[peers]`` has put it."""

import json

import numpy as np
import pytest

from jaxgkd.language import load, read_config
from jaxgkd.language.deberta_network import distance_rows
from jaxgkd.language.t5_network import distance_buckets

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers")

BERT_SHAPE = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
DEBERTA = {**BERT_SHAPE, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}
T5 = {"vocab_size": 53, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 4}

VARIANTS = {
    "bert, tanh form": ("bert", "BertModel", {**BERT_SHAPE, "hidden_act": "gelu_new", "type_vocab_size": 3}),
    "bert, relu": ("bert", "BertModel", {**BERT_SHAPE, "hidden_act": "relu", "layer_norm_eps": 1e-3}),
    "roberta, another padding id": ("roberta", "RobertaModel", {**BERT_SHAPE, "pad_token_id": 5}),
    "distilbert, sinusoids": (
        "distilbert",
        "DistilBertModel",
        {"vocab_size": 53, "dim": 32, "hidden_dim": 40, "n_layers": 3, "n_heads": 4, "sinusoidal_pos_embds": True},
    ),
    "deberta, own projections": ("deberta-v2", "DebertaV2Model", DEBERTA),
    "deberta, content to distance": ("deberta-v2", "DebertaV2Model", {**DEBERTA, "pos_att_type": "c2p"}),
    "deberta, distance to content": (
        "deberta-v2",
        "DebertaV2Model",
        {**DEBERTA, "pos_att_type": ["p2c"], "share_att_key": True, "position_buckets": 4},
    ),
    "deberta, no kind of score": ("deberta-v2", "DebertaV2Model", {**DEBERTA, "pos_att_type": []}),
    "deberta, kinds but no distances": ("deberta-v2", "DebertaV2Model", {**DEBERTA, "relative_attention": False}),
    "deberta, absolute positions and types": (
        "deberta-v2",
        "DebertaV2Model",
        {**DEBERTA, "position_biased_input": True, "type_vocab_size": 2, "norm_rel_ebd": "layer_norm"},
    ),
    "deberta, neither": (
        "deberta-v2",
        "DebertaV2Model",
        {**DEBERTA, "position_biased_input": True, "relative_attention": False, "pos_att_type": None},
    ),
    "deberta, short reach": ("deberta-v2", "DebertaV2Model", {**DEBERTA, "max_relative_positions": 6}),
    "deberta, short reach in buckets": (
        "deberta-v2",
        "DebertaV2Model",
        {**DEBERTA, "max_relative_positions": 9, "position_buckets": 6, "norm_rel_ebd": "layer_norm"},
    ),
    "deberta, convolution": (
        "deberta-v2",
        "DebertaV2Model",
        {**DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu", "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    "deberta, convolution in groups": (
        "deberta-v2",
        "DebertaV2Model",
        {**DEBERTA, "conv_kernel_size": 5, "conv_groups": 4, "position_buckets": 8},
    ),
    "t5, first release": ("t5", "T5EncoderModel", T5),
    "t5, few buckets": (
        "t5",
        "T5EncoderModel",
        {**T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "d_kv": 5},
    ),
    "t5, gated gelu": ("t5", "T5EncoderModel", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5, gated silu": ("t5", "T5EncoderModel", {**T5, "feed_forward_proj": "gated-silu", "layer_norm_epsilon": 1e-3}),
    "t5, plain gelu": ("t5", "T5EncoderModel", {**T5, "feed_forward_proj": "gelu"}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_agree(name, tmp_path):
    family, opened_by, fields = VARIANTS[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, **fields}))
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tmp_path, attn_implementation="eager")
    theirs = getattr(transformers, opened_by)(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    # As a person would have written it, and as transformers writes it back.
    for values in ({"model_type": family, **fields}, json.loads((tmp_path / "config.json").read_text())):
        (tmp_path / "config.json").write_text(json.dumps(values))
        model = load(tmp_path)
        generator = np.random.default_rng(0)
        ids = generator.integers(7, 53, size=(3, 40))
        for mask in (np.arange(40) < np.array([[40], [23], [1]]), np.arange(40) >= np.array([[0], [5], [39]])):
            with torch.no_grad():
                outputs = theirs(
                    input_ids=torch.from_numpy(ids),
                    attention_mask=torch.from_numpy(mask.astype(np.int64)),
                    output_hidden_states=True,
                )
            hidden = np.asarray(model.hidden_states(ids, mask))
            reference = torch.stack(outputs.hidden_states).numpy()
            close = 1e-5 * max(1.0, np.abs(reference[:, mask]).max())
            np.testing.assert_allclose(hidden[:, mask], reference[:, mask], rtol=0, atol=close)


@pytest.mark.parametrize("reach", [16, 64, 128, 512, 1000])
@pytest.mark.parametrize("buckets", [4, 6, 8, 16, 32, 64, 256])
def test_buckets_of_distances_agree_to_the_last_one(buckets, reach, tmp_path):
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
    from transformers.models.t5.modeling_t5 import T5Attention

    t = 1024
    distance = torch.arange(t - 1, -t, -1)
    if buckets // 4 < reach:
        fields = {**T5, "relative_attention_num_buckets": buckets, "relative_attention_max_distance": reach}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **fields}))
        _, config = read_config(tmp_path)
        columns = torch.arange(t)
        theirs = T5Attention._relative_position_bucket(columns[None, :] - columns[:, None], True, buckets, reach)
        np.testing.assert_array_equal(distance_buckets(config, t), theirs.numpy())
    if buckets // 2 < reach - 1:
        fields = {**DEBERTA, "position_buckets": buckets, "max_relative_positions": reach}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2", **fields}))
        _, config = read_config(tmp_path)
        theirs = make_log_bucket_position(distance, buckets, reach).long().numpy()
        np.testing.assert_array_equal(distance_rows(config, t), np.clip(theirs + buckets, 0, 2 * buckets - 1))
