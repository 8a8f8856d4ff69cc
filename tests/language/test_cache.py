from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import load
from jaxgkd.language.cache import check_prompts, extend, prefill, store, to_the_front

GOLDENS = Path(__file__).parent / "goldens"
LIMITS = {"vocabulary_size": 160, "max_tokens": 30}


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_a_text_in_three_pieces_is_one_text(family):
    model = load(GOLDENS / family)
    config, weights = model.config, model.weights()
    with np.load(GOLDENS / family / "expected.npz") as expected:
        ids, mask, hidden = expected["input_ids"], expected["mask_right"], expected["hidden_right"][-1]

    # Rows of 14, 9, 6 and 3 tokens are run first, then three more of each, then the 7 of the longest row.
    rows = jnp.arange(4)
    lengths = jnp.array([14, 9, 6, 3])
    texts = jnp.asarray(np.where(mask > 0, ids, 5))

    @jax.jit
    def run(weights):
        states, cache = prefill(config, weights, texts[:, :14], jnp.arange(14) < lengths[:, None], 10)
        position = lengths[:, None] + jnp.arange(3)
        read = texts[rows[:, None], position]
        more, new = extend(config, weights, cache, read, position, jnp.ones((4, 3), bool))
        cache = store(cache, new, position, 14)
        position = jnp.broadcast_to(jnp.arange(17, 24), (4, 7))
        last, _ = extend(config, weights, cache, texts[:, 17:], position, jnp.ones((4, 7), bool))
        return states, more, last

    states, more, last = run(weights)
    for row, length in enumerate((14, 9, 6, 3)):
        np.testing.assert_allclose(states[row], hidden[row, length - 1], atol=1e-5)
        real = min(3, mask[row].sum() - length)
        np.testing.assert_allclose(more[row, :real], hidden[row, length : length + real], atol=1e-5)
    np.testing.assert_allclose(last[0], hidden[0, 17:], atol=1e-5)


def test_real_tokens_move_to_the_front_in_their_order():
    ids = jnp.array([[9, 9, 1, 2], [3, 4, 9, 9], [5, 9, 6, 7]])
    mask = jnp.array([[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]])
    moved, seen = to_the_front(ids, mask)
    np.testing.assert_array_equal(seen, [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    np.testing.assert_array_equal(moved[np.asarray(seen)], [1, 2, 3, 4, 5, 6, 7])


def test_prompts_that_cannot_be_continued_are_refused():
    ids, mask = np.ones((3, 20), int), np.ones((3, 20), int)
    check_prompts(ids, mask, new_tokens=10, **LIMITS)
    with pytest.raises(ConfigError, match=r"20 tokens and 11 more do not fit into the model's 30; truncate .* to 19"):
        check_prompts(ids, mask, new_tokens=11, **LIMITS)
    mask[:, 15:] = 0
    check_prompts(ids, mask, new_tokens=15, **LIMITS)
    mask[1] = 0
    with pytest.raises(DataError, match="prompt number 1 is empty"):
        check_prompts(ids, mask, new_tokens=1, **LIMITS)
    with pytest.raises(DataError, match="vocabulary of 160"):
        check_prompts(ids + 159, mask, new_tokens=1, **LIMITS)
