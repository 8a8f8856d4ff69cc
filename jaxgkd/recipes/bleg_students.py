"""The students of BLEG: all rows, settings and folds of a repeat train side by side on the same batches.

They differ in numbers alone: which subjects weigh in the loss, what the teacher says of them and how much that counts
(nothing, for the student alone), the size of the steps. So a whole repeat is one compiled program, run for a few
students at a time on a CPU, whose caches hold no more.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.data.splits import Split
from jaxgkd.nn.brain_inputs import BrainInputs
from jaxgkd.nn.brain_problem import Said, TaughtBrain, contrast_problem, make_batches, say, taught_brain_problem
from jaxgkd.nn.node_problem import graphdef_of
from jaxgkd.recipes.bleg_teacher import Taught
from jaxgkd.training.checkpoint import leaves_by_name
from jaxgkd.training.execution import execution
from jaxgkd.training.loop import Problem, fit
from jaxgkd.training.search import ranked
from jaxgkd.training.timing import median_milliseconds

#: Passes over the subjects between validations.
EVALUATE_EVERY = 2
_TOGETHER = 10
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
      batch: subjects of a step; passes: over all subjects; text_passes: of the contrastive stage, 0 for none.
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
    shared: dict[str, Any] = {"labels": jnp.asarray(np.clip(labels, 0, 1), jnp.int32)}
    if inputs is not None:
        shared["inputs"] = inputs
    steps = max(1, n // min(course.batch, n))
    starts = None
    if course.text_passes:
        starts = _read_texts(course, run_data, keys, shared, next(iter(tries.values()))[0], lessons[0].seed)
    settings = [each for row in tries.values() for each in row for _ in range(f)]
    which = np.tile(np.arange(f), n_row * n_try)
    of_runs = jax.tree.map(lambda leaf: leaf[which], run_data)
    of_runs["settings"] = {name: jnp.asarray([each[name] for each in settings], jnp.float32) for name in settings[0]}
    if starts is not None:
        # Whoever has no teacher has read no text either: the rows after the first start from what that left.
        index = np.where(np.arange(len(which)) < n_try * f, which, which + f)
        of_runs["start"] = jax.tree.map(lambda leaf: leaf[index], starts)
    batches = make_batches(n, course.batch, _rounded(course.passes), lessons[0].seed)
    shared["batches"] = jnp.asarray(batches)
    problem = _taught_problem(course.make, len(batches))
    fits = _in_groups(problem, keys[which], of_runs, shared, steps, on_progress)
    params, rest = (jnp_tree(name, fits) for name in ("params", "rest"))
    curves = {name: np.concatenate([one.curves[name] for one in fits]) for name in fits[0].curves}
    best = np.concatenate([one.best_epoch for one in fits])
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
        "epochs": fits[0].epochs // steps,
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


# The same functions for every repeat, so that none is compiled twice.
_taught_problem = lru_cache(maxsize=4)(taught_brain_problem)
_contrast_problem = lru_cache(maxsize=4)(contrast_problem)


@lru_cache(maxsize=4)
def _forward(make: Callable[[Array], TaughtBrain]) -> Callable[..., Said]:
    return jax.jit(partial(say, graphdef_of(make)))


def _lesson_data(lessons: Sequence[Lesson], n: int) -> tuple[dict[str, Any], Array]:
    def masks(rows_of: Callable[[Lesson], np.ndarray]) -> Array:
        return jnp.asarray(np.stack([np.isin(np.arange(n), rows_of(lesson)) for lesson in lessons]))

    run_data: dict[str, Any] = {
        "labelled": masks(lambda lesson: lesson.split.train),
        "taught": masks(lambda lesson: lesson.trained),
        "valid": masks(lambda lesson: lesson.split.valid),
        "states": jnp.asarray(np.stack([lesson.taught.states for lesson in lessons])),
        "answers": jnp.asarray(np.stack([lesson.taught.answers for lesson in lessons])),
    }
    if vectors := [lesson.vectors for lesson in lessons if lesson.vectors is not None]:
        run_data["inputs"] = BrainInputs(jnp.asarray(np.stack(vectors)))
    keys = [jax.random.fold_in(jax.random.key(lesson.seed), lesson.fold) for lesson in lessons]
    return run_data, jnp.stack(keys)


def _read_texts(course, run_data, keys, shared, settings, seed):
    """(params, rest) with 2 f runs first: f untouched students, and the same after the contrastive stage."""
    f, n = keys.shape[0], len(shared["labels"])
    batches = make_batches(n, course.batch, _rounded(course.text_passes), seed + 1)
    data = run_data | {"settings": {name: jnp.full(f, value, jnp.float32) for name, value in settings.items()}}
    data["start"] = jax.vmap(lambda key: nnx.split(course.make(key), nnx.Param, ...)[1:])(keys)
    shared = {**shared, "batches": jnp.asarray(batches)}
    steps = max(1, n // min(course.batch, n))
    problem = _contrast_problem(course.make, len(batches))
    fits = _in_groups(problem, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys), data, shared, steps, None)
    read = (jnp_tree("params", fits), jnp_tree("rest", fits))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), data["start"], read)


def _rounded(passes: int) -> int:
    return -(-passes // EVALUATE_EVERY) * EVALUATE_EVERY


def _in_groups(
    problem: Problem, keys: Array, run_data: Any, shared: Any, steps: int, on_progress: Progress | None
) -> list[Any]:
    """`fit` for a few runs at a time; the groups have one shape and share one program."""
    n_run = len(keys)
    groups = n_groups(n_run)
    # As even as can be: what fills up the last group is trained for nothing.
    together = -(-n_run // groups)
    total = len(shared["batches"])
    fits = []
    for start in range(0, n_run, together):
        rows = np.minimum(np.arange(start, start + together), n_run - 1)
        data = jax.tree.map(lambda leaf, rows=rows: leaf[rows], run_data)
        report = None
        if on_progress is not None:
            done = start * total // steps // together
            report = lambda step, score, done=done: on_progress(done + step // steps, score)  # noqa: E731
        found = fit(
            problem,
            keys[rows],
            data,
            shared,
            epochs=total,
            evaluate_every=EVALUATE_EVERY * steps,
            on_progress=report,
        )
        kept = min(together, n_run - start)
        trees = jax.tree.map(lambda leaf, kept=kept: leaf[:kept], (found.params, found.rest))
        curves = {name: values[:kept] for name, values in found.curves.items()}
        fits.append(type(found)(trees[0], trees[1], found.best_epoch[:kept], found.epochs, curves))
    return fits


def n_groups(n_run: int) -> int:
    """How many groups as many students are trained in on this machine."""
    mesh = execution().mesh
    together = _TOGETHER * (1 if mesh is None else mesh.size)
    return -(-n_run // together) if jax.default_backend() == "cpu" else 1


def jnp_tree(name: str, fits: Sequence[Any]) -> Any:
    """The trees of that name of all fits, one after another."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(getattr(one, name) for one in fits))
