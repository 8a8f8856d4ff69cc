"""The students of BLEG: all rows, settings and folds of a repeat train side by side.

They differ in numbers alone: which subjects they read, what the teacher says of them and how much that counts (nothing,
for the student alone), the size of the steps. So a whole repeat is one compiled program.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.data.splits import Split
from jaxgkd.nn.brain_inputs import BrainInputs
from jaxgkd.nn.brain_problem import Said, TaughtBrain, contrast_problem, make_batches, say, taught_brain_problem
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.bleg_teacher import Taught
from jaxgkd.training.by_value import jitted
from jaxgkd.training.checkpoint import leaves_by_name
from jaxgkd.training.loop import Fit, Problem, fit
from jaxgkd.training.parts import MOST_TOGETHER
from jaxgkd.training.search import ranked
from jaxgkd.training.timing import median_milliseconds

#: Passes over the subjects between validations.
EVALUATE_EVERY = 2
Progress = Callable[[int, float], None]


class Lesson(NamedTuple):
    """One fold.

    Fields:
      split: of the subjects; trained: rows of all training subjects.
      taught: by the teacher; seed, fold: its numbers.
      shrinkage: of the fold's connectivity, where it has one.
      vectors: [n, m] what students read that the folds do not share, or None.
    """

    split: Split
    trained: np.ndarray
    taught: Taught
    seed: int
    fold: int
    shrinkage: float | None = None
    vectors: np.ndarray | None = None


class Course(NamedTuple):
    """What all students have in common.

    Fields:
      make: a student from a key.
      batch: subjects of a step; passes: over a fold's training subjects.
      text_passes: of the contrastive stage, 0 for none.
    """

    make: Callable[[Array], TaughtBrain]
    batch: int
    passes: int
    text_passes: int


def study(
    course: Course,
    lessons: Sequence[Lesson],
    tries: Mapping[str, Sequence[Mapping[str, float]]],
    inputs: BrainInputs | None,
    labels: np.ndarray,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Train all tries of all rows in all lessons, and keep one a row and lesson: that which validates best there.

    Args:
      course: of all students.
      lessons: f of them, about the same n subjects.
      tries: row → t settings, as many for every row; the first row has no teacher.
      inputs: of the subjects, None where every lesson has its vectors.
      labels: [n] 0 or 1, anything where they are not used.
      on_progress: called with the passes done and the mean validation score.

    Returns:
      ``probabilities`` [rows, f, n] of group 1, ``chosen`` [rows, f], ``valid`` [rows, f, t], ``best_epoch``
      [rows, f] in passes, ``curves`` name → [rows, f, evaluations], ``epochs`` [evaluations], ``weights`` row → name →
      [f, …], ``embedding`` [n, d] of the last row in the first lesson, and ``seconds``.
    """
    begun = time.perf_counter()
    f, n_row, n = len(lessons), len(tries), len(labels)
    n_try = len(next(iter(tries.values())))
    run_data, keys = _lesson_data(lessons, n)
    batches = make_batches(
        [lesson.trained for lesson in lessons], course.batch, _rounded(course.passes), lessons[0].seed
    )
    run_data["batches"] = jnp.asarray(batches)
    steps = batches.shape[1] // _rounded(course.passes)
    shared: dict[str, Any] = {"labels": jnp.asarray(np.clip(labels, 0, 1), jnp.int32)}
    if inputs is not None:
        shared["inputs"] = inputs
    starts = None
    if course.text_passes:
        starts = _read_texts(course, lessons, run_data, keys, shared, next(iter(tries.values()))[0])
    settings = [each for row in tries.values() for each in row for _ in range(f)]
    which = np.tile(np.arange(f), n_row * n_try)
    of_runs = jax.tree.map(lambda leaf: leaf[which], run_data)
    of_runs["settings"] = {name: jnp.asarray([each[name] for each in settings], jnp.float32) for name in settings[0]}
    if starts is not None:
        # Whoever has no teacher has read no text either: the rows after the first start from what that left.
        index = np.where(np.arange(len(which)) < n_try * f, which, which + f)
        of_runs["start"] = jax.tree.map(lambda leaf: leaf[index], starts)
    problem = taught_brain_problem(course.make, batches.shape[1])
    report = None if on_progress is None else lambda step, score: on_progress(step // steps, score)
    found = _fitted(problem, keys[which], of_runs, shared, steps, report)
    params, rest, curves, best = found.params, found.rest, found.curves, found.best_epoch
    valid = np.nanmax(curves["valid"], axis=1).reshape(n_row, n_try, f)
    chosen = np.array([[ranked(valid[row, :, [i]].T)[0] for i in range(f)] for row in range(n_row)])
    run = (np.arange(n_row)[:, None] * n_try + chosen) * f + np.arange(f)
    params, rest = jax.tree.map(lambda leaf: leaf[run.reshape(-1)], (params, rest))
    forward = _forward(course.make)
    said = [
        jax.tree.map(
            np.asarray,
            forward(*jax.tree.map(lambda leaf, i=i: leaf[i], (params, rest)), inputs_of(lessons[i % f], inputs)),
        )
        for i in range(n_row * f)
    ]
    logits = np.stack([one.logits for one in said]).astype(np.float64).reshape(n_row, f, n, -1)
    by_row = {
        name: leaves_by_name(jax.tree.map(lambda leaf, i=i: leaf[i * f : (i + 1) * f], (params, rest)))
        for i, name in enumerate(tries)
    }
    return {
        "probabilities": (1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))).astype(np.float32),
        "chosen": chosen,
        "valid": valid.swapaxes(1, 2),
        "best_epoch": best[run] // steps,
        "curves": {name: values[run] for name, values in curves.items()},
        "epochs": found.epochs // steps,
        "weights": by_row,
        "embedding": said[(n_row - 1) * f].pooled,
        "seconds": np.float64(time.perf_counter() - begun),
    }


def inputs_of(lesson: Lesson, inputs: BrainInputs | None) -> BrainInputs:
    """What students read in a lesson: its vectors, or the inputs that all lessons share."""
    if lesson.vectors is not None:
        return BrainInputs(jnp.asarray(lesson.vectors))
    assert inputs is not None
    return inputs


def student_milliseconds(course: Course, inputs: BrainInputs) -> float:
    """A subject takes in a student, the median of ten passes over all after a first one."""
    _, params, rest = nnx.split(course.make(jax.random.key(0)), nnx.Param, ...)
    forward = _forward(course.make)
    return median_milliseconds(lambda: forward(params, rest, inputs)) / len(inputs.rows)


def _forward(make: Callable[[Array], TaughtBrain]) -> Callable[..., Said]:
    return jitted(partial(say, graphdef_of(make)))


def _lesson_data(lessons: Sequence[Lesson], n: int) -> tuple[dict[str, Any], Array]:
    def masks(rows_of: Callable[[Lesson], np.ndarray]) -> Array:
        return jnp.asarray(np.stack([np.isin(np.arange(n), rows_of(lesson)) for lesson in lessons]))

    most = max(len(lesson.split.valid) for lesson in lessons)
    # What fills up repeats a subject, and does not count.
    fill = np.minimum(np.arange(most), np.array([[len(lesson.split.valid) - 1] for lesson in lessons]))
    run_data: dict[str, Any] = {
        "labelled": masks(lambda lesson: lesson.split.train),
        "valid": jnp.asarray(np.stack([lesson.split.valid[row] for lesson, row in zip(lessons, fill, strict=True)])),
        "valid_counts": jnp.asarray(fill == np.arange(most)),
        "states": jnp.asarray(np.stack([lesson.taught.states for lesson in lessons])),
        "answers": jnp.asarray(np.stack([lesson.taught.answers for lesson in lessons])),
    }
    if vectors := [lesson.vectors for lesson in lessons if lesson.vectors is not None]:
        run_data["inputs"] = BrainInputs(jnp.asarray(np.stack(vectors)))
    keys = [jax.random.fold_in(jax.random.key(lesson.seed), lesson.fold) for lesson in lessons]
    return run_data, jnp.stack(keys)


def _read_texts(course, lessons, run_data, keys, shared, settings):
    """(params, rest) with 2 f runs first: f untouched students, and the same after the contrastive stage."""
    f, passes = keys.shape[0], _rounded(course.text_passes)
    batches = make_batches([lesson.trained for lesson in lessons], course.batch, passes, lessons[0].seed + 1)
    data = run_data | {"settings": {name: jnp.full(f, value, jnp.float32) for name, value in settings.items()}}
    data["batches"] = jnp.asarray(batches)
    data["start"] = jax.vmap(lambda key: nnx.split(course.make(key), nnx.Param, ...)[1:])(keys)
    problem = contrast_problem(course.make, batches.shape[1])
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    read = _fitted(problem, keys, data, shared, batches.shape[1] // passes, None)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), data["start"], (read.params, read.rest))


def _fitted(problem: Problem, keys: Array, run_data: Any, shared: Any, steps: int, report: Progress | None) -> Fit:
    # Networks of regions make products as large as a CPU likes; vectors of subjects are small enough to share one.
    together = 1 if "inputs" in shared and shared["inputs"].rows.ndim == 3 else MOST_TOGETHER
    n_step = run_data["batches"].shape[1]
    every = EVALUATE_EVERY * steps
    return fit(
        problem, keys, run_data, shared, epochs=n_step, evaluate_every=every, on_progress=report, together=together
    )


def _rounded(passes: int) -> int:
    return -(-passes // EVALUATE_EVERY) * EVALUATE_EVERY
