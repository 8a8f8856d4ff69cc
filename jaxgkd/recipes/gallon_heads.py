"""Heads that read what a language model says of a molecule beside its atoms: a teacher knows what its student knows.

A language model reads groups and rings well and counts badly. An ensemble of small networks over its states and a deep
set of the atoms costs seconds, and all of a split's train in one program: every fold, several settings of dropout and
penalty, two initial weights. Nothing is chosen among them, they speak with one voice.
"""

import itertools
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.nn.molecule_bags import ReadAtoms
from jaxgkd.nn.taught_molecules import Taught, TaughtStudent, taught_problem
from jaxgkd.nn.untrained import graphdef_of, n_weights
from jaxgkd.recipes.gallon_bags import atom_sizes, bags_for
from jaxgkd.recipes.gallon_teachers import Lesson, Said
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.tune import described
from jaxgkd.training.by_value import jitted
from jaxgkd.training.loop import fit

#: Principal components of a language model's states that are read, and the width of a head.
COMPONENTS, WIDTH = 64, 32
_DROPOUTS, _PENALTIES, _WEIGHTS = (0.2, 0.5), (0.0, 1e-3), 2
_EPOCHS, _EVALUATE_EVERY, _RATE = 300, 10, 0.01
#: What heads see of atoms: as much as any student does.
READ = "neighbours"
#: A training molecule is described by the heads that did not see its label: what is said of it then is more than the
#: label once again.
FOLDS = 5
#: Heads of a fold.
MEMBERS = len(_DROPOUTS) * len(_PENALTIES) * _WEIGHTS


def read_beside_atoms(lesson: Lesson, said: Said) -> Said:
    """What heads say instead of the language model, its states as they were; each fold's without its labels.

    Args:
      lesson: what the language model learned from.
      said: what it then said.
    """
    begun = time.perf_counter()
    targets, split, n = lesson.targets, lesson.split, len(lesson.molecules)
    texts = principal_components(said.states, split.train, COMPONENTS)
    labels = lesson.scale.apply(targets.labels).astype(np.float32)
    make = head_maker(texts.shape[1], labels.shape[1])
    fold = lesson.fold_of(FOLDS)
    members = list(itertools.product(range(FOLDS), _DROPOUTS, _PENALTIES, range(_WEIGHTS)))
    in_train = np.isin(np.arange(n), split.train)
    column = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    run_data = {
        "seen": jnp.asarray(np.stack([in_train & (fold != k) for k, *_ in members])),
        "settings": {
            "learning_rate": column([_RATE] * len(members)),
            "dropout": column([dropout for _, dropout, _, _ in members]),
            "weight_decay": column([penalty for _, _, penalty, _ in members]),
            "temperature": column([1.0] * len(members)),
            "labels": jnp.zeros((len(members), 0)),
            "states": jnp.zeros((len(members), 0)),
        },
    }
    shared = {
        "molecules": (jnp.asarray(texts), bags_for(lesson.molecules, READ, range(n))),
        "targets": jnp.asarray(np.where(in_train[:, None], labels, np.nan)),
        "taught": Taught(jnp.zeros((0, n, labels.shape[1])), (), jnp.zeros((0, n), bool)),
        "valid_rows": jnp.asarray(split.valid),
        "valid_targets": jnp.asarray(labels[split.valid]),
    }
    key = jax.random.key(lesson.seed)
    keys = jnp.stack([jax.random.fold_in(key, k * _WEIGHTS + start) for k, _, _, start in members])
    problem = taught_problem(make, targets.kind, targets.metric)
    options: dict[str, Any] = {"epochs": _EPOCHS, "evaluate_every": _EVALUATE_EVERY}
    fitted = fit(problem, keys, run_data, shared, **options)
    forward = jitted(jax.vmap(partial(_outputs, graphdef_of(make)), in_axes=(0, 0, None)))
    outputs = np.asarray(forward(fitted.params, fitted.rest, shared["molecules"]))
    of_folds = outputs.reshape(FOLDS, MEMBERS, *outputs.shape[1:]).mean(axis=1)
    seconds = said.seconds + time.perf_counter() - begun
    return said._replace(outputs=described(of_folds, fold), seconds=seconds)


def head_maker(d_text: int, n_task: int):
    """A function from a key to a head."""

    def make(key: Array) -> TaughtStudent:
        rngs = nnx.Rngs(params=key)
        head = ReadAtoms(d_text, atom_sizes(READ), WIDTH, n_task, rngs=rngs)
        return TaughtStudent(head, WIDTH, (), rngs=rngs)

    return make


def heads_parameters(encoder: TextEncoder, n_task: int) -> int:
    """Weights of all heads that speak for a language model in one split."""
    make = head_maker(min(COMPONENTS, encoder.model.width), n_task)
    return FOLDS * MEMBERS * n_weights(make, lambda model: model.student)


def _outputs(graphdef: nnx.GraphDef, params, rest, molecules) -> Array:
    return nnx.merge(graphdef, params, rest)(molecules).outputs


def principal_components(states: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """The leading components of a teacher's states, of unit variance together: [n, min(most, d)] float32.

    Args:
      states: [n, d].
      rows: the molecules that decide which components lead.
      most: components.
    """
    centred = states.astype(np.float64) - states[rows].mean(axis=0)
    _, directions = np.linalg.eigh(centred[rows].T @ centred[rows])
    leading = centred @ directions[:, ::-1][:, :most]
    return (leading / max(float(leading[rows].std()), 1e-9)).astype(np.float32)
