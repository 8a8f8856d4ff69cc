"""Students that see a molecule as a bag of atoms or bits: every step takes all training molecules.

Every row and every setting that is tried for it trains side by side; see `Students`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy.special import expit

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.nn.molecule_bags import AtomMLP, Bags, FingerprintMLP, Summary
from jaxgkd.nn.taught_molecules import Taught, TaughtStudent, taught_problem
from jaxgkd.nn.untrained import graphdef_of, n_weights, shapes_of
from jaxgkd.recipes.gallon_bags import OF_FRAGMENTS, Kind, atom_sizes, bags_for
from jaxgkd.recipes.gallon_heads import principal_components
from jaxgkd.recipes.gallon_students import COMPONENTS, Graduates, Studied, of_chosen
from jaxgkd.recipes.gallon_teachers import Said
from jaxgkd.recipes.molecule_baselines import BITS
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.by_value import jitted
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.loop import fit
from jaxgkd.training.scaling import Scale
from jaxgkd.training.timing import median_milliseconds

_EVALUATE_EVERY = 10


@dataclass(frozen=True, eq=False)
class BagClass:
    """What all students of a run have in common; see `Students`.

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
    ) -> "BagClass":
        """See the fields; ``splits`` are those of all seeds, ``beside`` has all teachers in their order."""
        n_valid = max(len(split.valid) for split in splits)
        return cls(
            molecules,
            bags_for(molecules, kind, range(len(molecules))),
            targets,
            kind,
            width,
            layers,
            tuple(beside),
            beside,
            n_valid,
            epochs,
        )

    def make(self, n_components: tuple[int, ...]) -> Callable[[Array], TaughtStudent]:
        """A function from a key to a student, with maps to states of teachers."""
        return _maker(self.kind, self.width, self.layers, self.targets.labels.shape[1], n_components)

    def maker_of(self, params: Mapping[str, np.ndarray]) -> tuple[Callable[[Array], TaughtStudent], Any]:
        """`make` for weights of several students by name, and the shapes of one student's weights and other state."""
        widths = tuple(leaf.shape[-1] for name, leaf in params.items() if "maps" in name and "kernel" in name)
        make = self.make(widths)
        return make, shapes_of(make)

    @property
    def n_parameters(self) -> int:
        """Weights of a student."""
        return n_weights(self.make(()), lambda model: model.student)

    def inputs(self, molecules: Molecules) -> Bags:
        """See `Students`."""
        return bags_for(molecules, self.kind, range(len(molecules)))

    def states(self, graduates: Graduates, row: int) -> tuple[Any, Any]:
        """See `Students`."""
        _, like = self.maker_of(graduates.params)
        return from_leaves({name: leaf[row] for name, leaf in graduates.params.items()}, like)

    def milliseconds(self, graduates: Graduates) -> float:
        """See `Students`: all molecules at once."""
        make, _ = self.maker_of(graduates.params)
        first = jax.tree.map(jnp.asarray, self.states(graduates, 0))
        graphdef = graphdef_of(make)
        program = jitted(lambda weights, bags: nnx.merge(graphdef, *weights)(bags).outputs)
        return median_milliseconds(lambda: program(first, self.bags)) / len(self.molecules)

    def teach(
        self,
        said: Mapping[str, Said],
        tries: Mapping[str, Sequence[Mapping[str, Any]]],
        split: Split,
        scale: Scale,
        seed: int,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Studied:
        """See `Students`: every step sees all training molecules, and a CPU a few runs at a time."""
        begun = time.perf_counter()
        targets, names, n = self.targets, self.teachers, len(self.molecules)
        everything = [each for settings in tries.values() for each in settings]
        labels = scale.apply(targets.labels).astype(np.float32)
        states = [principal_components(said[name].states, split.train, COMPONENTS) for name in names]
        make = self.make(tuple(each.shape[1] for each in states))
        padding = self.n_valid - len(split.valid)
        taught_labels = np.full_like(labels, np.nan)
        taught_labels[split.train] = labels[split.train]
        shared = {
            "molecules": self.bags,
            "targets": jnp.asarray(taught_labels),
            "taught": Taught(
                jnp.asarray(np.stack([said[name].outputs for name in names]), jnp.float32),
                tuple(map(jnp.asarray, states)),
                jnp.asarray(np.stack([np.isin(np.arange(n), split.train) | self.beside[name] for name in names])),
            ),
            "valid_rows": jnp.asarray(np.pad(split.valid, (0, padding))),
            "valid_targets": jnp.asarray(np.pad(labels[split.valid], ((0, padding), (0, 0)), constant_values=np.nan)),
        }
        settings = {
            name: jnp.asarray(np.stack([each[name] for each in everything]), jnp.float32) for name in everything[0]
        }
        fitted = fit(
            taught_problem(make, targets.kind, targets.metric, self.epochs),
            jnp.stack([jax.random.key(seed)] * len(everything)),
            {"settings": settings},
            shared,
            epochs=self.epochs,
            evaluate_every=_EVALUATE_EVERY,
            on_progress=on_progress,
        )
        return Studied(
            params=leaves_by_name((fitted.params, fitted.rest)),
            valid=np.nanmax(fitted.curves["valid"], axis=1),
            best_epoch=fitted.best_epoch,
            outputs=np.asarray(_outputs(make, self.bags, fitted.params, fitted.rest)[:, split.valid]),
            curves=fitted.curves,
            epochs=fitted.epochs,
            seconds=time.perf_counter() - begun,
        )

    def graduate(self, studied: Studied, chosen: np.ndarray, scale: Scale) -> Graduates:
        """See `Students`."""
        params, rest = of_chosen(studied, chosen)
        make, like = self.maker_of(params)
        several = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(chosen), *leaf.shape), leaf.dtype), like)
        found = jax.vmap(partial(_summary, make, self.bags))(*from_leaves(params, several))
        outputs = np.asarray(found.outputs)
        predictions = expit(outputs) if self.targets.kind == "classification" else scale.undo(outputs)
        return Graduates(predictions=predictions, state=np.asarray(found.state), params=params, **rest)


def _maker(
    kind: Kind, width: int, layers: int, n_task: int, n_components: tuple[int, ...]
) -> Callable[[Array], TaughtStudent]:
    def student(rngs: nnx.Rngs) -> nnx.Module:
        if kind in OF_FRAGMENTS:
            return FingerprintMLP(BITS, width, n_task, rngs=rngs)
        return AtomMLP(atom_sizes(kind), width, layers, n_task, rngs=rngs)

    def make(key: Array) -> TaughtStudent:
        rngs = nnx.Rngs(params=key)
        return TaughtStudent(student(rngs), width, n_components, rngs=rngs)

    return make


@partial(jax.jit, static_argnames="make")
def _outputs(make: Callable[[Array], TaughtStudent], bags: Bags, params: Any, rest: Any) -> Array:
    """[r, n, t] of r students, one after another."""
    return jax.lax.map(lambda one: _summary(make, bags, *one).outputs, (params, rest))


def _summary(make: Callable[[Array], TaughtStudent], bags: Bags, params: Any, rest: Any) -> Summary:
    return nnx.merge(graphdef_of(make), params, rest)(bags)
