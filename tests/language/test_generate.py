from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import load
from jaxgkd.language.generate import Sampling, generate, pick

GOLDENS = Path(__file__).parent / "goldens"
NEW = 9


def read(family):
    with np.load(GOLDENS / family / "expected.npz") as expected:
        return load(GOLDENS / family), expected["input_ids"], expected["mask_right"], expected["mask_left"]


def without_cache(model, ids, mask, n=NEW):
    """The whole text anew for every token."""
    lengths = mask.sum(1)
    texts = np.zeros((4, 24 + n), np.int64)
    for row in range(4):
        texts[row, : lengths[row]] = ids[row, mask[row] > 0]
    for step in range(n):
        logits = model.logits(texts, (np.arange(24 + n) < (lengths + step)[:, None]).astype(np.int64))
        texts[np.arange(4), lengths + step] = np.argmax(logits[np.arange(4), lengths + step - 1], axis=-1)
    return np.stack([texts[row, lengths[row] : lengths[row] + n] for row in range(4)])


@pytest.mark.parametrize("family", ["gemma2", "qwen3", "gpt2", "biogpt"])
def test_greedy_decoding_is_that_without_cache(family):
    model, ids, right, left = read(family)
    tokens, mask = generate(model, ids, right, max_new_tokens=NEW)
    np.testing.assert_array_equal(tokens, without_cache(model, ids, right))
    np.testing.assert_array_equal(mask, 1)
    to_the_end = (np.arange(24) - (24 - right.sum(1)[:, None])) % 24
    moved = generate(model, np.take_along_axis(ids, to_the_end, 1), left, max_new_tokens=NEW)
    np.testing.assert_array_equal(moved.tokens, tokens)


@pytest.fixture(scope="module")
def gpt2():
    return read("gpt2")


def test_rows_end_with_a_stop_token(gpt2):
    model, ids, mask, _ = gpt2
    free = np.asarray(generate(model, ids, mask, max_new_tokens=NEW).tokens)
    stops = (int(free[0, 2]), int(free[2, 4]))
    tokens, kept = generate(model, ids, mask, max_new_tokens=NEW, stop_tokens=stops)
    for row in range(4):
        places = np.flatnonzero(np.isin(free[row], stops))
        end = places[0] + 1 if len(places) else NEW
        np.testing.assert_array_equal(kept[row], np.arange(NEW) < end)
        np.testing.assert_array_equal(tokens[row, :end], free[row, :end])
        assert (np.asarray(tokens[row, end:]) == tokens[row, end - 1]).all()
    assert np.asarray(kept)[0].sum() <= 3


def test_all_rows_may_end_at_once(gpt2):
    model, ids, mask, _ = gpt2
    free = np.asarray(generate(model, ids, mask, max_new_tokens=NEW).tokens)
    tokens, kept = generate(model, ids, mask, max_new_tokens=NEW, stop_tokens=tuple(set(free[:, 0].tolist())))
    np.testing.assert_array_equal(kept, (np.arange(NEW) == 0) & np.ones((4, 1), bool))
    np.testing.assert_array_equal(tokens, np.repeat(free[:, :1], NEW, axis=1))


def test_one_token_needs_no_loop(gpt2):
    model, ids, mask, _ = gpt2
    logits = np.asarray(model.logits(ids, mask))
    expected = [logits[row, count - 1].argmax() for row, count in enumerate(mask.sum(1))]
    np.testing.assert_array_equal(generate(model, ids, mask, max_new_tokens=1).tokens[:, 0], expected)


def test_drawing_depends_on_the_seed_and_on_nothing_else(gpt2):
    model, ids, mask, _ = gpt2
    draw = lambda seed: generate(model, ids, mask, max_new_tokens=NEW, sampling=Sampling(), seed=seed).tokens  # noqa: E731
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (np.asarray(draw(1)) != np.asarray(draw(2))).mean() > 0.5
    greedy = generate(model, ids, mask, max_new_tokens=NEW).tokens
    only_one = generate(model, ids, mask, max_new_tokens=NEW, sampling=Sampling(top_k=1), seed=3).tokens
    np.testing.assert_array_equal(only_one, greedy)


PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
DRAWS = 20000


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), PROBABILITIES),
        (Sampling(temperature=0.5), PROBABILITIES**2 / (PROBABILITIES**2).sum()),
        (Sampling(top_k=2), np.array([2, 1, 0, 0, 0]) / 3),
        (Sampling(top_k=99), PROBABILITIES),
        (Sampling(top_p=0.5), np.array([1.0, 0, 0, 0, 0])),
        (Sampling(top_p=0.76), np.array([0.5, 0.25, 0.15, 0, 0]) / 0.9),
        (Sampling(top_p=1.0), PROBABILITIES),
        (Sampling(top_p=1e-6), np.array([1.0, 0, 0, 0, 0])),
        (Sampling(top_k=3, top_p=0.6), np.array([2, 1, 0, 0, 0]) / 3),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(sampling, expected):
    shuffle = np.array([3, 0, 4, 1, 2])
    logits = jnp.broadcast_to(jnp.log(PROBABILITIES[shuffle]) + 7.0, (DRAWS, 5))
    drawn = np.asarray(pick(logits, sampling, jax.random.key(0)))
    frequency = np.bincount(shuffle[drawn], minlength=5) / DRAWS
    assert (frequency[expected == 0] == 0).all()
    np.testing.assert_allclose(frequency, expected, atol=5 * np.sqrt(0.25 / DRAWS))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_samplings_out_of_range_are_refused(settings, field):
    with pytest.raises(ConfigError) as caught:
        Sampling(**settings)
    assert caught.value.field == field


def test_misuse_is_refused(gpt2):
    model, ids, mask, _ = gpt2
    with pytest.raises(ConfigError, match="max_new_tokens"):
        generate(model, ids, mask, max_new_tokens=0)
    with pytest.raises(ConfigError, match="token 160 is outside"):
        generate(model, ids, mask, max_new_tokens=2, stop_tokens=(160,))
    with pytest.raises(ConfigError, match="24 tokens and 41 more do not fit into the model's 64"):
        generate(model, ids, mask, max_new_tokens=41)
    with pytest.raises(DataError, match="prompt number 0 is empty"):
        generate(model, ids, mask * 0, max_new_tokens=2)
