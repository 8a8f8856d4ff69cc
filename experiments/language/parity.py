"""Small random models of every family, in many variants: what Hugging Face computes, or a refusal by name.

    pip install -e ".[peers]" && python experiments/language/parity.py

PyTorch transformers makes a checkpoint folder of random weights for every variant of a configuration, and the hidden
states and logits of a padded batch (encoders padded on the right, decoders on the left). jaxgkd reads the folder and
has to give the same numbers, or refuse it naming the field; the script writes what happened into the README.
"""

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
import transformers

from jaxgkd import language
from jaxgkd.errors import JaxgkdError

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: written by experiments/language/parity.py -->", "<!-- end of parity -->"
TOLERANCE = 2e-5
SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
SMALL |= {"max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = SMALL | {"num_key_value_heads": 2}
ROPE = {"rope_theta": 500.0, "factor": 4.0}
STRETCHED = {"original_max_position_embeddings": 16}


def rope(kind: str, **fields) -> dict:
    return {"rope_parameters": {"rope_type": kind, **ROPE, **fields}}


GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
DISTILBERT = {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
DEBERTA = SMALL | {"relative_attention": True, "position_buckets": 16, "max_relative_positions": -1}
DEBERTA |= {"pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "share_att_key": True}
DEBERTA |= {"position_biased_input": False, "type_vocab_size": 0}
SLIDING = {"sliding_window": 8, "use_sliding_window": True}
HEADS = {"head_dim": 8}

# Family → (model, configuration, what all variants share, what each changes).
VARIANTS: dict[str, tuple[str, str, dict, list[dict]]] = {
    "Llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        GROUPED,
        [
            {},
            {"head_dim": 16},
            {"attention_bias": True},
            {"mlp_bias": True},
            {"tie_word_embeddings": True},
            *({"hidden_act": name} for name in ("gelu", "relu", "gelu_pytorch_tanh", "relu2")),
            {"num_key_value_heads": 1},
            {"num_key_value_heads": 4},
            {"rms_norm_eps": 1e-2},
            {"pretraining_tp": 2},
            rope("llama3", **STRETCHED, low_freq_factor=1.0, high_freq_factor=4.0),
            rope("linear"),
            rope("dynamic"),
            rope("yarn", **STRETCHED),
            rope("yarn", **STRETCHED, beta_fast=16.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=0.9),
            rope("longrope", **STRETCHED, short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 1.5, 2.0, 2.5]),
            {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
        ],
    ),
    "Mistral": (
        "MistralForCausalLM",
        "MistralConfig",
        GROUPED,
        [{}, {"sliding_window": 8}, {"sliding_window": None}, {"head_dim": 12}],
    ),
    "Qwen 2": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        GROUPED,
        [
            {"use_sliding_window": False, "sliding_window": 8},
            SLIDING | {"max_window_layers": 2},
            SLIDING | {"layer_types": ["full_attention", "sliding_attention"] * 2},
            {"tie_word_embeddings": True},
        ],
    ),
    "Qwen 3": (
        "Qwen3ForCausalLM",
        "Qwen3Config",
        GROUPED,
        [{}, {"attention_bias": True}, {"head_dim": 20}, SLIDING | {"max_window_layers": 1}],
    ),
    "Gemma 2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        GROUPED,
        [
            {},
            HEADS | {"sliding_window": 8},
            HEADS | {"attn_logit_softcapping": None},
            HEADS | {"final_logit_softcapping": None},
            HEADS | {"query_pre_attn_scalar": 20},
            HEADS | {"layer_types": ["full_attention"] * 4},
            HEADS | {"hidden_activation": "relu"},
            HEADS | {"use_bidirectional_attention": True},
        ],
    ),
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        GPT2,
        [
            {},
            {"n_inner": 40},
            {"activation_function": "relu"},
            {"scale_attn_by_inverse_layer_idx": True},
            {"scale_attn_weights": False},
            {"reorder_and_upcast_attn": True},
            {"tie_word_embeddings": False},
            {"add_cross_attention": True},
        ],
    ),
    "BioGPT": ("BioGptForCausalLM", "BioGptConfig", SMALL, [{}, {"scale_embedding": False}, {"hidden_act": "relu"}]),
    "BERT": (
        "BertModel",
        "BertConfig",
        SMALL,
        [
            {},
            {"hidden_act": "relu"},
            {"hidden_act": "gelu_new"},
            {"type_vocab_size": 1},
            {"layer_norm_eps": 1e-3},
            {"position_embedding_type": "relative_key"},
            {"is_decoder": True},
        ],
    ),
    "RoBERTa": (
        "RobertaModel",
        "RobertaConfig",
        SMALL,
        [{"pad_token_id": 1}, {"pad_token_id": 0}, {"pad_token_id": 1, "type_vocab_size": 1}],
    ),
    "DistilBERT": (
        "DistilBertModel",
        "DistilBertConfig",
        DISTILBERT,
        [{}, {"sinusoidal_pos_embds": True}, {"activation": "relu"}],
    ),
    "DeBERTa v2 and v3": (
        "DebertaV2Model",
        "DebertaV2Config",
        DEBERTA,
        [
            {},
            {"pos_att_type": ["c2p"]},
            {"pos_att_type": ["p2c"]},
            {"pos_att_type": "p2c|c2p"},
            {"share_att_key": False},
            {"norm_rel_ebd": "none"},
            {"position_biased_input": True},
            {"type_vocab_size": 2},
            {"position_buckets": -1},
            {"relative_attention": False},
            {"conv_kernel_size": 3, "conv_act": "gelu"},
        ],
    ),
    "T5 (encoder)": (
        "T5EncoderModel",
        "T5Config",
        T5,
        [
            {},
            {"feed_forward_proj": "gated-gelu"},
            {"feed_forward_proj": "gated-silu"},
            {"feed_forward_proj": "gelu"},
            {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
        ],
    ),
    "others": ("Phi3ForCausalLM", "Phi3Config", GROUPED, [{}]),
    "others: mixture of experts": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        GROUPED,
        [{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}],
    ),
    "others: Gemma 3": ("Gemma3ForCausalLM", "Gemma3TextConfig", GROUPED, [HEADS]),
    "others: ELECTRA": ("ElectraModel", "ElectraConfig", SMALL, [{}]),
    "others: multilingual T5": ("MT5EncoderModel", "MT5Config", T5, [{}]),
}


def compare(model_class: str, config_class: str, fields: dict, *, decoder: bool) -> dict:
    """What became of one variant: ``difference`` relative to the largest number, or ``refused`` with the message."""
    config = getattr(transformers, config_class)(**fields)
    torch.manual_seed(0)
    model = getattr(transformers, model_class)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        try:
            ours = language.load(folder)
        except JaxgkdError as error:
            return {"refused": str(error).replace(f"{folder}/", "").replace(folder, "its folder")}
    ids, mask = torch.randint(5, 99, (3, 24)), torch.ones(3, 24, dtype=torch.long)
    for row, length in enumerate((15, 9)):
        padding = slice(0, 24 - length) if decoder else slice(length, 24)
        mask[row, padding] = 0
        ids[row, padding] = config.pad_token_id or 0
    # transformers counts positions from the mask in ``generate`` alone; BioGPT always does.
    counted = decoder and "BioGpt" not in model_class
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if counted else {}
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **positions)
    batch, real = (jnp.asarray(ids.numpy()), jnp.asarray(mask.numpy())), mask.numpy()[:, :, None]
    pairs = list(zip(ours.hidden_states(*batch), theirs.hidden_states, strict=True))
    if decoder:
        pairs.append((ours.logits(*batch), theirs.logits))
    largest = lambda values: float(np.abs(np.asarray(values) * real).max())  # noqa: E731
    return {"difference": max(largest(np.asarray(a) - b.numpy()) / largest(b.numpy()) for a, b in pairs)}


def main() -> None:
    found = []
    for family, (model_class, config_class, shared, changes) in VARIANTS.items():
        for change in changes:
            decoder = "LM" in model_class
            result = compare(model_class, config_class, shared | change, decoder=decoder)
            found.append({"family": family.partition(":")[0], "model": model_class, "change": change, **result})
            print(family, change, result, flush=True)
    table = ["| family | variants | equal | largest relative difference | refused |", "|---|--:|--:|--:|--:|"]
    for family in dict.fromkeys(each["family"] for each in found):
        of_family = [each for each in found if each["family"] == family]
        differences = [each["difference"] for each in of_family if "difference" in each]
        equal = sum(difference < TOLERANCE for difference in differences)
        most = f"{max(differences):.1e}" if differences else ""
        table.append(f"| {family} | {len(of_family)} | {equal} | {most} | {len(of_family) - len(differences)} |")
    refused = [
        f"- {each['model']} {json.dumps(each['change'])}: {each['refused']}" for each in found if "refused" in each
    ]
    versions = {name: version(name) for name in ("jax", "flax", "transformers", "torch")}
    result = {"date": time.strftime("%Y-%m-%d"), **versions, "tolerance": TOLERANCE, "variants": found}
    (HERE / "results" / "parity.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    where = f"{result['date']}; " + ", ".join(f"{name} {value}" for name, value in versions.items()) + "."
    text = "\n".join([*table, "", "Refused, each in one sentence:", "", *refused, "", where])
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    if any(each.get("difference", 0.0) >= TOLERANCE for each in found):
        raise SystemExit("some variants differ")


if __name__ == "__main__":
    main()
