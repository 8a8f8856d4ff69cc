import os
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgkd.errors import CheckpointError
from jaxgkd.training import termination
from jaxgkd.training.batch_loop import BatchProblem, fit_batches
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.execution import Execution, executing
from jaxgkd.training.loop import Problem, fit
from jaxgkd.training.stream_loop import StreamProblem, fit_stream
from jaxgkd.training.underway import discard, fingerprint, keeping, underway

KEYS = jax.random.split(jax.random.key(3), 3)
TARGETS = jnp.array([1.0, -2.0, 0.5])
BATCHES = [np.random.default_rng(i).normal(size=(4, 2)).astype(np.float32) for i in range(3)]


class Killed(BaseException):
    """As if the process had ended here."""


def killing(epoch):
    def on_progress(done, score):
        if done >= epoch:
            raise Killed

    return on_progress


def noisy(params, key, target, x):
    return jnp.mean((x @ params["w"] - target + 0.1 * jax.random.normal(key, x.shape[:1])) ** 2)


def start(key):
    return {"w": jax.random.normal(key, (2,))}


def whole_loss(params, rest, key, progress, run, shared):
    logs = {"loss/progress": progress}
    return noisy(params, key, run["target"], shared), ({"steps": rest["steps"] + 1}, logs)


# Made once: a program is compiled once for each.
WHOLE = Problem(
    init=lambda key, run: (start(key), {"steps": jnp.int32(0)}),
    loss=whole_loss,
    evaluate=lambda params, rest, run, shared: {"valid": -jnp.mean((shared @ params["w"] - run["target"]) ** 2)},
    optimizer=lambda run: optax.adam(0.05),
)
ON_BATCHES = BatchProblem(
    init=start,
    loss=lambda params, key, settings, batch, shared: (
        noisy(params, key, settings["target"], batch),
        {"loss/size": jnp.sum(params["w"] ** 2)},
    ),
    outputs=lambda params, batch: batch @ params["w"],
    optimizer=lambda settings, progress: optax.adam(0.05 * (1 - progress)),
)
ON_STREAM = StreamProblem(
    init=WHOLE.init,
    loss=lambda params, rest, key, run, batch: whole_loss(params, rest, key, 0.0, run, batch),
    optimizer=WHOLE.optimizer,
)


def fit_whole(on_progress=None, targets=TARGETS):
    settings = {"epochs": 16, "evaluate_every": 2, "patience": 14}
    return fit(WHOLE, KEYS, {"target": targets}, BATCHES[0], on_progress=on_progress, **settings)


def order(epoch):
    return (BATCHES[i] for i in np.random.default_rng(epoch).permutation(3))


def sizes(params, rest=None):
    return np.asarray(jnp.sum(params["w"] ** 2, axis=1))


def fit_on_batches(on_progress=None):
    return fit_batches(
        ON_BATCHES, KEYS, {"target": TARGETS}, order, n_batch=3, epochs=8, score=sizes, on_progress=on_progress
    )


def fit_on_stream(on_progress=None):
    settings = {"epochs": 8, "evaluate_every": 2, "patience": 6}
    score = lambda *state: {"valid": -sizes(*state)}  # noqa: E731
    return fit_stream(ON_STREAM, KEYS, {"target": TARGETS}, order, score, on_progress=on_progress, **settings)


def same(one, other):
    names = ("params", "rest", "best_epoch", "curves")
    for a, b in zip(*(jax.tree.leaves([getattr(x, n, None) for n in names]) for x in (one, other)), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def positions(folder: Path) -> list[int]:
    return sorted(int(each.name) for each in folder.glob("*/*") if each.name.isdigit())


@pytest.mark.parametrize("train", [fit_whole, fit_on_batches, fit_on_stream])
def test_a_killed_training_goes_on_to_the_same_bits(train, tmp_path):
    undisturbed = train()
    reported = []
    for epoch in (4, 8):
        with pytest.raises(Killed), keeping(tmp_path / "kept", 0.0):
            train(killing(epoch))
        assert 1 <= len(positions(tmp_path / "kept")) <= 2
    with keeping(tmp_path / "kept", 0.0):
        same(train(lambda epoch, score: reported.append(epoch)), undisturbed)
    # It went on from the last stretch that was kept, not from the beginning.
    assert min(reported) >= 6
    # A training that is over is not done again while its stage lasts.
    again = []
    with keeping(tmp_path / "kept", 0.0):
        same(train(lambda epoch, score: again.append(epoch)), undisturbed)
    assert len(again) <= 1
    discard(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_batch_in_the_middle_of_an_epoch_is_gone_on_from(tmp_path, monkeypatch):
    undisturbed, reached = fit_on_batches(), 0

    def leave():
        nonlocal reached
        reached += 1
        if reached == 11:
            raise Killed
        return False

    monkeypatch.setattr("jaxgkd.training.underway.asked_to_leave", leave)
    with pytest.raises(Killed), keeping(tmp_path, 0.0):
        fit_on_batches()
    # One call at the beginning, one a batch and one an epoch: the last state is of the third epoch's first batch.
    assert positions(tmp_path)[-1] == 9
    with keeping(tmp_path, 0.0):
        same(fit_on_batches(), undisturbed)


def test_how_often_is_kept_changes_nothing(tmp_path):
    with keeping(tmp_path / "often", 0.0):
        often = fit_whole()
    with keeping(tmp_path / "never", 1e9):
        never = fit_whole()
    same(often, never)
    # The end alone, if at all: where a training was short, that is not kept either.
    assert len(positions(tmp_path / "often")) == 2 and set(positions(tmp_path / "never")) <= {9}


def test_what_was_given_something_else_starts_anew(tmp_path):
    with pytest.raises(Killed), keeping(tmp_path, 0.0):
        fit_whole(killing(8))
    epochs = []
    with keeping(tmp_path, 0.0):
        same(fit_whole(lambda epoch, score: epochs.append(epoch), TARGETS + 1), fit_whole(targets=TARGETS + 1))
    assert epochs[0] == 2


@pytest.mark.parametrize("train", [fit_whole, fit_on_batches, fit_on_stream])
def test_a_training_that_was_broken_off_may_go_on_leaving_steps_out(train, tmp_path):
    with pytest.raises(Killed), keeping(tmp_path, 0.0):
        train(killing(3))
    with keeping(tmp_path, 0.0), executing(Execution(on_nan="skip")):
        found = train()
    assert not found.curves["skipped"][np.isfinite(found.curves["train_loss"])].any()
    plain = train()
    # Another program, whose last bits may differ.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found.params, plain.params)


def test_parts_in_threads_are_kept_together(tmp_path):
    problem = Problem(
        init=lambda key, run: (start(key), {}),
        loss=lambda params, rest, key, progress, run, shared: (noisy(params, key, 0.5, shared), (rest, {})),
        evaluate=lambda params, rest, run, shared: {"valid": -jnp.sum(params["w"] ** 2)},
        optimizer=lambda run: optax.sgd(run),
    )
    keys, rates = jax.random.split(jax.random.key(0), 7), jnp.linspace(0.01, 0.1, 7)

    def train(on_progress=None):
        return fit(problem, keys, rates, BATCHES[0], epochs=6, on_progress=on_progress)

    undisturbed, epochs = train(), []
    with pytest.raises(Killed), keeping(tmp_path, 0.0):
        train(killing(3))
    with keeping(tmp_path, 0.0):
        same(train(lambda epoch, score: epochs.append(epoch)), undisturbed)
    assert epochs[0] == 3


def test_damage_is_found_and_named(tmp_path):
    with pytest.raises(Killed), keeping(tmp_path, 0.0):
        fit_whole(killing(8))
    newest = max(tmp_path.glob("*/0*"))
    file = max((each for each in newest.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with (
        pytest.raises(CheckpointError, match=f"{newest.name}: .*damaged in .*delete this folder"),
        keeping(tmp_path, 0.0),
    ):
        fit_whole()
    # The one before it is still there.
    for each in sorted(newest.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    newest.rmdir()
    with keeping(tmp_path, 0.0):
        same(fit_whole(), fit_whole())


def test_a_loss_that_is_no_number_leaves_its_state_behind(tmp_path):
    with (
        pytest.raises(
            FloatingPointError, match=r"run 1 is not finite at epoch 1 \(the state is kept in (.*)\)"
        ) as error,
        keeping(tmp_path, 1e9),
    ):
        fit_whole(targets=TARGETS.at[1].set(jnp.nan))
    folder = Path(str(error.value).split("kept in ")[1].rstrip(")"))
    assert folder.parent.parent == tmp_path and "progress" in load_tree(folder)


def test_random_keys_and_half_precision_come_back(tmp_path):
    given = {
        "key": jax.random.key(5),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "none": {},
        "count": 7,
        "empty": np.zeros((0, 3)),
    }
    with keeping(tmp_path, 0.0), underway("a") as training:
        assert training.kept() is None
        training.reached(1, lambda: {"state": given, "empty": {}})
    with keeping(tmp_path, 0.0), underway("a") as training:
        found = training.kept()
        back = found.like("state", given)
    assert found.position == 1 and found.arrays("empty") == {} and back["count"] == 7
    assert jax.random.normal(back["key"]) == jax.random.normal(given["key"])
    assert back["half"].dtype == jnp.bfloat16 and back["empty"].shape == (0, 3)
    np.testing.assert_array_equal(back["half"], given["half"])


def test_a_second_process_keeps_nothing_where_a_first_does(tmp_path):
    with keeping(tmp_path, 0.0), keeping(tmp_path, 0.0), underway("a") as training:
        training.reached(1, lambda: {"state": jnp.ones(2)})
    assert not positions(tmp_path)


def test_fingerprints_tell_values_and_names_apart():
    one = {"a": jnp.ones(2), "b": "word"}
    others = [{"a": jnp.zeros(2), "b": "word"}, {"a": jnp.ones(2), "c": "word"}, {"a": jnp.ones(2), "b": "work"}]
    others += [{"a": jnp.ones((2, 1)), "b": "word"}, {"a": jax.random.key(0), "b": "word"}]
    assert len({fingerprint(each) for each in [one, *others]}) == 6
    assert fingerprint(one) == fingerprint({"a": lambda: np.ones(2, np.float32), "b": "word"})


@pytest.fixture
def heeding():
    before = signal.getsignal(signal.SIGTERM)
    termination.heed_sigterm()
    yield
    signal.signal(signal.SIGTERM, before)
    termination._asked.clear()


def test_sigterm_lets_the_stretch_end_and_keeps_it(tmp_path, heeding):
    undisturbed = fit_whole()

    def ask(epoch, score):
        if epoch >= 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(termination.Terminated), keeping(tmp_path, 1e9):
        fit_whole(ask)
    assert len(positions(tmp_path)) == 1
    termination._asked.clear()
    epochs = []
    with keeping(tmp_path, 1e9):
        same(fit_whole(lambda epoch, score: epochs.append(epoch)), undisturbed)
    assert epochs[0] > 8


def test_sigterm_ends_at_once_where_nothing_is_underway(heeding):
    with pytest.raises(termination.Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)


def test_a_second_signal_does_not_wait(heeding):
    with pytest.raises(termination.Terminated), termination.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.asked_to_leave()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)
