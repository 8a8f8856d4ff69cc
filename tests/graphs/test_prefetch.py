import gc
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.graphs.batching import Batches, ManyGraphs, Position, Step
from jaxgkd.graphs.prefetch import Prefetch, prefetch


@pytest.fixture
def batches():
    random = np.random.default_rng(0)
    graphs = [
        {
            "nodes": random.random((i % 3 + 1, 2), np.float32),
            "senders": np.zeros(i % 2, int),
            "receivers": np.zeros(i % 2, int),
        }
        for i in range(20)
    ]
    return Batches(ManyGraphs.from_list(graphs), 4)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "jaxgkd-prefetch"]


def gone():
    """Whether no thread is left, after at most two seconds."""
    for _ in range(200):
        if not threads():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("device", [None, "named"])
def test_the_same_steps_in_the_same_order(batches, size, device):
    plain = list(batches.stream(epochs=3))
    fetched = list(prefetch(batches.stream(epochs=3), size=size, device=device and jax.devices()[0]))
    assert [step.position for step in fetched] == [step.position for step in plain]
    for one, other in zip(plain, fetched, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.batch, other.batch)
    assert gone()


def test_a_device_can_be_named(batches):
    device = jax.devices()[0]
    step = next(prefetch(batches.stream(), device=device))
    assert all(leaf.committed and leaf.devices() == {device} for leaf in jax.tree.leaves(step.batch))


def test_batches_stay_in_memory_on_a_cpu_only(batches, monkeypatch):
    kinds = lambda: {type(leaf) for leaf in jax.tree.leaves(next(prefetch(batches.stream())).batch)}  # noqa: E731
    assert jax.default_backend() != "cpu" or kinds() == {np.ndarray}
    monkeypatch.setattr(jax, "default_backend", lambda: "an accelerator")
    assert kinds() == {type(jnp.ones(1))}


def test_work_is_done_ahead_but_no_further_than_asked(batches):
    made = []

    def steps():
        for step in batches.stream():
            made.append(step.position)
            yield step

    with prefetch(steps(), size=2) as ready:
        next(ready)
        for _ in range(100):
            if len(made) == 4:
                break
            time.sleep(0.01)
        time.sleep(0.1)
        # One was used, two are ready and one waits for room.
        assert len(made) == 4
    assert gone()


def test_errors_are_raised_where_the_batches_are_used(batches):
    def steps():
        yield from batches.stream(epochs=1)
        raise RuntimeError("in the thread")

    ready = prefetch(steps())
    seen = 0
    with pytest.raises(RuntimeError, match="in the thread"):
        for _ in ready:
            seen += 1
    assert seen == batches.n_batch() and gone()
    with pytest.raises(StopIteration):
        next(ready)


def test_leaving_early_stops_the_thread(batches):
    with prefetch(batches.stream()) as ready:
        assert isinstance(next(ready), Step) and len(threads()) == 1
    assert gone()
    with pytest.raises(StopIteration):
        next(ready)
    ready.close()
    with pytest.raises(ZeroDivisionError), prefetch(batches.stream()):
        1 / 0  # noqa: B018
    assert gone()


def test_an_iterator_that_nobody_holds_stops(batches):
    assert next(iter(prefetch(batches.stream()))).position == Position(0, 1)
    gc.collect()
    assert gone()


def test_sizes_below_one_are_refused(batches):
    with pytest.raises(ValueError, match="0 batches"):
        Prefetch(batches.stream(), size=0)
