import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxgkd.errors import CheckpointError, ConfigError, UnsupportedModelError
from jaxgkd.language import Decoder, LoraConfig, initial_adapters, load, load_adapters, merge, save_adapters
from jaxgkd.language.lora import linear_maps

GOLDENS = Path(__file__).parent / "goldens"
CHECKPOINTS = sorted(folder.name for folder in GOLDENS.iterdir() if folder.is_dir())


def random_adapters(model, config, seed=0):
    generator = np.random.default_rng(seed)
    adapters = initial_adapters(model, config, key=jax.random.key(seed))
    return jax.tree.map(lambda array: jnp.asarray(generator.normal(size=array.shape), jnp.float32) * 0.1, adapters)


@pytest.fixture(scope="module")
def llama():
    return load(GOLDENS / "llama")


@pytest.fixture(scope="module")
def written(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "llama"
    config = LoraConfig(rank=4, alpha=8.0, dropout=0.1)
    save_adapters(random_adapters(llama, config), config, llama, folder, base_name="someone/llama")
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "llama")


def edit(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("everywhere", [False, True])
def test_what_is_saved_is_read_back(name, everywhere, tmp_path):
    model = load(GOLDENS / name)
    targets = tuple(linear_maps(model)) if everywhere else ()
    config = LoraConfig(rank=3, alpha=5.5, dropout=0.25, targets=targets)
    adapters = random_adapters(model, config)
    save_adapters(adapters, config, model, tmp_path / "saved")
    config_again, again = load_adapters(tmp_path / "saved", model)
    assert (config_again.rank, config_again.alpha, config_again.dropout) == (3, 5.5, 0.25)
    assert set(config_again.targets) == set(adapters)
    jax.tree.map(np.testing.assert_array_equal, again, adapters)


def test_the_layout_is_that_of_peft(written):
    assert sorted(file.name for file in written.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    values = json.loads((written / "adapter_config.json").read_text())
    assert (values["peft_type"], values["task_type"]) == ("LORA", "CAUSAL_LM")
    assert (values["r"], values["lora_alpha"], values["lora_dropout"]) == (4, 8, 0.1)
    assert (values["target_modules"], values["base_model_name_or_path"]) == (["q_proj", "v_proj"], "someone/llama")
    shapes = {name: array.shape for name, array in load_file(written / "adapter_model.safetensors").items()}
    assert shapes["base_model.model.model.layers.2.self_attn.v_proj.lora_A.weight"] == (4, 64)
    assert shapes["base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight"] == (32, 4)
    assert len(shapes) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [
        ("gpt2", ("query_key_value",), ["c_attn"]),
        ("gpt2", ("output", "down"), ["mlp.c_proj", "attn.c_proj"]),
        ("llama", ("up", "key"), ["k_proj", "up_proj"]),
        ("deberta_v2", ("key",), ["key_proj"]),
        ("bert", ("up", "query"), ["query", "intermediate.dense"]),
        ("bert", ("down",), r"(.*\.)?(encoder\.layer\.\d+\.output\.dense)"),
        ("t5_encoder", ("query", "gate"), ["wi_0", "q"]),
    ],
)
def test_targets_are_named_so_that_no_other_module_matches(name, targets, expected, tmp_path):
    model, config = load(GOLDENS / name), LoraConfig(targets=targets)
    save_adapters(random_adapters(model, config), config, model, tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert values["target_modules"] == expected
    assert values["fan_in_fan_out"] == (name == "gpt2")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_adapters_of_the_bare_model_fit_the_one_with_a_head(folder, llama, written, prefix):
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name.replace("model.model.model.", f"model.model.{prefix}"): array for name, array in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    jax.tree.map(np.testing.assert_array_equal, load_adapters(folder, llama)[1], load_adapters(written, llama)[1])


def test_rank_stabilised_adapters_keep_their_scale(folder, llama):
    edit(folder, use_rslora=True)
    config, _ = load_adapters(folder, llama)
    assert config.scale == pytest.approx(8 / 4**0.5)


def test_fields_of_later_versions_pass_while_they_are_switched_off(folder, llama):
    edit(
        folder, some_new_method=None, use_other=False, other_config={}, init_lora_weights="gaussian", megatron_core="m"
    )
    assert load_adapters(folder, llama)[0].rank == 4


REFUSED = [
    ("peft_type", "IA3"),
    ("use_dora", True),
    ("bias", "all"),
    ("init_lora_weights", "pissa"),
    ("rank_pattern", {"q_proj": 8}),
    ("alpha_pattern", {"q_proj": 8}),
    ("modules_to_save", ["lm_head"]),
    ("layers_to_transform", [0, 1]),
    ("layer_replication", [[0, 2]]),
    ("trainable_token_indices", [3]),
    ("lora_bias", True),
    ("lora_dropout", 1.5),
    ("lora_alpha", 0),
    ("r", "8"),
    ("some_new_method", True),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_kinds_of_adapters_that_are_not_ours_are_refused_by_name(folder, llama, field, value):
    edit(folder, **{field: value})
    with pytest.raises(UnsupportedModelError) as caught:
        load_adapters(folder, llama)
    assert caught.value.field == field


def refused(folder, model, message):
    with pytest.raises(CheckpointError, match=message):
        load_adapters(folder, model)


def test_files_that_are_missing_or_damaged_are_refused(folder, llama):
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    refused(folder, llama, "truncated or damaged")
    weights.unlink()
    (folder / "adapter_model.bin").write_bytes(b"never opened")
    refused(folder, llama, "pickled adapters")
    (folder / "adapter_config.json").unlink()
    refused(folder, llama, "the file is missing")


def test_adapters_of_another_model_are_refused(folder, llama):
    refused(folder, load(GOLDENS / "bert"), "none of these adapters")
    edit(folder, r=8)
    refused(folder, llama, r"lora_A\.weight has shape \[4, 64\] where the configuration asks for \[8, 64\]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, name: t.pop(name), r"layers\.1\.self_attn\.q_proj\.lora_B\.weight is missing"),
        (lambda t, name: t.update({name + ".extra": t[name]}), "lora_B.weight.extra is not part"),
        (lambda t, name: t.update({"base_model.model.lm_head.weight": t[name]}), "lm_head.weight is not part"),
    ],
)
def test_every_tensor_is_accounted_for(folder, llama, change, message):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight")
    save_file({name: array.copy() for name, array in tensors.items()}, file)
    refused(folder, llama, message)


def test_bare_weights_have_no_names(llama, folder, tmp_path):
    bare = Decoder(llama.config, llama.weights())
    config, adapters = load_adapters(folder, llama)
    with pytest.raises(ConfigError, match="bare weights"):
        load_adapters(folder, bare)
    with pytest.raises(ConfigError, match="bare weights"):
        save_adapters(adapters, config, bare, tmp_path / "saved")
    with pytest.raises(ConfigError, match="something already"):
        save_adapters(adapters, config, llama, folder)


# Checkpoint, class that PEFT wraps, what PEFT is told beside rank and scale, the maps here.
PEERS = [
    ("llama", "LlamaForCausalLM", {}, ("query", "value")),
    ("llama", "LlamaForCausalLM", {"target_modules": "all-linear", "use_rslora": True}, None),
    ("qwen3", "Qwen3ForCausalLM", {}, ("query", "value")),
    ("gemma2", "Gemma2ForCausalLM", {"target_modules": ["gate_proj", "o_proj"]}, ("gate", "output")),
    ("gpt2", "GPT2LMHeadModel", {"fan_in_fan_out": True}, ("query_key_value",)),
    ("gpt2", "GPT2LMHeadModel", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, None),
    ("biogpt", "BioGptForCausalLM", {"target_modules": ["q_proj", "fc1"]}, ("query", "up")),
    ("bert", "BertModel", {}, ("query", "value")),
    ("bert", "BertModel", {"target_modules": ["intermediate.dense", "output.dense"]}, ("output", "up", "down")),
    ("deberta_v2", "DebertaV2Model", {"target_modules": ["query_proj", "key_proj"]}, ("query", "key")),
    ("t5_encoder", "T5EncoderModel", {}, ("query", "value")),
]


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers", "ignore::UserWarning:peft")
@pytest.mark.parametrize(("name", "opened_by", "told", "targets"), PEERS)
def test_peft_agrees_both_ways(name, opened_by, told, targets, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    transformers = pytest.importorskip("transformers")
    model = load(GOLDENS / name)
    targets = targets or tuple(linear_maps(model))
    with np.load(GOLDENS / name / "expected.npz") as expected:
        ids, mask = expected["input_ids"], expected["mask_right"]

    def theirs():
        return getattr(transformers, opened_by).from_pretrained(GOLDENS / name, attn_implementation="eager")

    def last(wrapped):
        with torch.no_grad():
            tokens = {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask).long()}
            return wrapped.eval()(**tokens, output_hidden_states=True).hidden_states[-1].numpy()[mask > 0]

    def ours(adapters, config):
        return np.asarray(merge(model, adapters, config).hidden_states(ids, mask))[-1][mask > 0]

    torch.manual_seed(0)
    wrapped = peft.get_peft_model(theirs(), peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, **told))
    wrapped.save_pretrained(tmp_path / "theirs")
    config, adapters = load_adapters(tmp_path / "theirs", model)
    assert set(config.targets) == set(targets)
    expected = last(wrapped)
    assert np.abs(expected - last(theirs())).max() > 1e-2
    np.testing.assert_allclose(ours(adapters, config), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))

    config = LoraConfig(rank=3, alpha=4.0, targets=targets)
    adapters = random_adapters(model, config)
    save_adapters(adapters, config, model, tmp_path / "ours")
    expected = last(peft.PeftModel.from_pretrained(theirs(), tmp_path / "ours"))
    np.testing.assert_allclose(ours(adapters, config), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
