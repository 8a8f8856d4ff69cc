"""Graph networks as the students of one split: all rows and settings side by side on the same batches of molecules.

What `gallon_bag_students` does for students that see a molecule as a bag, for those that see its bonds. They cost
more and can take more of what a language model knows.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy.special import expit

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.graphs import Batch, Batches, ManyGraphs
from jaxgkd.nn.molecule_bags import Summary
from jaxgkd.nn.molecule_problem import TaskKind, default_optimizer
from jaxgkd.nn.taught_molecules import TaughtStudent, label_loss, state_loss, task_loss
from jaxgkd.nn.untrained import graphdef_of, n_weights, shapes_of
from jaxgkd.recipes.gallon_heads import principal_components
from jaxgkd.recipes.gallon_students import COMPONENTS, Graduates, Studied, of_chosen
from jaxgkd.recipes.gallon_teachers import Said
from jaxgkd.recipes.molecule_networks import make_graph_teacher
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.batch_loop import BatchProblem, fit_batches, predict_batches
from jaxgkd.training.by_value import jitted
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.scaling import Scale
from jaxgkd.training.timing import median_milliseconds

_BATCH, _TIMED = 64, 128


class GraphSummary(nnx.Module):
    """A GINE network that says of molecules what every student says."""

    def __init__(self, width: int, layers: int, n_task: int, key: Array):
        """See `GINE`; ``key`` of the initial weights."""
        self.network = make_graph_teacher("gine", width, layers, n_task)(key)

    def __call__(self, batch: Batch, **options: Any) -> Summary:
        """State and outputs of the graphs of a batch."""
        states = self.network(batch, **options)  # type: ignore[operator]
        return Summary(states.molecules[-1], states.outputs)


@dataclass(frozen=True, eq=False)
class GraphClass:
    """What all graph networks of a run have in common; see `Students`."""

    molecules: Molecules
    targets: Targets
    width: int
    layers: int
    beside: Mapping[str, np.ndarray]
    epochs: int

    def make(self, n_components: tuple[int, ...]) -> Callable[[Array], TaughtStudent]:
        """A function from a key to a student, with maps to states of teachers."""
        return _maker(self.width, self.layers, self.targets.labels.shape[1], n_components)

    def problem(self, n_components: tuple[int, ...]) -> BatchProblem:
        """The problem of its training."""
        return _problem(self.make(n_components), self.targets.kind)

    @property
    def n_parameters(self) -> int:
        """Weights of a student."""
        return n_weights(self.make(()), lambda model: model.student)

    def maker_of(self, params: Mapping[str, np.ndarray]) -> tuple[Callable[[Array], TaughtStudent], Any]:
        """`make` for weights of several students by name, and the shapes of one student's weights and other state."""
        widths = tuple(leaf.shape[-1] for name, leaf in params.items() if "maps" in name and "kernel" in name)
        make = self.make(widths)
        return make, shapes_of(make)

    def inputs(self, molecules: Molecules) -> list[Batch]:
        """See `Students`."""
        return list(_in_order(molecules.graphs(), np.arange(len(molecules))))

    def states(self, graduates: Graduates, row: int) -> tuple[Any, Any]:
        """See `Students`."""
        _, like = self.maker_of(graduates.params)
        return from_leaves({name: leaf[row] for name, leaf in graduates.params.items()}, like)

    def milliseconds(self, graduates: Graduates) -> float:
        """See `Students`: a batch of 128 molecules."""
        del graduates  # The weights do not matter.
        rows = np.arange(min(_TIMED, len(self.molecules)))
        batch = Batches(self.molecules.graphs(), len(rows), rows=rows, shuffle=False).batch(0, 0)
        problem = self.problem(())
        params, forward = problem.init(jax.random.key(0)), jitted(problem.outputs)
        return median_milliseconds(lambda: forward(params, batch)) / len(rows)

    def teach(
        self,
        said: Mapping[str, Said],
        tries: Mapping[str, Sequence[Mapping[str, Any]]],
        split: Split,
        scale: Scale,
        seed: int,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> Studied:
        """Train all tries of all rows on one split; see `Students`."""
        begun = time.perf_counter()
        targets, names, n = self.targets, list(self.beside), len(self.molecules)
        everything = [each for settings in tries.values() for each in settings]
        labels = scale.apply(targets.labels).astype(np.float32)
        in_train = np.isin(np.arange(n), split.train)
        states = [principal_components(said[name].states, split.train, COMPONENTS) for name in names]
        problem = self.problem(tuple(each.shape[1] for each in states))
        taught = np.stack([in_train | self.beside[name] for name in names], axis=1)
        graphs = self.molecules.graphs()
        training = ManyGraphs(
            graphs.nodes,
            graphs.edges,
            graphs.senders,
            graphs.receivers,
            {
                "targets": np.where(in_train[:, None], labels, np.nan).astype(np.float32),
                "outputs": np.stack([said[name].outputs for name in names], axis=1).astype(np.float32),
                "states": tuple(states),
                "taught": taught,
            },
            graphs.node_start,
            graphs.edge_start,
        )
        rows = np.flatnonzero(in_train | taught.any(axis=1))
        batches = Batches(training, min(_BATCH, len(rows)), rows=rows, seed=seed)
        valid = list(_in_order(graphs, split.valid))
        sign = 1.0 if targets.higher_is_better else -1.0 / float(scale.std[0])

        def outputs(params: Any) -> np.ndarray:
            return predict_batches(problem, params, valid, lambda batch: batch.index, n)

        def score(params: Any) -> np.ndarray:
            found = outputs(params)
            values = found if targets.kind == "classification" else scale.undo(found)
            return np.array([sign * targets.score(run, split.valid) for run in values])

        fitted = fit_batches(
            problem,
            jnp.stack([jax.random.key(seed)] * len(everything)),
            {name: jnp.asarray(np.stack([each[name] for each in everything]), jnp.float32) for name in everything[0]},
            lambda epoch: (batches.batch(epoch, number) for number in range(batches.n_batch(epoch))),
            n_batch=batches.n_batch(),
            epochs=self.epochs,
            score=score,
            higher_is_better=True,
            on_progress=on_progress,
        )
        return Studied(
            params=leaves_by_name(fitted.params),
            valid=np.nanmax(fitted.curves["valid"], axis=1),
            best_epoch=fitted.best_epoch,
            outputs=outputs(fitted.params)[:, split.valid],
            curves=fitted.curves,
            epochs=np.arange(1, self.epochs + 1),
            seconds=time.perf_counter() - begun,
        )

    def graduate(self, studied: Studied, chosen: np.ndarray, scale: Scale) -> Graduates:
        """The chosen students of a split, and what they say of all molecules; see `Students`."""
        params, rest = of_chosen(studied, chosen)
        make, like = self.maker_of(params)
        several = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(chosen), *leaf.shape), leaf.dtype), like)
        weights = jax.tree.map(jnp.asarray, from_leaves(params, several))
        graphdef = graphdef_of(make)

        def summary(weights: Any, batch: Batch) -> Summary:
            return jax.lax.map(lambda one: nnx.merge(graphdef, *one)(batch), weights)

        program = jitted(summary)
        found = [
            jax.tree.map(lambda leaf, b=batch: np.asarray(leaf)[:, np.asarray(b.index) >= 0], program(weights, batch))
            for batch in _in_order(self.molecules.graphs(), np.arange(len(self.molecules)))
        ]
        state, outputs = (np.concatenate(leaves, axis=1) for leaves in zip(*found, strict=True))
        predictions = expit(outputs) if self.targets.kind == "classification" else scale.undo(outputs)
        return Graduates(predictions=predictions, state=state, params=params, **rest)


def _in_order(graphs: ManyGraphs, rows: np.ndarray) -> Iterator[Batch]:
    batches = Batches(graphs, min(_TIMED, len(rows)), rows=rows, shuffle=False)
    return (batches.batch(0, number) for number in range(batches.n_batch()))


def _maker(width: int, layers: int, n_task: int, n_components: tuple[int, ...]) -> Callable[[Array], TaughtStudent]:
    def make(key: Array) -> TaughtStudent:
        student = GraphSummary(width, layers, n_task, key)
        return TaughtStudent(student, width, n_components, rngs=nnx.Rngs(params=jax.random.fold_in(key, 1)))

    return make


def _problem(make: Callable[[Array], TaughtStudent], kind: TaskKind) -> BatchProblem:
    """The loss of `taught_molecules`, over batches whose globals hold what is taught of their molecules."""
    graphdef = graphdef_of(make)

    def loss(params, key, settings, batch, shared):
        del shared
        model = nnx.merge(graphdef, *params)
        found = model(batch, dropout_key=key, dropout_rate=settings["dropout"])
        real, told = batch.graph_mask[:, None], batch.graph.globals
        total = task = task_loss(found.outputs, jnp.where(real, told["targets"], jnp.nan), kind)
        for k, (to_teacher, states) in enumerate(zip(model.maps, told["states"], strict=True)):
            where = told["taught"][:, k] & batch.graph_mask
            labels = label_loss(found.outputs, told["outputs"][:, k], where, kind, settings["temperature"])
            total += settings["labels"][k] * labels
            total += settings["states"][k] * state_loss(to_teacher(found.state), states, where)
        return total, {"loss/task": task}

    def outputs(params, batch):
        found = nnx.merge(graphdef, *params)(batch).outputs
        return found if kind == "regression" else jax.nn.sigmoid(found)

    return BatchProblem(lambda key: nnx.split(make(key), nnx.Param, ...)[1:], loss, outputs, default_optimizer)
