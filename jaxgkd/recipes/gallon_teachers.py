"""The teachers of one split: a graph network, a language model that reads, a network that looks at drawings.

Each learns the labels of the training part and then says, for every molecule, its outputs and a state. With more than
one fold a training molecule's outputs come from a network that never saw its label.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy.special import expit, logit

from jaxgkd.data.molecules import Molecules, TaskKind
from jaxgkd.data.splits import Split
from jaxgkd.graphs import Batch, Batches
from jaxgkd.nn.drawing_network import DrawingNetwork
from jaxgkd.nn.molecule_problem import Make, default_optimizer, molecule_problem, task_loss
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.text_tasks import fit_tasks
from jaxgkd.teachers.text_tuning import TuneSettings, untouched_features
from jaxgkd.teachers.token_states import TokenStates, token_states, upper_part
from jaxgkd.teachers.tune import described
from jaxgkd.training.batch_loop import BatchProblem, fit_batches, predict_batches
from jaxgkd.training.by_value import jitted
from jaxgkd.training.compilation import cache_folder
from jaxgkd.training.scaling import Scale
from jaxgkd.training.stage import once

Tree = Any
# Probabilities are kept this far from 0 and 1, so that a teacher's logits stay within what a student can reach.
_SURE = 1e-4
_BATCH = 32
# Counts up when teachers learn in another way.
_FORMAT = 1
#: Pixels of a side of a drawing, and channels of the last convolution over it.
DRAWING_SIZE, DRAWING_WIDTH = 64, 64


class Said(NamedTuple):
    """What a teacher says of n molecules in one split.

    Fields:
      outputs: [n, t] logits, or scaled numbers.
      states: [n, d] before the last layer.
      best_epoch: of its (first) network; seconds: of training and asking.
    """

    outputs: np.ndarray
    states: np.ndarray
    best_epoch: int
    seconds: float

    def predictions(self, scale: Scale, kind: TaskKind) -> np.ndarray:
        """[n, t] probabilities, or numbers in the unit of the data."""
        return expit(self.outputs) if kind == "classification" else scale.undo(self.outputs)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a teacher learns from.

    Fields:
      molecules: n of them; targets: of these; scale: of the labels, fitted on the training part.
      split: of them; seed: of folds, weights and order.
      folds: K; 1 describes training molecules by a network that saw their labels.
    """

    molecules: Molecules
    targets: Targets
    scale: Scale
    split: Split
    seed: int
    folds: int

    @property
    def kind(self) -> TaskKind:
        """Of all tasks."""
        return self.targets.kind

    def fold_of(self, folds: int) -> np.ndarray:
        """[n] fold of every training molecule, −1 elsewhere and with a single fold; copies share one."""
        fold = np.full(len(self.molecules), -1, np.int32)
        if folds > 1:
            repeats = np.asarray(self.molecules.repeats)
            first = np.where(repeats >= 0, repeats, np.arange(len(repeats)))
            dealt = np.random.default_rng([self.seed, folds]).permutation(len(first)) % folds
            fold[self.split.train] = dealt[first[self.split.train]]
        return fold

    def score(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        """The metric of outputs [n, t] on some molecules, as they are before the last function."""
        values = outputs if self.kind == "classification" else self.scale.undo(outputs)
        return self.targets.score(values, rows)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher before a lesson.

    Fields:
      learn: what it says after a lesson.
      settings: plain JSON values that decide it, beside the lesson.
      of_split: one teacher a split, whatever the seed.
    """

    learn: Callable[[Lesson], Said]
    settings: Mapping[str, Any]
    of_split: bool = False


def kept(teacher: Teacher, lesson: Lesson, root: Path | None = None) -> Said:
    """What a teacher says after a lesson, from the cache where it had the same lesson before, in this run or another.

    Raises:
      CheckpointError: what is kept is damaged, or cannot be written; and what the teacher raises.
    """
    what = {
        "format": _FORMAT,
        "molecules": lesson.molecules.sha256,
        "split": lesson.split.sha256,
        "metric": lesson.targets.metric,
        "seed": None if teacher.of_split else lesson.seed,
        "folds": lesson.folds,
        # Networks of several folds once began at different weights.
        **({"starts": 1} if lesson.folds > 1 else {}),
        **teacher.settings,
    }
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
    folder = (cache_folder() if root is None else root) / "taught" / key
    tree = once(folder, lambda: {name: np.asarray(value) for name, value in teacher.learn(lesson)._asdict().items()})
    return Said(tree["outputs"], tree["states"], int(tree["best_epoch"]), float(tree["seconds"]))


def over_folds(lesson: Lesson, learn: Callable[[np.ndarray, int], Said]) -> Said:
    """What a teacher says when training molecules are described by the network that did not see them.

    Args:
      lesson: with the folds.
      learn: from the molecules to train on, and the number of the fold, to what the network then says of all.
    """
    fold = lesson.fold_of(lesson.folds)
    said = [learn(lesson.split.train[fold[lesson.split.train] != k], k) for k in range(lesson.folds)]
    return Said(
        described(np.stack([one.outputs for one in said]), fold),
        described(np.stack([one.states for one in said]), fold),
        said[0].best_epoch,
        sum(one.seconds for one in said),
    )


def learn_from_graphs(
    lesson: Lesson,
    make: Make,
    settings: Mapping[str, float],
    epochs: int,
    on_progress: Callable[[int, float], None] | None,
    train: np.ndarray,
) -> Said:
    """A graph network over batches of molecules.

    Args:
      lesson: what there is to learn.
      make: from a key to a network over batches (`Batch`).
      settings: learning rate, weight decay and dropout.
      epochs: of training.
      on_progress: called with the epochs done and the validation metric.
      train: molecules to train on.
    """
    graphs = lesson.molecules.graphs(labels=lesson.scale.apply(lesson.targets.labels))

    def feed(rows: np.ndarray, seed: int | None) -> Callable[[int], Iterator[Batch]]:
        batches = Batches(graphs, min(_BATCH, len(rows)), rows=rows, seed=seed or 0, shuffle=seed is not None)
        return lambda epoch: (batches.batch(epoch, number) for number in range(batches.n_batch(epoch)))

    problem = molecule_problem(make, lesson.targets.kind)
    index = lambda batch: batch.index  # noqa: E731
    return _learn(lesson, problem, _graph_states(make), settings, epochs, on_progress, feed, index, train)


def _graph_states(make: Make) -> Callable[[Tree, Batch], Array]:
    graphdef = graphdef_of(make)
    return jitted(lambda params, batch: nnx.merge(graphdef, *params)(batch).molecules[-1])


def learn_from_drawings(
    lesson: Lesson,
    drawn: np.ndarray,
    settings: Mapping[str, float],
    epochs: int,
    on_progress: Callable[[int, float], None] | None,
    train: np.ndarray,
) -> Said:
    """A convolutional network over drawings [n, size, size] uint8; see `learn_from_graphs`."""
    labels = lesson.scale.apply(lesson.targets.labels).astype(np.float32)

    def feed(rows: np.ndarray, seed: int | None) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
        def epoch_of(epoch: int) -> Iterator[dict[str, np.ndarray]]:
            order = rows if seed is None else np.random.default_rng([seed, epoch]).permutation(rows)
            for start in range(0, len(order), _BATCH):
                chosen = order[start : start + _BATCH]
                index = np.pad(chosen, (0, _BATCH - len(chosen)), constant_values=-1)
                real = (index >= 0)[:, None]
                yield {
                    "drawings": np.where(real[:, :, None], drawn[index], 0),
                    "labels": np.nan_to_num(labels[index]),
                    "label_mask": real & ~np.isnan(labels[index]),
                    "index": index,
                }

        return epoch_of

    problem, states = drawing_problem(drawn.shape[1], labels.shape[1], lesson.targets.kind)
    index = lambda batch: batch["index"]  # noqa: E731
    return _learn(lesson, problem, states, settings, epochs, on_progress, feed, index, train)


def drawing_maker(size: int, n_task: int) -> Make:
    """A function from a key to a network over drawings."""
    return lambda key: DrawingNetwork(size, DRAWING_WIDTH, n_task, rngs=nnx.Rngs(params=key))


def drawing_problem(size: int, n_task: int, kind: TaskKind) -> tuple[BatchProblem, Callable[[Tree, Any], Array]]:
    """A problem over batches of drawings, and the function from weights and a batch to states [b, d]."""
    make = drawing_maker(size, n_task)
    graphdef = graphdef_of(make)

    def loss(params, key, settings, batch, shared):
        del shared
        network = nnx.merge(graphdef, *params)
        _, outputs = network(batch["drawings"], dropout_key=key, dropout_rate=settings["dropout"])
        return task_loss(outputs, batch["labels"], batch["label_mask"], kind), {}

    def outputs(params, batch):
        found = nnx.merge(graphdef, *params)(batch["drawings"])[1]
        return found if kind == "regression" else jax.nn.sigmoid(found)

    problem = BatchProblem(lambda key: nnx.split(make(key), nnx.Param, ...)[1:], loss, outputs, default_optimizer)
    return problem, jitted(lambda params, batch: nnx.merge(graphdef, *params)(batch["drawings"])[0])


def _learn(
    lesson: Lesson,
    problem: BatchProblem,
    states_of: Callable[[Tree, Any], Array],
    settings: Mapping[str, float],
    epochs: int,
    on_progress: Callable[[int, float], None] | None,
    feed: Callable[[np.ndarray, int | None], Callable[[int], Iterator[Any]]],
    index: Callable[[Any], Array],
    train: np.ndarray,
) -> Said:
    """A network over batches that ``feed`` makes of some molecules, shuffled from a seed or in order."""
    begun = time.perf_counter()
    valid, everything = (list(feed(rows, None)(0)) for rows in (lesson.split.valid, np.arange(len(lesson.molecules))))

    def outputs(params: Tree, batches: Any) -> np.ndarray:
        found = predict_batches(problem, params, batches, index, len(lesson.molecules))
        return found if lesson.kind == "regression" else logit(np.clip(found, _SURE, 1 - _SURE))

    fitted = fit_batches(
        problem,
        # The same for every fold: states of networks that began at different weights would have no axis in common.
        jax.random.split(jax.random.fold_in(jax.random.key(lesson.seed), 0), 1),
        {name: jnp.full(1, value, jnp.float32) for name, value in settings.items()},
        feed(train, lesson.seed),
        n_batch=-(-len(train) // _BATCH),
        epochs=epochs,
        score=lambda params: np.array([lesson.score(outputs(params, valid)[0], lesson.split.valid)]),
        higher_is_better=lesson.targets.higher_is_better,
        on_progress=on_progress,
    )
    params = jax.tree.map(lambda leaf: leaf[0], fitted.params)
    states = np.concatenate(
        [np.asarray(states_of(params, batch))[np.asarray(index(batch)) >= 0] for batch in everything]
    )
    seconds = time.perf_counter() - begun
    return Said(outputs(fitted.params, everything)[0], states, int(fitted.best_epoch[0]), seconds)


class Texts(NamedTuple):
    """What is read of all molecules: states below the tuned layers, these layers, and what they say untouched."""

    states: TokenStates
    upper: Any
    features: np.ndarray
    settings: TuneSettings


def read_texts(
    encoder: TextEncoder,
    prompts: Sequence[str],
    settings: TuneSettings,
    *,
    root: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Texts:
    """Run the lower layers of a language model over a prompt for every molecule, once for all splits and folds."""
    first = max(0, encoder.model.n_layers - settings.tuned_layers)
    states = token_states(encoder, prompts, layer=first, max_tokens=settings.max_tokens, root=root, on_line=on_line)
    upper = upper_part(encoder.model, first)
    return Texts(states, upper, untouched_features(upper, states), settings)


def learn_from_texts(
    lesson: Lesson, texts: Texts, on_progress: Callable[[int, float], None], train: np.ndarray, fold: int
) -> Said:
    """The upper layers of a language model, tuned.

    Args:
      lesson: what there is to learn.
      texts: what it reads.
      on_progress: called with the epochs done and the validation metric.
      train: molecules to train on; fold: number of the network.
    """
    begun = time.perf_counter()
    n, sign = len(lesson.molecules), 1.0 if lesson.targets.higher_is_better else -1.0
    seen, valid = (np.isin(np.arange(n), rows) for rows in (train, lesson.split.valid))
    rows = np.flatnonzero(valid)

    def score(outputs: np.ndarray) -> float:
        everything = np.zeros((n, outputs.shape[1]))
        everything[rows] = outputs
        return sign * lesson.score(everything, rows)

    targets = np.where((seen | valid)[:, None], lesson.scale.apply(lesson.targets.labels), np.nan)
    tuned = fit_tasks(
        texts.states,
        texts.upper,
        texts.features,
        targets,
        seen,
        valid,
        lesson.targets.kind,
        score,
        texts.settings,
        seed=(lesson.seed, fold),
        on_progress=on_progress,
    )
    tokens = texts.states.tokens
    features, outputs = tuned.read_out(texts.states, np.arange(len(tokens.lengths)))
    seconds = time.perf_counter() - begun
    return Said(outputs[tokens.rows], features[tokens.rows], tuned.best_epoch, seconds)
