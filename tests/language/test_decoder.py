import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from jaxgkd.errors import CheckpointError, ConfigError, DataError
from jaxgkd.language import load
from jaxgkd.language.decoder import Decoder

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ["llama", "llama3_rope", "mistral", "qwen2", "qwen3", "gemma2", "gpt2", "biogpt"]


def read(family):
    with np.load(GOLDENS / family / "expected.npz") as expected:
        return load(GOLDENS / family), dict(expected)


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request):
    return read(request.param)


@pytest.fixture(scope="module")
def gemma():
    return read("gemma2")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooled_states_are_pooled_hidden_states(gemma, side, pooling):
    model, expected = gemma
    mask, hidden = expected[f"mask_{side}"], expected[f"hidden_{side}"]
    layers = (3, 0, 2)
    pooled = model.pooled_states(expected["input_ids"], mask, layers=layers, pooling=pooling)
    assert pooled.shape == (4, 3, 64)
    for column, layer in enumerate(layers):
        for row in range(4):
            real = hidden[layer, row, mask[row] > 0]
            reference = {"mean": real.mean(0), "cls": real[0], "last": real[-1]}[pooling]
            np.testing.assert_allclose(pooled[row, column], reference, rtol=0, atol=1e-5)


def test_lower_layers_alone_suffice_for_lower_states(gemma):
    model, expected = gemma
    ids, mask = expected["input_ids"], expected["mask_right"]
    for layer in (0, 1):
        pooled = model.pooled_states(ids, mask, layers=(layer,), pooling="last")
        reference = [expected["hidden_right"][layer, row, count - 1] for row, count in enumerate(mask.sum(1))]
        np.testing.assert_allclose(pooled[:, 0], reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "first"), [("gemma2", 1), ("gemma2", 3), ("gpt2", 2)])
def test_upper_layers_continue_from_a_cached_state(family, first):
    model, expected = read(family)
    mask = expected["mask_left"]
    hidden = model.hidden_states(expected["input_ids"], mask)
    np.testing.assert_allclose(model.states_from(hidden[first], mask, first), hidden[first:], rtol=1e-5, atol=1e-5)


def test_a_large_batch_runs_in_blocks_and_gives_the_same(gemma):
    model, expected = gemma
    ids, mask = np.tile(expected["input_ids"], (33, 1))[:130], np.tile(expected["mask_left"], (33, 1))[:130]
    real = mask > 0
    hidden, logits = np.asarray(model.hidden_states(ids, mask)), np.asarray(model.logits(ids, mask))
    reference = np.tile(expected["hidden_left"], (1, 33, 1, 1))[:, :130]
    np.testing.assert_allclose(hidden[:, real], reference[:, real], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        logits[real], np.tile(expected["logits_left"], (33, 1, 1))[:130][real], rtol=0, atol=1e-5
    )
    pooled = model.pooled_states(ids, mask, layers=(3,), pooling="last")
    np.testing.assert_allclose(pooled[:, 0], reference[3, :, -1], rtol=0, atol=1e-5)


def test_padding_does_not_matter(request, golden):
    model, expected = golden
    ids, mask, columns = expected["input_ids"], expected["mask_right"], np.arange(24)
    before = model.hidden_states(ids, mask)
    other = np.where(mask > 0, ids, 7)
    after = model.hidden_states(other, mask)
    np.testing.assert_array_equal(np.asarray(after)[:, mask > 0], np.asarray(before)[:, mask > 0])
    if request.node.callspec.params["golden"] == "biogpt":
        return  # whose positions count columns
    to_the_end = (columns - (24 - mask.sum(1)[:, None])) % 24
    left = model.hidden_states(np.take_along_axis(other, to_the_end, 1), np.take_along_axis(mask, to_the_end, 1))
    back = np.take_along_axis(np.asarray(left), ((columns + (24 - mask.sum(1)[:, None])) % 24)[None, :, :, None], 2)
    np.testing.assert_allclose(back[:, mask > 0], np.asarray(before)[:, mask > 0], atol=1e-5)


def test_later_tokens_do_not_matter(golden):
    model, expected = golden
    ids, mask = expected["input_ids"].copy(), np.ones_like(expected["mask_right"])
    before = model.hidden_states(ids, mask)
    ids[:, 15:] = 3
    np.testing.assert_array_equal(model.hidden_states(ids, mask)[:, :, :15], before[:, :, :15])


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_gradients_reach_every_weight_and_are_right(family):
    model, expected = read(family)
    ids, mask = expected["input_ids"], expected["mask_right"]
    graphdef, params = nnx.split(model)
    readout = np.random.default_rng(1).normal(size=(4, 24, 160)).astype(np.float32) * mask[:, :, None]

    @jax.jit
    @jax.value_and_grad
    def value_and_slope(params):
        return (nnx.merge(graphdef, params).logits(ids, mask) * readout).sum()

    value, gradient = value_and_slope(params)
    np.testing.assert_allclose(value, (model.logits(ids, mask) * readout).sum(), rtol=1e-4)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0, path
    name = "query_key_value_kernel" if model.config.fused_attention else "query_kernel"
    kernel = gradient["layers"][name].get_value()
    direction = np.random.default_rng(0).normal(size=kernel.shape).astype(np.float32)
    step = 3e-2 / np.linalg.norm(direction)

    def moved(sign):
        weights = model.weights()
        weights["layers"][name] = weights["layers"][name] + sign * step * direction
        return float((Decoder(model.config, weights).logits(ids, mask) * readout).sum())

    np.testing.assert_allclose((moved(1) - moved(-1)) / (2 * step), float((kernel * direction).sum()), rtol=3e-2)


def test_fine_tuning_upper_layers_leaves_lower_ones_alone(gemma):
    model, expected = gemma
    mask = expected["mask_right"]
    cached = model.hidden_states(expected["input_ids"], mask)[2]
    graphdef, params = nnx.split(model)

    @jax.jit
    @jax.grad
    def slope(params):
        return nnx.merge(graphdef, params).states_from(cached, mask, 2)[-1, :, 0, 0].sum()

    gradient = slope(params)
    for array in jax.tree.leaves(gradient["layers"]):
        np.testing.assert_array_equal(array[:2], 0)
        assert np.abs(array[2]).max() > 0


def copy(family, folder, change_tensors=None, **fields):
    shutil.copytree(GOLDENS / family, folder, dirs_exist_ok=True)
    if change_tensors is not None:
        save_file(change_tensors(load_file(GOLDENS / family / "model.safetensors")), folder / "model.safetensors")
    values = json.loads((GOLDENS / family / "config.json").read_text()) | fields
    kept = {name: value for name, value in values.items() if name not in fields or value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@pytest.mark.parametrize("family", ["llama", "gpt2", "biogpt"])
def test_names_without_prefix_are_the_same_model(tmp_path, family):
    prefix = {"llama": "model.", "gpt2": "transformer.", "biogpt": "biogpt."}[family]
    folder = copy(family, tmp_path, lambda tensors: {name.removeprefix(prefix): t for name, t in tensors.items()})
    model, expected = read(family)
    ids, mask = expected["input_ids"], expected["mask_right"]
    np.testing.assert_array_equal(load(folder).logits(ids, mask), model.logits(ids, mask))


def test_a_model_saved_without_its_head_has_hidden_states_only(tmp_path):
    folder = copy("llama", tmp_path, lambda tensors: {n: t for n, t in tensors.items() if n != "lm_head.weight"})
    model, (whole, expected) = load(folder), read("llama")
    ids, mask = expected["input_ids"], expected["mask_right"]
    np.testing.assert_array_equal(model.hidden_states(ids, mask), whole.hidden_states(ids, mask))
    assert whole.n_parameters - model.n_parameters == 160 * 64
    with pytest.raises(ConfigError, match="without its output head"):
        model.logits(ids, mask)


def test_a_tied_head_may_be_stored_twice_but_not_differ(tmp_path):
    token = "model.embed_tokens.weight"
    copy("qwen3", tmp_path / "same", lambda tensors: tensors | {"lm_head.weight": tensors[token]})
    model, expected = read("qwen3")
    ids, mask = expected["input_ids"], expected["mask_right"]
    np.testing.assert_array_equal(load(tmp_path / "same").logits(ids, mask), model.logits(ids, mask))
    copy("qwen3", tmp_path / "other", lambda tensors: tensors | {"lm_head.weight": tensors[token] + 1})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        load(tmp_path / "other")


# What is set beside the family's own fields; None takes a field out.
QWEN_ONLY = dict.fromkeys(["layer_types", "max_window_layers", "use_sliding_window"])
MISFITS = [
    ("llama", {"attention_bias": True}, r"_proj\.bias is missing"),
    ("llama", {"mlp_bias": True}, r"_proj\.bias is missing"),
    ("llama", {"model_type": "qwen2", "attention_bias": None, "mlp_bias": None}, r"_proj\.bias is missing"),
    ("qwen2", {"model_type": "llama", **QWEN_ONLY}, r"_proj\.bias is not part"),
    ("qwen3", {"model_type": "llama", **QWEN_ONLY}, r"_norm\.weight is not part"),
    ("llama", {"tie_word_embeddings": True}, r"lm_head\.weight"),
    ("llama", {"num_key_value_heads": 4}, r"k_proj\.weight has shape \[32, 64\]"),
    ("qwen3", {"head_dim": 16}, r"q_proj\.weight has shape \[128, 64\]"),
    ("llama", {"num_hidden_layers": 2}, r"layers\.2\..* is not part"),
    ("llama", {"num_hidden_layers": 4}, r"layers\.3\..* is missing"),
    ("llama", {"vocab_size": 161}, r"has shape \[160, 64\]"),
]


@pytest.mark.parametrize(("family", "fields", "message"), MISFITS)
def test_weights_that_config_json_does_not_describe_are_refused(tmp_path, family, fields, message):
    with pytest.raises(CheckpointError, match=message):
        load(copy(family, tmp_path, **fields))


def test_buffers_and_other_heads_are_left_out(tmp_path):
    extra = {f"h.{i}.attn.bias": np.ones((1, 1, 64, 64), bool) for i in range(3)} | {"score.weight": np.ones((2, 64))}
    copy("gpt2", tmp_path / "gpt2", lambda t: {n.removeprefix("transformer."): v for n, v in t.items()} | extra)
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for i in range(3)}
    copy("llama", tmp_path / "llama", lambda tensors: tensors | buffers)
    for family in ("gpt2", "llama"):
        model, expected = read(family)
        ids, mask = expected["input_ids"], expected["mask_right"]
        np.testing.assert_array_equal(load(tmp_path / family).logits(ids, mask), model.logits(ids, mask))


def test_ids_outside_the_vocabulary_never_pass_silently(gemma):
    model, _ = gemma
    mask = np.ones((1, 3), int)
    for wrong in (160, -1):
        ids = np.array([[0, wrong, 2]])
        with pytest.raises(DataError, match="vocabulary of 160"):
            model.logits(ids, mask)
        assert np.isnan(jax.jit(model.logits)(ids, mask)).any()


def test_what_does_not_exist_is_refused(gemma):
    model, _ = gemma
    ids, mask = np.zeros((1, 3), int), np.ones((1, 3), int)
    for method in (model.hidden_states, model.logits):
        with pytest.raises(ConfigError, match="at most 128"):
            method(np.zeros((1, 129), int), np.ones((1, 129), int))
    for layers in [(4,), (-1,), (0, 5)]:
        with pytest.raises(ConfigError, match="to 3"):
            model.pooled_states(ids, mask, layers=layers, pooling="mean")
    with pytest.raises(ConfigError, match="at least one"):
        model.pooled_states(ids, mask, layers=(), pooling="mean")
    with pytest.raises(ConfigError, match="pooling"):
        model.pooled_states(ids, mask, layers=(0,), pooling="sum")
    with pytest.raises(ConfigError, match="no hidden state 4"):
        model.states_from(jnp.zeros((1, 3, 64)), mask, 4)
    with pytest.raises(ConfigError, match="width of 64"):
        model.states_from(jnp.zeros((1, 3, 32)), mask, 1)


def test_facts_about_the_model(gemma):
    model, _ = gemma
    assert (model.width, model.n_layers, model.vocabulary_size, model.max_tokens) == (64, 3, 160, 128)
    layer = 64 * (128 + 64 + 64) + 128 * 64 + 3 * 64 * 96 + 4 * 64
    assert model.n_parameters == 160 * 64 + 3 * layer + 64
    assert json.loads(model.config_json)["model_type"] == "gemma2"
