"""Molecules through the students of ``jaxgkd run ccmd`` and ``jaxgkd run gallon``, some thousands at a time.

Graphs, paths, bags of atoms and fingerprints are made for a chunk of molecules and thrown away again; chunks and
batches have few shapes, so that programs are compiled a few times whatever the number of molecules.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.special import expit

from jaxgkd.data.molecules import Molecules
from jaxgkd.data.new_molecules import NewMolecules, read_new_molecules
from jaxgkd.graphs import Batches, ManyGraphs, row_batches, shortest_paths
from jaxgkd.graphs.budgets import Budget
from jaxgkd.graphs.input_rows import slots
from jaxgkd.graphs.size_classes import similar_budgets
from jaxgkd.nn.molecule_bags import padded_bags
from jaxgkd.nn.molecule_relations import bond_counts, bond_kinds
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.predict.outcome import Outcome
from jaxgkd.predict.output_file import OutputFile
from jaxgkd.recipes.gallon_bags import bags_for
from jaxgkd.recipes.kept_molecules import N_HOP, in_unit, molecule_student_maker, network_weights
from jaxgkd.recipes.molecule_baselines import element_counts
from jaxgkd.training.batch_loop import over_runs
from jaxgkd.training.by_value import jitted
from jaxgkd.training.student_folder import KeptStudent

# Molecules of a chunk, and of a batch of graphs in it.
_CHUNK, _BATCH = 4096, 128
Ask = Callable[[Any], np.ndarray]


def predict_molecules(
    kept: KeptStudent,
    members: Sequence[int],
    source: Path | Molecules,
    open_output: Callable[..., OutputFile],
) -> Outcome:
    """Write ``row``, ``smiles``, what is predicted of every task, and ``problem`` of every record, in their order.

    Of numbers that is ``predicted_<task>`` in the unit of the labels; of two classes ``predicted_<task>``, 0 or 1, and
    ``p_<task>``, the probability of 1; with several members also ``std_<task>``, how far they disagree.

    Args:
      kept: the student.
      members: whose predictions are averaged.
      source: of the molecules.
      open_output: opens the file, given the units of columns.

    Raises:
      DataError: the molecules cannot be read.
    """
    unit = kept.says.get("unit")
    units = {f"predicted_{task}": unit for task in kept.says["tasks"]} if unit else {}
    with tempfile.TemporaryDirectory() as scratch:
        new = read_new_molecules(source, hydrogens=kept.reads["hydrogens"], scratch=Path(scratch))
        found = _said(kept, members, new.molecules)
        outcome = Outcome("molecules")
        with open_output(units) as out:
            for start in range(0, len(new.rows), _CHUNK):
                records = range(start, min(start + _CHUNK, len(new.rows)))
                problems = {record - start: new.problems[record] for record in records if record in new.problems}
                outcome.add([new.rows[record] for record in records], problems)
                out.write(_columns(kept, new, records, found, problems))
    return outcome


def _columns(
    kept: KeptStudent, new: NewMolecules, records: range, found: np.ndarray, problems: dict[int, str]
) -> dict[str, Any]:
    place = new.place[records.start : records.stop]
    # Records that are no molecules take any row and lose its values again.
    said = np.where((place >= 0)[None, :, None], found[:, place], np.nan)
    mean, spread = said.mean(axis=0), said.std(axis=0)
    columns: dict[str, Any] = {
        "row": [new.rows[record] for record in records],
        "smiles": [new.smiles[record] for record in records],
    }
    for i, task in enumerate(kept.says["tasks"]):
        if kept.says["kind"] == "binary":
            columns[f"predicted_{task}"] = [None if np.isnan(p) else int(p >= 0.5) for p in mean[:, i]]
            columns[f"p_{task}"] = mean[:, i].astype(np.float32)
        else:
            columns[f"predicted_{task}"] = mean[:, i]
        if len(said) > 1:
            columns[f"std_{task}"] = spread[:, i].astype(np.float32)
    return columns | {"problem": [problems.get(i) for i in range(len(records))]}


def _said(kept: KeptStudent, members: Sequence[int], molecules: Molecules) -> np.ndarray:
    """[members, n, t] probabilities, or numbers in the unit of the labels."""
    make = molecule_student_maker(kept)
    weights = kept.of_members(members)
    states = jax.tree.map(jnp.asarray, states_of(make, network_weights(weights)))
    graphdef = graphdef_of(make)
    forward = jitted(
        lambda states, inputs: over_runs(lambda *one: nnx.merge(graphdef, *one[:2])(one[2]).outputs, states, inputs)
    )
    chunks = {"graphs": _flat, "paths": _in_rows}.get(kept.reads["inputs"], partial(_bags, kept.reads["inputs"]))
    outputs = np.concatenate(list(chunks(molecules, lambda inputs: np.asarray(forward(states, inputs)))), axis=1)
    if kept.says["kind"] == "binary":
        return expit(outputs.astype(np.float64))
    return in_unit(outputs.astype(np.float64), weights, element_counts(molecules))


def _flat(molecules: Molecules, ask: Ask) -> Iterator[np.ndarray]:
    """Outputs of networks over batches whose atoms lie one after another."""
    graphs = molecules.graphs()
    batches = Batches(graphs, min(_BATCH, len(graphs)), shuffle=False)
    for number in range(batches.n_batch()):
        batch = batches.batch(0, number)
        yield ask(batch)[:, np.asarray(batch.index) >= 0]


def _in_rows(molecules: Molecules, ask: Ask) -> Iterator[np.ndarray]:
    """Outputs of networks over batches whose molecules have rows of their own."""
    graphs = molecules.graphs()
    budgets = similar_budgets(graphs.n_node, graphs.n_edge, min(_BATCH, len(graphs)))
    for start in range(0, len(graphs), _CHUNK):
        part = graphs.part(start, min(start + _CHUNK, len(graphs)))
        yield _chunk_in_rows(part, budgets, ask)


def _chunk_in_rows(graphs: ManyGraphs, budgets: Sequence[Budget], ask: Ask) -> np.ndarray:
    paths = shortest_paths(graphs, bond_kinds(graphs.edges["fields"]), n_hop=N_HOP)
    pairs = {"distance": paths.distance.astype(np.uint8)[paths.kind], "hops": paths.hops.astype(np.uint8)[paths.kind]}
    nodes = {"fields": graphs.nodes["fields"], "bonds": bond_counts(graphs)}
    graphs = ManyGraphs(
        nodes, graphs.edges, graphs.senders, graphs.receivers, graphs.globals, graphs.node_start, graphs.edge_start
    )
    batches = Batches(graphs, min(_BATCH, len(graphs)), mode="similar", budgets=budgets, shuffle=False)
    index, outputs = [], []
    for batch in row_batches(batches, 0, pairs):
        real = np.asarray(batch.index) >= 0
        index.append(np.asarray(batch.index)[real])
        outputs.append(ask(batch)[:, real])
    return np.concatenate(outputs, axis=1)[:, np.argsort(np.concatenate(index))]


def _bags(kind: Any, molecules: Molecules, ask: Ask) -> Iterator[np.ndarray]:
    """Outputs of networks over bags of atoms, of atoms with their neighbours, or of fragments."""
    size = min(_CHUNK, len(molecules))
    for start in range(0, len(molecules), size):
        rows = range(start, min(start + size, len(molecules)))
        bags = bags_for(molecules, kind, rows)
        yield ask(padded_bags(bags, size + 1, round_up=slots))[:, : len(rows)]
