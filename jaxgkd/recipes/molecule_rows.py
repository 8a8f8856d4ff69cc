"""A seed's teacher, what it says, and the rows of its students, which are trained side by side on the same batches."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from rich.console import Console

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.splits import Split
from jaxgkd.graphs import Batch, Batches, Budget, ManyGraphs, RowBatch, row_batches
from jaxgkd.nn.molecule_problem import Distance, Make, molecule_problem
from jaxgkd.nn.untrained import graphdef_of, shapes_of
from jaxgkd.recipes.molecule_baselines import composition
from jaxgkd.recipes.molecule_geometry import Geometry, choose
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.batch_loop import BatchProblem, fit_batches, predict_batches
from jaxgkd.training.by_value import jitted
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.progress import progress_bar
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.scaling import Scale
from jaxgkd.training.timing import median_milliseconds

Tree = Any
# Coordinates are drawn anew for every batch from this, the seed, the epoch and the number of the batch.
_DRAWN = 71


@dataclass(frozen=True, eq=False)
class MoleculeData:
    """What all seeds read.

    Fields:
      molecules: n of them; targets, geometry: of these.
      nodes: what students see of every atom beside its fields, name → [N, ...].
      pairs: what they see of every pair of atoms, name → [Σ n_i²].
      row_budgets: shapes of batches whose molecules have rows of their own.
      flat: whether students take batches whose atoms lie one after another instead.
      batch_size: molecules of a batch.
      by_composition: whether labels are counted from what a ridge on counts of elements says.
    """

    molecules: Molecules
    targets: Targets
    geometry: Geometry
    nodes: Mapping[str, np.ndarray]
    pairs: Mapping[str, np.ndarray]
    row_budgets: tuple[Budget, ...]
    flat: bool
    batch_size: int
    by_composition: bool = False

    def scale(self, split: Split) -> Scale:
        """What labels are counted from, and in which unit, fitted on the training part."""
        offset = composition(self.molecules, split, self.targets.labels, 0) if self.by_composition else None
        return self.targets.scale(split.train, offset)


@dataclass(frozen=True)
class Trained:
    """Networks of one seed after training.

    Fields:
      predictions: [runs, n, t] in the unit of the data, NaN where none was asked for.
      best_epoch: [runs]; curves: name → [runs, epochs], errors on scaled labels.
      seconds: of training; params: of all runs.
    """

    predictions: np.ndarray
    best_epoch: np.ndarray
    curves: dict[str, np.ndarray]
    seconds: float
    params: Tree


@dataclass(frozen=True)
class Network:
    """A network and how it is trained.

    Fields:
      make: from a key; on a batch it returns `MoleculeStates`.
      epochs: of training.
      distance: what its states are compared with the teacher's by; None for a network that learns labels alone.
      with_dropout: whether any run drops anything.
    """

    make: Make
    epochs: int
    distance: Distance | None = None
    with_dropout: bool = False

    def problem(self, targets: Targets) -> BatchProblem:
        """As a problem for `fit_batches`."""
        return molecule_problem(self.make, targets.kind, distance=self.distance, with_dropout=self.with_dropout)


def train_teacher(
    data: MoleculeData, network: Network, settings: Mapping[str, float], split: Split, seed: int, console: Console
) -> Trained:
    """A network that sees coordinates, and its predictions for all molecules that have some.

    Args:
      data: of all seeds.
      network: its states are what it teaches.
      settings: learning rate, weight decay and dropout.
      split: of the seed; seed: of the weights and batches.
      console: for progress.
    """
    scale = data.scale(split)
    graphs = _graphs(data, scale, three_d=True)
    placed = data.geometry.placed
    parts = {name: getattr(split, name)[placed[getattr(split, name)]] for name in ("train", "valid")}
    everything = np.flatnonzero(placed)
    return _train(
        data,
        network.problem(data.targets),
        {name: np.full(1, value) for name, value in settings.items()},
        partial(_in_space, data, graphs, seed),
        parts,
        everything,
        scale,
        seed,
        network.epochs,
        f"teacher, seed {seed}",
        console,
    )


def teacher_states(data: MoleculeData, network: Network, params: Tree, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What a teacher's layers say of some molecules, the embedding left out.

    Args:
      data: of all seeds.
      network: the teacher; params: its weights, of one run.
      rows: molecules that have coordinates.

    Returns:
      ``atoms`` [N, layers, d] and ``molecules`` [n, layers, d] float16, zeros for all other molecules.
    """
    graphs = _graphs(data, None, three_d=True)
    states_of = _states_of(network)
    found: dict[str, np.ndarray] = {}
    for batch in _in_space(data, graphs, 0, rows, False)(0):
        atoms, molecules = jax.tree.map(np.asarray, states_of(params, batch))
        if not found:
            found["atoms"] = np.zeros((int(graphs.node_start[-1]), *atoms.shape[2:]), np.float16)
            found["molecules"] = np.zeros((len(graphs), *molecules.shape[1:]), np.float16)
        real = batch.graph_mask
        index = np.asarray(batch.index)[real]
        found["molecules"][index] = molecules[real]
        first = graphs.node_start[index]
        place = np.arange(batch.node_mask.shape[1])
        found["atoms"][(first[:, None] + place)[batch.node_mask[real]]] = atoms[batch.node_mask]
    return found


def train_students(
    data: MoleculeData,
    network: Network,
    settings: Mapping[str, np.ndarray],
    split: Split,
    seed: int,
    taught: Mapping[str, np.ndarray],
    console: Console,
    *,
    members: int = 1,
    start: Tree = None,
    title: str = "students",
) -> Trained:
    """Students of one teacher, one a setting, and their predictions for all molecules.

    Args:
      data: of all seeds.
      network: student and maps, see `DistilledMolecules`.
      settings: name → [runs, ...], those of the members of an ensemble one after another.
      split: of the seed; seed: of weights and batches.
      taught: what `teacher_states` gave.
      console: for progress.
      members: of every ensemble; the first members of all have the same first weights, and so have the second.
      start: weights to start from instead, of one run.
      title: what the progress is called.
    """
    scale = data.scale(split)
    # Only training reads what the teacher says, so other batches come without.
    with_teacher = _graphs(data, scale, taught=taught)
    without = _graphs(data, scale)

    def feed(rows: np.ndarray, shuffle: bool) -> Callable[[int], Iterator[Any]]:
        return _in_the_plane(data, with_teacher if shuffle else without, seed, rows, shuffle)

    problem = network.problem(data.targets)
    if start is not None:
        problem = problem._replace(init=lambda key: start)
    return _train(
        data,
        problem,
        settings,
        feed,
        {"train": split.train, "valid": split.valid},
        np.arange(len(data.molecules)),
        scale,
        seed,
        network.epochs,
        f"{title}, seed {seed}",
        console,
        members,
    )


def saved(run_dir: RunDirectory, name: str, network: Network, compute: Callable[[], Trained]) -> Trained:
    """What was trained, computed at most once in the life of a run's folder."""

    def stage() -> Tree:
        trained = compute()
        return {
            "params": leaves_by_name(trained.params),
            "curves": {key.replace("/", "."): value for key, value in trained.curves.items()},
            "predictions": trained.predictions,
            "best_epoch": trained.best_epoch,
            "seconds": np.float64(trained.seconds),
        }

    kept = run_dir.stage(name, stage)
    n_run = len(kept["best_epoch"])
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((n_run, *leaf.shape), leaf.dtype), shapes_of(network.make))
    return Trained(
        params=from_leaves(kept["params"], shapes),
        curves={key.replace(".", "/"): value for key, value in kept["curves"].items()},
        predictions=kept["predictions"],
        best_epoch=kept["best_epoch"],
        seconds=float(kept["seconds"]),
    )


def one_run(params: Tree, run: int) -> Tree:
    """The weights of one of several runs."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[run]), params)


def last_states(data: MoleculeData, network: Network, params: Tree) -> np.ndarray:
    """A student's states of all molecules after its last layer, [n, d].

    Args:
      data: of all seeds.
      network: the student; params: of one run.
    """
    states_of = _last_state_of(network)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    graphs = _graphs(data, None)
    for batch in _in_the_plane(data, graphs, 0, np.arange(len(graphs)), False)(0):
        index = np.asarray(batch.index)
        found.append((index[index >= 0], np.asarray(states_of(params, batch))[index >= 0]))
    index = np.concatenate([rows for rows, _ in found])
    return np.concatenate([states for _, states in found])[np.argsort(index)]


def milliseconds_per_molecule(data: MoleculeData, network: Network, params: Tree, *, three_d: bool) -> float:
    """Median time of one forward pass over a batch, divided by its molecules; compiled before.

    Args:
      data: of all seeds.
      network: whose outputs are computed; params: of one run.
      three_d: whether it sees coordinates.
    """
    rows = np.flatnonzero(data.geometry.placed)[: data.batch_size]
    graphs = _graphs(data, None, three_d=three_d)
    feed = _in_space if three_d else _in_the_plane
    batches = list(feed(data, graphs, 0, rows, False)(0))
    forward = jitted(network.problem(data.targets).outputs)
    return median_milliseconds(lambda: [forward(params, batch) for batch in batches]) / len(rows)


def _train(
    data: MoleculeData,
    problem: BatchProblem,
    settings: Mapping[str, np.ndarray],
    feed: Callable[[np.ndarray, bool], Callable[[int], Iterator[Any]]],
    parts: Mapping[str, np.ndarray],
    everything: np.ndarray,
    scale: Scale,
    seed: int,
    epochs: int,
    title: str,
    console: Console,
    members: int = 1,
) -> Trained:
    begun = time.perf_counter()
    n_run, n = len(next(iter(settings.values()))), len(data.molecules)
    train = feed(parts["train"], True)
    valid = list(feed(parts["valid"], False)(0))

    def predict(params: Tree, batches: Any) -> np.ndarray:
        found = predict_batches(problem, params, batches, lambda batch: batch.index, n)
        return scale.undo(found) if data.targets.kind == "regression" else found

    def score(params: Tree) -> np.ndarray:
        found = predict(params, valid)
        return np.array([data.targets.score(run, parts["valid"]) for run in found])

    with progress_bar(console, title, epochs) as tick:
        fitted = fit_batches(
            problem,
            jnp.stack([jax.random.fold_in(jax.random.key(seed), run % members) for run in range(n_run)]),
            {name: jnp.asarray(value, jnp.float32) for name, value in settings.items()},
            train,
            n_batch=sum(1 for _ in train(0)),
            epochs=epochs,
            score=score,
            higher_is_better=data.targets.higher_is_better,
            on_progress=tick,
        )
    predictions = predict(fitted.params, feed(everything, False)(0))
    seconds = time.perf_counter() - begun
    return Trained(predictions, fitted.best_epoch, fitted.curves, seconds, fitted.params)


def _graphs(
    data: MoleculeData, scale: Scale | None, *, three_d: bool = False, taught: Mapping[str, np.ndarray] | None = None
) -> ManyGraphs:
    """All molecules, with scaled labels where they train: with every choice of coordinates, or what students see."""
    graphs = data.molecules.graphs(labels=None if scale is None else scale.apply(data.targets.labels))
    globals_ = graphs.globals | {"placed": data.geometry.placed}
    if three_d:
        nodes = {"fields": graphs.nodes["fields"], "coordinates": data.geometry.coordinates}
        globals_ |= {"n_choice": data.geometry.n_choice}
        return replace(graphs, nodes=nodes, globals=globals_)
    nodes = {"fields": graphs.nodes["fields"], **data.nodes}
    if taught is not None:
        nodes |= {"teacher": taught["atoms"]}
        globals_ |= {"teacher": taught["molecules"]}
    return replace(graphs, nodes=nodes, globals=globals_)


def _in_space(
    data: MoleculeData, graphs: ManyGraphs, seed: int, rows: np.ndarray, shuffle: bool
) -> Callable[[int], Iterator[RowBatch]]:
    """Batches with one of each molecule's coordinates: drawn in training, else the first."""
    batches = Batches(
        graphs, data.batch_size, mode="similar", budgets=data.row_budgets, rows=rows, seed=seed, shuffle=shuffle
    )

    def epoch_of(epoch: int) -> Iterator[RowBatch]:
        for number, batch in enumerate(row_batches(batches, epoch)):
            choices = batch.nodes["coordinates"]
            drawn = choices[:, :, 0]
            if shuffle and choices.shape[2] > 1:
                drawn = choose(choices, batch.globals["n_choice"], _DRAWN, seed, epoch, number)
            yield replace(batch, nodes=batch.nodes | {"coordinates": drawn})

    return epoch_of


def _in_the_plane(
    data: MoleculeData, graphs: ManyGraphs, seed: int, rows: np.ndarray, shuffle: bool
) -> Callable[[int], Iterator[RowBatch | Batch]]:
    """Batches of what students see."""
    if not data.flat:
        batches = Batches(
            graphs, data.batch_size, mode="similar", budgets=data.row_budgets, rows=rows, seed=seed, shuffle=shuffle
        )
        return lambda epoch: row_batches(batches, epoch, data.pairs)
    flat = Batches(graphs, data.batch_size, rows=rows, seed=seed, shuffle=shuffle)
    return lambda epoch: (flat.batch(epoch, number) for number in range(flat.n_batch(epoch)))


def _states_of(network: Network) -> Callable[[Tree, RowBatch], tuple[Array, Array]]:
    graphdef = graphdef_of(network.make)

    def states_of(params: Tree, batch: RowBatch) -> tuple[Array, Array]:
        states = nnx.merge(graphdef, *params)(batch)
        return jnp.stack(states.atoms[1:], axis=2), jnp.stack(states.molecules[1:], axis=1)

    return jitted(states_of)


def _last_state_of(network: Network) -> Callable[[Tree, Any], Array]:
    graphdef = graphdef_of(network.make)
    return jitted(lambda params, batch: nnx.merge(graphdef, *params)(batch).molecules[-1])


def stacked_settings(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Settings of several runs, name → [runs, ...]."""
    return {name: np.stack([np.asarray(row[name], np.float32) for row in rows]) for name in rows[0]}
