from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import load, scoring
from jaxgkd.language.scoring import score_candidates, target_log_probabilities

GOLDENS = Path(__file__).parent / "goldens"
LENGTHS = [3, 1, 5, 2, 5, 1, 4]


def read(family):
    with np.load(GOLDENS / family / "expected.npz") as expected:
        return load(GOLDENS / family), expected["input_ids"], expected["mask_right"], expected["mask_left"]


def make_candidates():
    random = np.random.default_rng(0)
    return [random.integers(0, 160, size=length) for length in LENGTHS]


def brute_force(model, ids, mask, candidates):
    """Every prompt with every candidate behind it, as one text each."""
    texts, lengths, pairs = np.zeros((28, 29), np.int64), [], []
    for row in range(4):
        for candidate in candidates:
            text = np.concatenate([ids[row, mask[row] > 0], candidate])
            texts[len(pairs), : len(text)] = text
            lengths.append(len(text))
            pairs.append((mask[row].sum(), candidate))
    logits = model.logits(texts, (np.arange(29) < np.array(lengths)[:, None]).astype(np.int64))
    log_probabilities = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)
    scores = [
        sum(log_probabilities[pair, start + i - 1, token] for i, token in enumerate(candidate))
        for pair, (start, candidate) in enumerate(pairs)
    ]
    return np.array(scores).reshape(4, len(candidates))


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "biogpt"])
def test_scores_are_those_of_every_pair_alone(family):
    model, ids, right, left = read(family)
    candidates = make_candidates()
    expected = brute_force(model, ids, right, candidates)
    scores = score_candidates(model, ids, right, candidates)
    assert scores.shape == (4, 7)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=2e-5)
    to_the_end = (np.arange(24) - (24 - right.sum(1)[:, None])) % 24
    moved = score_candidates(model, np.take_along_axis(ids, to_the_end, 1), left, candidates)
    np.testing.assert_array_equal(moved, scores)


@pytest.fixture(scope="module")
def gpt2():
    return read("gpt2")


def test_lengths_may_be_divided_out(gpt2):
    model, ids, mask, _ = gpt2
    candidates = make_candidates()
    whole = score_candidates(model, ids, mask, candidates)
    per_token = score_candidates(model, ids, mask, candidates, per_token=True)
    np.testing.assert_allclose(per_token, np.asarray(whole) / LENGTHS, rtol=1e-6)


def test_many_candidates_are_scored_in_groups(gpt2, monkeypatch):
    model, ids, mask, _ = gpt2
    together = score_candidates(model, ids, mask, make_candidates())
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 9)
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 5)
    scoring._score.clear_cache()
    np.testing.assert_allclose(score_candidates(model, ids, mask, make_candidates()), together, rtol=1e-5, atol=1e-5)
    scoring._score.clear_cache()


def test_single_tokens_are_a_row_of_the_softmax(gpt2):
    model, ids, mask, _ = gpt2
    scores = score_candidates(model, ids, mask, [[token] for token in range(160)])
    logits = np.asarray(model.logits(ids, mask))
    expected = jax.nn.log_softmax(np.stack([logits[row, count - 1] for row, count in enumerate(mask.sum(1))]))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, rtol=1e-5)


def test_log_probabilities_of_targets(gpt2, monkeypatch):
    model, ids, mask, _ = gpt2
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 7)
    states = np.asarray(model.hidden_states(ids, mask))[-1, 0]
    found = target_log_probabilities(model.config, model.weights(), states, ids[0])
    expected = jax.nn.log_softmax(model.logits(ids, mask)[0])[np.arange(24), ids[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_misuse_is_refused(gpt2):
    model, ids, mask, _ = gpt2
    for candidates, message in [
        ([], "no candidates"),
        ([[1], []], "candidate number 1 is no list"),
        ([[1.5]], "candidate number 0 is no list"),
        ([[[1]]], "candidate number 0 is no list"),
        ([[1], [160]], "candidate number 1 has a token id outside"),
    ]:
        with pytest.raises(DataError, match=message):
            score_candidates(model, ids, mask, candidates)
    with pytest.raises(ConfigError, match="24 tokens and 41 more do not fit"):
        score_candidates(model, ids, mask, [[1] * 41])
    with pytest.raises(DataError, match="prompt number 0 is empty"):
        score_candidates(model, ids, mask * 0, [[1]])
