import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.errors import ConfigError, StoreError, UnsupportedModelError
from jaxgkd.teachers import token_states as module
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.token_states import lower_part, token_states, upper_part

TEXTS = ["graph neural network", "", "papers", "molecules links text from teacher student", "papers", "links " * 12]

pytestmark = pytest.mark.usefixtures("own_cache")  # compiled without optimisation, which takes most of the time


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder.load(str(bert_folder))


@pytest.fixture(scope="module")
def full(encoder):
    """Ids, mask and all hidden states of the texts, by the whole model."""
    batch = encoder.tokenizer.batch(TEXTS, max_tokens=10)
    return batch.attention_mask, np.asarray(encoder.model.hidden_states(*map(jnp.asarray, batch)))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_states_are_those_of_the_whole_model_in_half_precision(encoder, full, layer, tmp_path):
    mask, hidden = full
    states = token_states(encoder, TEXTS, layer=layer, max_tokens=10, root=tmp_path)
    assert states.tokens.rows[2] == states.tokens.rows[4]
    assert states.n_bytes == 2 * 16 * mask[[0, 1, 2, 3, 5]].sum()
    kept, kept_mask = states.batch(states.tokens.rows, (8, 10))
    assert np.array_equal(kept_mask[:6], mask) and kept_mask[6:].tolist() == [[1] + [0] * 9] * 2
    assert (kept[kept_mask == 0] == 0).all() and (kept[6:] == 0).all()
    real = mask > 0
    np.testing.assert_allclose(kept[:6][real], hidden[layer][real], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_upper_layers_on_kept_states_are_the_full_forward_pass(encoder, full, layer, tmp_path):
    mask, hidden = full
    real = mask > 0
    upper = upper_part(encoder.model, layer)
    exact = upper.states_from(jnp.asarray(hidden[layer]), jnp.asarray(mask), 0)
    assert len(exact) == 3 - layer
    np.testing.assert_allclose(np.asarray(exact)[:, real], hidden[layer:, real], rtol=1e-5, atol=1e-5)
    states = token_states(encoder, TEXTS, layer=layer, max_tokens=10, root=tmp_path)
    rounded = upper.states_from(*map(jnp.asarray, states.batch(states.tokens.rows, (6, 10))), 0)[-1]
    np.testing.assert_allclose(np.asarray(rounded)[real], hidden[-1][real], rtol=0, atol=5e-3)


def test_the_parts_have_the_very_weights_of_the_whole(encoder):
    whole = encoder.model.weights()
    lower, upper = lower_part(encoder.model, 1).weights(), upper_part(encoder.model, 1).weights()
    assert not upper["embeddings"]
    for name, values in whole["embeddings"].items():
        assert np.array_equal(values, lower["embeddings"][name])
    for name, values in whole["layers"].items():
        assert np.array_equal(values, np.concatenate([lower["layers"][name], upper["layers"][name]]))


def test_batches_hold_every_sequence_once(encoder, tmp_path):
    texts = [" ".join(["graph"] * (1 + i % 14) + [letter]) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz" * 3)]
    states = token_states(encoder, texts, layer=1, max_tokens=16, root=tmp_path)
    rows = np.arange(0, len(states.tokens.lengths), 2)
    seen = []
    for first, end, (values, mask) in states.batches(rows):
        assert values.shape[:2] in states.shapes
        assert mask[: end - first].sum(axis=1).tolist() == states.tokens.lengths[rows[first:end]].tolist()
        seen.extend(rows[first:end].tolist())
    assert seen == rows.tolist()


def test_a_killed_run_goes_on_and_a_finished_one_is_read(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "CPU_TOKENS", (16, 1))
    monkeypatch.setattr(module, "ACCELERATOR_TOKENS", (16, 1))
    lines = []
    run = lambda root: token_states(  # noqa: E731
        encoder, TEXTS, layer=1, max_tokens=10, root=root, on_line=lines.append
    )
    whole = run(tmp_path / "whole").store
    assert len(list(whole.folder.glob("chunk-*.npy"))) > 2
    written = []
    write = module.StoreWriter.write

    def killed(self, start, hidden, **rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(start)
        write(self, start, hidden, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(module.StoreWriter, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    lines.clear()
    continued = run(tmp_path / "killed").store
    assert np.array_equal(continued.as_array(), whole.as_array()) and len(lines) == 1
    assert "running 1 of 2 layers over" in lines[0]
    lines.clear()
    assert run(tmp_path / "killed").store.folder == continued.folder and not lines
    # A damaged chunk is made anew, and nothing else.
    chunk = sorted(continued.folder.glob("chunk-*.npy"))[1]
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert np.array_equal(run(tmp_path / "killed").store.as_array(), whole.as_array())


def test_models_and_layers_that_do_not_fit_are_refused(encoder, tmp_path):
    class Other(nnx.Module):
        n_layers, width, max_tokens = 2, 16, 40

    for part in (lower_part, upper_part):
        with pytest.raises(UnsupportedModelError, match="type Other cannot be tuned"):
            part(Other(), 1)
    with pytest.raises(ConfigError, match="no hidden state 3"):
        token_states(encoder, TEXTS, layer=3, max_tokens=10, root=tmp_path)
    with pytest.raises(ConfigError, match="reads 40 tokens"):
        token_states(encoder, TEXTS, layer=1, max_tokens=41, root=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        token_states(encoder, TEXTS, layer=1, max_tokens=10, root=tmp_path / "file")
