import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from jaxgkd import cli
from jaxgkd.data.bond_counts import neighbour_fields
from jaxgkd.data.molecule_sets import load_molecule_set
from jaxgkd.exported import load
from jaxgkd.graphs import shortest_paths
from jaxgkd.nn.molecule_relations import bond_counts, bond_kinds
from jaxgkd.nn.named_weights import student_weights
from jaxgkd.recipes.kept_molecules import molecule_student_maker
from jaxgkd.recipes.molecule_baselines import fingerprints, fragment_counts
from jaxgkd.training.student_folder import KeptStudent, write_student

SMILES = ["CCO", "c1ccccc1C(=O)O", "C", "CC(C)N", "C#N.Cl"]
MODELS = {
    "graphs": {"recipe": "ccmd", "model": {"kind": "gine", "width": 8, "layers": 2, "heads": 2, "tasks": 2}},
    "paths": {"recipe": "ccmd", "model": {"kind": "transformer", "width": 8, "layers": 2, "heads": 2, "tasks": 2}},
    "atoms": {"recipe": "gallon", "model": {"kind": "atoms", "width": 8, "layers": 2, "tasks": 2}},
    "neighbours": {"recipe": "gallon", "model": {"kind": "neighbours", "width": 8, "layers": 2, "tasks": 2}},
    "fingerprint": {"recipe": "gallon", "model": {"kind": "fingerprint", "width": 8, "layers": 2, "tasks": 2}},
    "fragments": {"recipe": "gallon", "model": {"kind": "fragments", "width": 8, "layers": 2, "tasks": 2}},
}


def kept_student(kind: str, says: str, hydrogens: str) -> KeptStudent:
    """An ensemble of two students with random weights."""
    random = np.random.default_rng(0)
    empty = KeptStudent(
        reads={"data": "molecules", "inputs": kind, "hydrogens": hydrogens},
        says={"kind": says, "tasks": ["one", "two"], "unit": "eV"},
        members=[{"seed": 0, "member": i, "valid": 0.5} for i in (0, 1)],
        chosen=[0, 1],
        why="the only ones",
        weights={},
        **MODELS[kind],
    )
    make = molecule_student_maker(empty)
    members = [student_weights(*nnx.split(make(jax.random.key(i)), nnx.Param, ...)[1:]) for i in (0, 1)]
    weights = {name: np.stack([one[name] for one in members]) for name in members[0]}
    weights |= {"outputs.std": random.random((2, 2)) + 0.5, "outputs.mean": random.normal(size=(2, 2))}
    if says == "values" and MODELS[kind]["recipe"] == "ccmd":
        weights["outputs.composition"] = random.normal(size=(2, 119, 2))
    return dataclasses.replace(empty, weights=weights)


def inputs_of(kind: str, molecules) -> dict[str, np.ndarray]:
    graphs = molecules.graphs()
    first = np.repeat(graphs.node_start[:-1], graphs.n_edge)
    flat = {"atom_start": graphs.node_start, "atoms": graphs.nodes["fields"]}
    if kind == "graphs":
        ends = {"senders": graphs.senders + first, "receivers": graphs.receivers + first}
        return flat | ends | {"bonds": graphs.edges["fields"]}
    if kind == "neighbours":
        return flat | {"atoms": np.concatenate([flat["atoms"], neighbour_fields(graphs)], axis=1)}
    if kind == "fingerprint":
        bits = fingerprints(molecules, range(len(molecules)))
        return {"bit_start": np.r_[0, np.cumsum(bits.sum(axis=1))], "bits": np.nonzero(bits)[1]}
    if kind == "fragments":
        counts = fragment_counts(molecules, range(len(molecules)))
        start, there = np.r_[0, np.cumsum((counts > 0).sum(axis=1))], np.nonzero(counts)
        return {"fragment_start": start, "fragments": there[1], "counts": counts[there]}
    if kind == "atoms":
        return flat
    paths, counts = shortest_paths(graphs, bond_kinds(graphs.edges["fields"])), bond_counts(graphs)
    n, longest = len(graphs), int(graphs.n_node.max())
    rows = {
        "atoms": np.zeros((n, longest, 9), int),
        "bond_counts": np.zeros((n, longest, counts.shape[1]), int),
        "distance": np.zeros((n, longest, longest), int),
        "hops": np.zeros((n, longest, longest, 5), int),
        "n_atom": graphs.n_node,
    }
    at = 0
    for i, size in enumerate(graphs.n_node.tolist()):
        own = slice(graphs.node_start[i], graphs.node_start[i + 1])
        rows["atoms"][i, :size], rows["bond_counts"][i, :size] = graphs.nodes["fields"][own], counts[own]
        pairs = paths.kind[at : at + size**2].reshape(size, size)
        rows["distance"][i, :size, :size], rows["hops"][i, :size, :size] = paths.distance[pairs], paths.hops[pairs]
        at += size**2
    return rows


@pytest.mark.parametrize(
    ("kind", "says", "hydrogens"),
    [
        ("paths", "values", "implicit"),
        ("graphs", "binary", "implicit"),
        ("neighbours", "values", "explicit"),
        ("fingerprint", "binary", "implicit"),
        ("fragments", "values", "explicit"),
        pytest.param("graphs", "values", "explicit", marks=pytest.mark.thorough),
        pytest.param("atoms", "values", "implicit", marks=pytest.mark.thorough),
    ],
)
def test_a_program_says_what_prediction_says(tmp_path, own_cache, kind, says, hydrogens):
    run, table, out = tmp_path / "run", tmp_path / "new.csv", tmp_path / "said.parquet"
    run.mkdir()
    for name in ("config.json", "summary.json"):
        (run / name).write_text("{}")
    write_student(run, kept_student(kind, says, hydrogens))
    table.write_text("\n".join(["smiles", *SMILES]) + "\n")
    assert cli.main(["predict", str(run), "--data", str(table), "--out", str(out)]) == 0
    assert cli.main(["export", str(run), "--out", str(tmp_path / "student")]) == 0
    found = pd.read_parquet(out)
    column = "predicted" if says == "values" else "p"
    expected = found[[f"{column}_one", f"{column}_two"]].to_numpy()
    assert {"std_one", "std_two"} < set(found.columns)
    student = load(tmp_path / "student")
    molecules = load_molecule_set(table, hydrogens=hydrogens, labelled=False)
    np.testing.assert_allclose(student(**inputs_of(kind, molecules)), expected, rtol=1e-5, atol=1e-6)
