"""Students of molecules as programs: atoms and bonds as numbers, in any number of molecules.

What the numbers mean stands in `jaxgkd.data.atom_fields`; RDKit, which reads them from SMILES, is not part of a
program. Molecules lie one after another; only the transformer, which compares all pairs of atoms, takes rows.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS
from jaxgkd.export.program import Input, Program
from jaxgkd.graphs import RowBatch, aggregate
from jaxgkd.graphs.traced_layout import layout_of_starts, one_more, traced_layout
from jaxgkd.nn.molecule_bags import Bags, damped
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.gallon_bags import atom_sizes
from jaxgkd.recipes.kept_molecules import N_HOP, OUTPUTS, molecule_student_maker, network_weights
from jaxgkd.recipes.molecule_baselines import BITS
from jaxgkd.training.student_folder import KeptStudent

_ATOM = f"fields of every atom: {', '.join(ATOM_FIELDS)}"
_BOND = f"fields of every edge: {', '.join(BOND_FIELDS)}"
_START = Input(("n + 1",), "int32", "atoms atom_start[i]:atom_start[i + 1] are those of molecule i")
_ELEMENT, _HYDROGENS = (list(ATOM_FIELDS).index(name) for name in ("atomic_number", "hydrogens"))
_ATOMS = Input(("a", len(ATOM_FIELDS)), "int32", _ATOM)
_Arrays = Mapping[str, Array]


def molecule_program(kept: KeptStudent) -> Program:
    """From molecules to [n, tasks]: probabilities of 1, or numbers in the unit of the labels."""
    kind = kept.reads["inputs"]
    make = molecule_student_maker(kept)
    graphdef = graphdef_of(make)
    batch_of, inputs = {
        "graphs": (_flat, _FLAT),
        "paths": (_rows, _ROWS),
        "fingerprint": (_bits, _BITS),
        "fragments": (_fragments, _FRAGMENTS),
    }.get(kind, (_bag, {"atom_start": _START, "atoms": _bag_atoms(kind)}))
    implicit = kept.reads["hydrogens"] == "implicit"

    def call(weights: _Arrays, given: _Arrays) -> Array:
        said = nnx.merge(graphdef, *states_of(make, network_weights(weights)))(batch_of(given)).outputs
        if kept.says["kind"] == "binary":
            return jax.nn.sigmoid(said)
        said = said * weights[f"{OUTPUTS}std"] + weights[f"{OUTPUTS}mean"]
        composition = weights.get(f"{OUTPUTS}composition")
        return said if composition is None else said + _composition(given, composition, implicit)

    about = "a probability of 1 for each task" if kept.says["kind"] == "binary" else "a number for each task"
    return Program(call, inputs, ("n", len(kept.says["tasks"])), about)


_FLAT = {
    "atom_start": _START,
    "atoms": _ATOMS,
    "senders": Input(("e",), "int32", "atom each edge starts from, counted over all molecules; two edges a bond"),
    "receivers": Input(("e",), "int32", "atom each edge leads to"),
    "bonds": Input(("e", len(BOND_FIELDS)), "int32", _BOND),
}
_ROWS = {
    "atoms": Input(("n", "l", len(ATOM_FIELDS)), "int32", f"{_ATOM}; 0 past the last atom"),
    "bond_counts": Input(
        ("n", "l", sum(BOND_FIELDS.values())), "int32", "bonds of every value of every field that an atom has"
    ),
    "distance": Input(("n", "l", "l"), "int32", "bonds of the shortest path between two atoms, at most 61"),
    "hops": Input(
        ("n", "l", "l", N_HOP), "int32", "number of each of its first bonds by all its fields, from 1; 0 past its end"
    ),
    "n_atom": Input(("n",), "int32", "atoms of every molecule"),
}
_BITS = {
    "bit_start": Input(("n + 1",), "int32", "bits bit_start[i]:bit_start[i + 1] are those of molecule i"),
    "bits": Input(("v",), "int32", f"Morgan fingerprint of radius 2, the bits that are set, below {BITS}"),
}

_FRAGMENTS = {
    "fragment_start": Input(
        ("n + 1",), "int32", "fragments fragment_start[i]:fragment_start[i + 1] are those of molecule i"
    ),
    "fragments": Input(("v",), "int32", f"Morgan count fingerprint of radius 2, what is there, below {BITS}"),
    "counts": Input(("v",), "int32", "how often each of them is there"),
}


def _bag_atoms(kind: str) -> Input:
    about = f"{_ATOM}; then neighbours by element and bond" if kind == "neighbours" else _ATOM
    return Input(("a", len(atom_sizes(kind))), "int32", about)  # type: ignore[arg-type]


def _flat(given: _Arrays) -> Any:
    """What `GINE` reads of a `Batch` without padding."""
    n_atom, n = given["atoms"].shape[0], given["atom_start"].shape[0] - 1
    layout = traced_layout(given["senders"], given["receivers"], n_atom, n_atom)
    readout = layout_of_starts(jnp.arange(n_atom, dtype=jnp.int32), given["atom_start"], n_atom)
    nodes, edges = {"fields": given["atoms"]}, {"fields": one_more(given["bonds"])[layout.order]}
    return SimpleNamespace(
        graph=SimpleNamespace(nodes=nodes, edges=edges),
        layout=layout,
        readout=readout,
        node_mask=jnp.ones(n_atom, bool),
        graph_mask=jnp.ones(n, bool),
    )


def _rows(given: _Arrays) -> RowBatch:
    n, longest = given["atoms"].shape[:2]
    return RowBatch(
        nodes={"fields": given["atoms"], "bonds": given["bond_counts"]},
        pairs={"distance": given["distance"], "hops": given["hops"]},
        globals={},
        node_mask=jnp.arange(longest) < given["n_atom"][:, None],
        graph_mask=jnp.ones(n, bool),
        index=jnp.arange(n, dtype=jnp.int32),
    )


def _bag(given: _Arrays) -> Bags:
    n_atom = given["atoms"].shape[0]
    layout = layout_of_starts(jnp.arange(n_atom, dtype=jnp.int32), given["atom_start"], n_atom)
    return Bags(given["atoms"], layout, jnp.ones(n_atom), _sizes(given["atom_start"]))


def _bits(given: _Arrays) -> Bags:
    layout = layout_of_starts(one_more(given["bits"]), given["bit_start"], BITS)
    counts = one_more(jnp.ones(given["bits"].shape[0]))
    return Bags(jnp.arange(BITS)[:, None], layout, counts, _sizes(given["bit_start"]))


def _fragments(given: _Arrays) -> Bags:
    bags = _bits({"bit_start": given["fragment_start"], "bits": given["fragments"]})
    return bags._replace(counts=damped(one_more(given["counts"])))


def _sizes(start: Array) -> Array:
    return jnp.diff(start)[:, None].astype(jnp.float32)


def _composition(given: _Arrays, weights: Array, implicit: bool) -> Array:
    """[n, t] the sum over atoms of what a ridge on counts of elements gives each, [119, t]; implied hydrogens too."""

    def of_atoms(fields: Array) -> Array:
        implied = fields[..., _HYDROGENS, None] * weights[0] if implicit else 0.0
        return weights[fields[..., _ELEMENT]] + implied

    if "n_atom" in given:
        there = jnp.arange(given["atoms"].shape[1]) < given["n_atom"][:, None]
        return jnp.sum(jnp.where(there[..., None], of_atoms(given["atoms"]), 0.0), axis=1)
    n_atom = given["atoms"].shape[0]
    readout = layout_of_starts(jnp.arange(n_atom, dtype=jnp.int32), given["atom_start"], n_atom)
    return aggregate(of_atoms(given["atoms"]), readout)
