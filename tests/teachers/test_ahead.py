import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.teachers import ahead
from jaxgkd.teachers.token_batches import TokenRows, batch_shapes, plan_batches


def sequences(n=60, seed=0):
    """Sequences longest first, of which the i-th is i, i + 1, …"""
    lengths = np.sort(np.random.default_rng(seed).integers(1, 30, size=n))[::-1]
    ids = np.concatenate([np.arange(i, i + length) for i, length in enumerate(lengths)]).astype(np.int32)
    return TokenRows(ids=ids, offsets=np.concatenate([[0], np.cumsum(lengths)]), rows=np.arange(n), n_truncated=0)


def plan(tokens):
    shapes = batch_shapes(tokens.lengths, max_tokens=30, batch_tokens=64, shape_tokens=30)
    return list(plan_batches(tokens.lengths, shapes, 0, len(tokens.lengths)))


sums = jax.jit(lambda ids, mask: jnp.stack([(ids * mask).sum(axis=1), mask.sum(axis=1)], axis=1))


def expected(tokens):
    first = np.arange(len(tokens.lengths))
    return np.stack([first * tokens.lengths + tokens.lengths * (tokens.lengths - 1) // 2, tokens.lengths], axis=1)


@pytest.mark.parametrize("on_mesh", [False, True])
def test_every_row_once_and_in_order(on_mesh):
    tokens = sequences()
    parts = list(ahead.computed(sums, tokens, plan(tokens), on_mesh=on_mesh))
    assert [(first, end) for first, end, _ in parts] == [(first, end) for first, end, _ in plan(tokens)]
    assert len(parts) > 8
    np.testing.assert_array_equal(np.concatenate([values for _, _, values in parts]), expected(tokens))


def test_batches_come_in_order_though_late_ones_are_quick(monkeypatch):
    monkeypatch.setattr(ahead, "available_cores", lambda: 3)
    tokens, names = sequences(), set()

    def states(ids, mask):
        names.add(threading.current_thread().name)
        # The first sequences, the longest, take longest.
        time.sleep(0.001 * ids.shape[1])
        return sums(ids, mask)

    values = np.concatenate([rows for _, _, rows in ahead.computed(states, tokens, plan(tokens), on_mesh=False)])
    np.testing.assert_array_equal(values, expected(tokens))
    assert len(names) == 3


def test_a_batch_that_fails_ends_the_run_with_its_own_error():
    tokens = sequences()

    def states(ids, mask):
        if ids[0, 0] == plan(tokens)[5][0]:
            raise FloatingPointError("the sixth")
        return sums(ids, mask)

    done = []
    with pytest.raises(FloatingPointError, match="the sixth"):
        done.extend(ahead.computed(states, tokens, plan(tokens), on_mesh=False))
    assert [first for first, _, _ in done] == [first for first, _, _ in plan(tokens)[: len(done)]] and len(done) <= 5


def test_whoever_stops_early_leaves_few_batches_under_way(monkeypatch):
    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    tokens, asked = sequences(), []

    def states(ids, mask):
        asked.append(int(ids[0, 0]))
        return sums(ids, mask)

    parts = ahead.computed(states, tokens, plan(tokens), on_mesh=False)
    next(parts)
    parts.close()
    # One was yielded; two threads and two batches ahead of them may have been asked as well.
    assert len(asked) <= 6 < len(plan(tokens))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
