from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import DataError
from jaxgkd.language import load, score_candidates
from jaxgkd.language.decoder import last_states
from jaxgkd.language.instruction import embedding_noise, instruction_batch, response_losses, training_states

GOLDENS = Path(__file__).parent / "goldens"
losses_of = jax.jit(response_losses, static_argnums=0, static_argnames="rematerialise")
states_of = jax.jit(training_states, static_argnums=0)
GENERATOR = np.random.default_rng(0)
PAIRS = [
    (GENERATOR.integers(4, 160, size=prompt), GENERATOR.integers(4, 160, size=response))
    for prompt, response in [(7, 2), (1, 4), (11, 1)]
]


@pytest.fixture(scope="module")
def llama():
    return load(GOLDENS / "llama")


def test_a_batch_says_where_responses_are():
    batch = instruction_batch([([5, 6, 7], [8]), ([9], [10, 11])], max_tokens=9, padding_id=1, multiple=6, rows=3)
    np.testing.assert_array_equal(batch.input_ids, [[5, 6, 7, 8, 1, 1], [9, 10, 11, 1, 1, 1], [1] * 6])
    np.testing.assert_array_equal(batch.attention_mask, [[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.columns, [[3, 1], [1, 2], [1, 1]])
    np.testing.assert_array_equal(batch.response_mask, [[1, 0], [1, 1], [0, 0]])


def test_a_batch_is_never_wider_than_the_model_reads():
    batch = instruction_batch([([5] * 7, [8])], max_tokens=9, multiple=6, response_tokens=3)
    assert batch.input_ids.shape == (1, 9)
    assert batch.columns.shape == (1, 3)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "at least one pair"),
        ([([1], [2]), ([], [3])], "prompt of pair number 1 is empty"),
        ([([1], [])], "response of pair number 0 is empty"),
        ([([1] * 9, [2])], "10 tokens long and 9 fit"),
    ],
)
def test_pairs_that_cannot_be_learned_are_refused(pairs, message):
    with pytest.raises(DataError, match=message):
        instruction_batch(pairs, max_tokens=9)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_training_sees_the_states_of_the_model(name):
    model = load(GOLDENS / name)
    batch = instruction_batch(PAIRS, max_tokens=model.max_tokens)
    found, expected = (
        jax.jit(states, static_argnums=0)(model.config, model.weights(), batch.input_ids, batch.attention_mask)
        for states in (training_states, last_states)
    )
    real = batch.attention_mask > 0
    np.testing.assert_allclose(found[real], expected[real], rtol=0, atol=1e-5)


def test_the_loss_is_of_the_responses_alone(llama):
    batch = instruction_batch(PAIRS, max_tokens=64, rows=4)
    losses = losses_of(llama.config, llama.weights(), batch)
    logits = np.asarray(llama.logits(batch.input_ids[:3], batch.attention_mask[:3]), np.float64)
    for row, (prompt, response) in enumerate(PAIRS):
        columns = np.arange(len(prompt), len(prompt) + len(response))
        said = logits[row, columns - 1]
        log_p = said - np.log(np.exp(said).sum(axis=1, keepdims=True))
        expected = -log_p[np.arange(len(response)), response].mean()
        np.testing.assert_allclose(losses[row], expected, rtol=1e-5)
        ids = np.asarray(prompt)[None]
        score = score_candidates(llama, ids, np.ones_like(ids), [response], per_token=True)
        np.testing.assert_allclose(losses[row], -score[0, 0], rtol=1e-4)
    assert losses[3] == 0


def test_padding_does_not_matter(llama):
    narrow = losses_of(llama.config, llama.weights(), instruction_batch(PAIRS, max_tokens=64))
    wide = instruction_batch(PAIRS, max_tokens=64, padding_id=9, multiple=40, response_tokens=6)
    np.testing.assert_allclose(losses_of(llama.config, llama.weights(), wide), narrow, rtol=1e-5)


def test_noise_is_of_the_size_of_the_paper():
    mask = np.zeros((3, 50), int)
    mask[0], mask[1, :10], mask[2, -1:] = 1, 1, 1
    noise = np.asarray(embedding_noise(jax.random.key(0), mask, 64, 5.0))
    assert not noise[mask == 0].any()
    for row, real in enumerate([50, 10, 1]):
        bound = 5 / np.sqrt(real * 64)
        values = noise[row][mask[row] > 0]
        assert bound * 0.9 < np.abs(values).max() <= bound
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.15)
    assert np.isfinite(embedding_noise(jax.random.key(0), np.zeros((1, 3), int), 4, 1.0)).all()


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_noise_is_added_to_the_token_vectors(name):
    model = load(GOLDENS / name)
    batch = instruction_batch(PAIRS[:1], max_tokens=64)
    weights = model.weights()
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(1, 9, 64)), jnp.float32)
    found = losses_of(model.config, weights, batch, noise=noise)
    # The same with a vocabulary of one token a position, each with its noise in the table.
    ids = batch.input_ids[0]
    table = weights["embeddings"]["token"]
    moved = jnp.concatenate([table, table[ids] + noise[0]])
    embeddings = {**weights["embeddings"], "token": moved}
    shifted = states_of(
        model.config, {**weights, "embeddings": embeddings}, 160 + np.arange(9)[None], batch.attention_mask
    )
    plain = states_of(model.config, weights, batch.input_ids, batch.attention_mask, noise=noise)
    np.testing.assert_allclose(shifted, plain, rtol=0, atol=2e-5)
    assert np.isfinite(found).all()


def test_rematerialisation_trades_memory_and_not_values(llama):
    batch = instruction_batch(PAIRS, max_tokens=64, multiple=64)
    weights = jax.tree.map(lambda array: jnp.concatenate([array] * 4), llama.weights()["layers"])
    config = replace(llama.config, n_layers=12, windows=(None,) * 12, query_scales=llama.config.query_scales * 4)
    deep = {**llama.weights(), "layers": weights}

    def gradient(rematerialise):
        def loss(weights):
            return response_losses(config, weights, batch, rematerialise=rematerialise).sum()

        return jax.jit(jax.value_and_grad(loss)).lower(deep).compile()

    plain, frugal = gradient(False), gradient(True)
    (loss, slope), (loss_again, slope_again) = plain(deep), frugal(deep)
    np.testing.assert_allclose(loss, loss_again, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(slope_again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * max(1e-3, np.abs(one).max()))
    assert frugal.memory_analysis().temp_size_in_bytes < 0.6 * plain.memory_analysis().temp_size_in_bytes
