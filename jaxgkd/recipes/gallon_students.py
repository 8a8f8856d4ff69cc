"""The students of one split: every row and every setting that is tried for it, trained side by side in one program.

All of a split's students read the same molecules and the same teachers and differ in numbers alone: how much each
teacher counts (nothing, for the student alone), the size of the steps, dropout. Each row keeps the setting that
validates best.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy.special import expit

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.processes import available_cores
from jaxgkd.data.splits import Split
from jaxgkd.nn.molecule_bags import AtomMLP, Bags, FingerprintMLP, Summary
from jaxgkd.nn.node_problem import graphdef_of
from jaxgkd.nn.taught_molecules import Taught, TaughtStudent, taught_problem
from jaxgkd.recipes.gallon_bags import Kind, atom_sizes, bags_for
from jaxgkd.recipes.gallon_heads import principal_components
from jaxgkd.recipes.gallon_teachers import Said
from jaxgkd.recipes.molecule_baselines import BITS
from jaxgkd.recipes.molecule_networks import n_parameters
from jaxgkd.recipes.molecule_targets import Scale, Targets
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.parts import fit_in_parts
from jaxgkd.training.search import ranked

#: Principal components of a teacher's states that a student is held against: a linear map reaches no more of them
#: than it has units, and they cost a tenth of the states themselves.
COMPONENTS = 32
_EVALUATE_EVERY = 10


@dataclass(frozen=True, eq=False)
class Class:
    """What all students of a run have in common.

    Fields:
      molecules: n of them, ``bags`` as students see them; targets: of these.
      kind, width, layers: of a student.
      teachers: names, in the order of all arrays over teachers.
      beside: teacher → [n] unlabelled molecules of which it speaks, in every split.
      n_valid: rows that validation molecules of any split take.
      epochs: of training.
    """

    molecules: Molecules
    bags: Bags
    targets: Targets
    kind: Kind
    width: int
    layers: int
    teachers: tuple[str, ...]
    beside: Mapping[str, np.ndarray]
    n_valid: int
    epochs: int

    @classmethod
    def of(
        cls,
        molecules: Molecules,
        targets: Targets,
        splits: Sequence[Split],
        *,
        kind: Kind,
        width: int,
        layers: int,
        beside: Mapping[str, np.ndarray],
        epochs: int,
    ) -> "Class":
        """See the fields; ``splits`` are those of all seeds, ``beside`` has all teachers in their order."""
        n_valid = max(len(split.valid) for split in splits)
        return cls(
            molecules, bags_for(molecules, kind), targets, kind, width, layers, tuple(beside), beside, n_valid, epochs
        )

    def make(self, n_components: tuple[int, ...]) -> Callable[[Array], TaughtStudent]:
        """A function from a key to a student, with maps to states of teachers; the same one for the same arguments."""
        return _maker(self.kind, self.width, self.layers, self.targets.labels.shape[1], n_components)

    def maker_of(self, params: Mapping[str, np.ndarray]) -> tuple[Callable[[Array], TaughtStudent], Any]:
        """`make` for weights of several students by name, and the shapes of one student's weights and other state."""
        widths = tuple(leaf.shape[-1] for name, leaf in params.items() if "maps" in name and "kernel" in name)
        make = self.make(widths)
        return make, jax.eval_shape(lambda key: nnx.split(make(key), nnx.Param, ...)[1:], jax.random.key(0))

    @property
    def n_parameters(self) -> int:
        """Weights of a student."""
        return n_parameters(self.make(()), lambda model: model.student)

    def predictor(self, params: Mapping[str, np.ndarray]) -> Callable[[], Array]:
        """A compiled function that gives the outputs [n, t] of the first row's student, for timing.

        Args:
          params: of `Graduates`.
        """
        make, like = self.maker_of(params)
        first = jax.tree.map(jnp.asarray, from_leaves({name: leaf[0] for name, leaf in params.items()}, like))
        program = jax.jit(lambda weights, bags: nnx.merge(graphdef_of(make), *weights)(bags).outputs)
        return lambda: program(first, self.bags)


@lru_cache(maxsize=8)
def _maker(
    kind: Kind, width: int, layers: int, n_task: int, n_components: tuple[int, ...]
) -> Callable[[Array], TaughtStudent]:
    def student(rngs: nnx.Rngs) -> nnx.Module:
        if kind == "fingerprint":
            return FingerprintMLP(BITS, width, n_task, rngs=rngs)
        return AtomMLP(atom_sizes(kind), width, layers, n_task, rngs=rngs)

    def make(key: Array) -> TaughtStudent:
        rngs = nnx.Rngs(params=key)
        return TaughtStudent(student(rngs), width, n_components, rngs=rngs)

    return make


_problem = lru_cache(maxsize=8)(taught_problem)


class Studied(NamedTuple):
    """All students of a split, r = rows × tries of them, the tries of the first row first.

    Fields:
      params: name → [r, ...] weights at the best epoch.
      valid: [r] best validation score, higher being better; best_epoch: [r].
      curves: name → [r, evaluations]; epochs: [evaluations].
      seconds: of training.
    """

    params: dict[str, np.ndarray]
    valid: np.ndarray
    best_epoch: np.ndarray
    curves: dict[str, np.ndarray]
    epochs: np.ndarray
    seconds: float


class Graduates(NamedTuple):
    """The students of a split that were chosen, one a row.

    Fields:
      predictions: [rows, n, t] probabilities, or numbers in the unit of the data.
      state: [rows, n, d] before the last layer.
      best_epoch: [rows]; curves: name → [rows, evaluations]; epochs: [evaluations].
      params: name → [rows, ...].
    """

    predictions: np.ndarray
    state: np.ndarray
    best_epoch: np.ndarray
    curves: dict[str, np.ndarray]
    epochs: np.ndarray
    params: dict[str, np.ndarray]


def teach(
    students: Class,
    said: Mapping[str, Said],
    tries: Mapping[str, Sequence[Mapping[str, Any]]],
    split: Split,
    scale: Scale,
    seed: int,
    on_progress: Callable[[int, float], None] | None = None,
) -> Studied:
    """Train all tries of all rows on one split.

    Args:
      students: what they have in common.
      said: teacher → what it says of all molecules, in this split.
      tries: row → settings, as many for every row: ``learning_rate``, ``weight_decay``, ``dropout``, ``temperature``
        and the weights of all teachers, ``labels`` and ``states`` [k].
      split: of the molecules; scale: of the labels.
      seed: of the initial weights, the same for all.
      on_progress: see `jaxgkd.training.parts.fit_in_parts`.
    """
    begun = time.perf_counter()
    targets, names, n = students.targets, students.teachers, len(students.molecules)
    everything = [each for settings in tries.values() for each in settings]
    labels = scale.apply(targets.labels).astype(np.float32)
    states = [principal_components(said[name].states, split.train, COMPONENTS) for name in names]
    make = students.make(tuple(each.shape[1] for each in states))
    padding = students.n_valid - len(split.valid)
    taught_labels = np.full_like(labels, np.nan)
    taught_labels[split.train] = labels[split.train]
    shared = {
        "molecules": students.bags,
        "targets": jnp.asarray(taught_labels),
        "taught": Taught(
            jnp.asarray(np.stack([said[name].outputs for name in names]), jnp.float32),
            tuple(map(jnp.asarray, states)),
            jnp.asarray(np.stack([np.isin(np.arange(n), split.train) | students.beside[name] for name in names])),
        ),
        "valid_rows": jnp.asarray(np.pad(split.valid, (0, padding))),
        "valid_targets": jnp.asarray(np.pad(labels[split.valid], ((0, padding), (0, 0)), constant_values=np.nan)),
    }
    settings = {name: jnp.asarray(np.stack([each[name] for each in everything]), jnp.float32) for name in everything[0]}
    fitted = fit_in_parts(
        _problem(make, targets.kind, targets.metric, students.epochs),
        jnp.stack([jax.random.key(seed)] * len(everything)),
        {"settings": settings},
        shared,
        workers=available_cores(),
        epochs=students.epochs,
        evaluate_every=_EVALUATE_EVERY,
        on_progress=on_progress,
    )
    return Studied(
        params=leaves_by_name((fitted.params, fitted.rest)),
        valid=np.nanmax(fitted.curves["valid"], axis=1),
        best_epoch=fitted.best_epoch,
        curves=fitted.curves,
        epochs=fitted.epochs,
        seconds=time.perf_counter() - begun,
    )


def choose(studied: Sequence[Studied], n_row: int) -> np.ndarray:
    """Which try each row keeps, [rows]: the one with the best mean validation score over all splits."""
    scores = np.stack([one.valid for one in studied], axis=1).reshape(n_row, -1, len(studied))
    return np.array([ranked(of_row)[0] for of_row in scores])


def graduate(students: Class, studied: Studied, chosen: np.ndarray, scale: Scale) -> Graduates:
    """The chosen students of a split, and what they say of all molecules.

    Args:
      students: what they have in common; studied: all of the split's.
      chosen: [rows] try of each row.
      scale: of the labels.
    """
    kept = chosen + np.arange(len(chosen)) * (len(studied.valid) // len(chosen))
    params = {name: leaf[kept] for name, leaf in studied.params.items()}
    make, like = students.maker_of(params)
    several = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(kept), *leaf.shape), leaf.dtype), like)
    found = jax.vmap(partial(_summary, make, students.bags))(*from_leaves(params, several))
    outputs = np.asarray(found.outputs)
    return Graduates(
        predictions=expit(outputs) if students.targets.kind == "classification" else scale.undo(outputs),
        state=np.asarray(found.state),
        best_epoch=studied.best_epoch[kept],
        curves={name: values[kept] for name, values in studied.curves.items()},
        epochs=studied.epochs,
        params=params,
    )


def _summary(make: Callable[[Array], TaughtStudent], bags: Bags, params: Any, rest: Any) -> Summary:
    return nnx.merge(graphdef_of(make), params, rest)(bags)
