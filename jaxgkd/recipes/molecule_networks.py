"""The networks of a recipe over molecules: teachers that see coordinates, students that see bonds."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax import Array

from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS
from jaxgkd.graphs import Paths
from jaxgkd.nn.gine import GINE
from jaxgkd.nn.molecule_gcn import MoleculeGCN
from jaxgkd.nn.molecule_problem import DistilledMolecules, Make
from jaxgkd.nn.molecule_relations import DistanceRelations, OpenPathRelations, PathRelations, RelationEncoding
from jaxgkd.nn.molecule_transformer import MoleculeTransformer
from jaxgkd.nn.schnet import SchNet
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name, load_tree
from jaxgkd.training.run_dir import read_json

TeacherKind = Literal["transformer", "schnet"]
StudentKind = Literal["transformer", "gine"]
GraphTeacher = Literal["gine", "gcn"]
NAMES = {"transformer": "Transformer", "gine": "GINE", "schnet": "SchNet"}
_ATOM_SIZES, _BOND_SIZES = tuple(ATOM_FIELDS.values()), tuple(BOND_FIELDS.values())

#: Different bonds, by all their fields.
N_BOND_KINDS = int(np.prod(_BOND_SIZES))


class Sizes(NamedTuple):
    """What teacher and student have in common: width of all states, layers, heads of attention, and tasks."""

    width: int
    layers: int
    heads: int
    tasks: int


def make_teacher(kind: TeacherKind, sizes: Sizes) -> Make:
    """A function from a key to a network over rows (`RowBatch`) with coordinates."""

    def make(key: Array) -> nnx.Module:
        rngs = nnx.Rngs(params=key)
        if kind == "schnet":
            return SchNet(_ATOM_SIZES[0], sizes.width, sizes.layers, sizes.tasks, rngs=rngs)
        relations = DistanceRelations(_ATOM_SIZES[0], sizes.heads, rngs=rngs)
        return MoleculeTransformer(
            _ATOM_SIZES, sizes.width, sizes.layers, sizes.heads, sizes.tasks, relations=relations, rngs=rngs
        )

    return make


def make_open_student(kind: StudentKind, sizes: Sizes, n_hop: int) -> Make:
    """A function from a key to the student of `make_student` without maps, for molecules of any kinds of paths.

    Args:
      kind, sizes: as there; ``n_hop`` edges of a path that it tells apart.
    """

    def make(key: Array) -> nnx.Module:
        rngs = nnx.Rngs(params=key)
        if kind == "gine":
            return GINE(_ATOM_SIZES, _BOND_SIZES, sizes.width, sizes.layers, sizes.tasks, rngs=rngs)
        relations = OpenPathRelations(n_hop, sizes.heads, n_bond_kinds=N_BOND_KINDS, rngs=rngs)
        return _transformer(sizes, relations, rngs)

    return make


def _transformer(sizes: Sizes, relations: RelationEncoding, rngs: nnx.Rngs) -> MoleculeTransformer:
    return MoleculeTransformer(
        _ATOM_SIZES,
        sizes.width,
        sizes.layers,
        sizes.heads,
        sizes.tasks,
        relations=relations,
        bond_sizes=_BOND_SIZES,
        rngs=rngs,
    )


def make_student(kind: StudentKind, sizes: Sizes, paths: Paths | None, *, mapped: bool) -> Make:
    """A function from a key to a student, `DistilledMolecules`.

    Args:
      kind: "transformer" over rows (`RowBatch`), or "gine" over flat ones.
      sizes: of all layers.
      paths: what joins the pairs of atoms, which the transformer needs.
      mapped: whether a linear map lies between its states and the teacher's.
    """

    def student(rngs: nnx.Rngs) -> nnx.Module:
        if kind == "gine":
            return GINE(_ATOM_SIZES, _BOND_SIZES, sizes.width, sizes.layers, sizes.tasks, rngs=rngs)
        assert paths is not None
        return _transformer(sizes, PathRelations(paths, sizes.heads, n_bond_kinds=N_BOND_KINDS, rngs=rngs), rngs)

    def make(key: Array) -> nnx.Module:
        rngs = nnx.Rngs(params=key)
        return DistilledMolecules(student(rngs), sizes.width, sizes.width, sizes.layers if mapped else 0, rngs=rngs)

    return make


def make_graph_teacher(kind: GraphTeacher, width: int, layers: int, tasks: int) -> Make:
    """A function from a key to a network over flat batches."""

    def make(key: Array) -> nnx.Module:
        rngs = nnx.Rngs(params=key)
        if kind == "gcn":
            return MoleculeGCN(_ATOM_SIZES, width, layers, tasks, rngs=rngs)
        return GINE(_ATOM_SIZES, _BOND_SIZES, width, layers, tasks, rngs=rngs)

    return make


def weights_of_run(folder: Path, make: Make) -> Any:
    """Weights of the distilled student of a finished run's first seed, to start from; those of the outputs are new.

    Args:
      folder: of the run.
      make: of the student that is to start from them.

    Raises:
      CheckpointError: there is no such run, or its students are of another shape.
    """
    kept = load_tree(folder / "checkpoints" / "students-0")
    fresh = nnx.split(make(jax.random.key(0)), nnx.Param, ...)[1:]
    new = leaves_by_name(fresh)
    # The first row is the student alone, the second the distilled one, each with as many members.
    members = read_json(folder / "config.json")["ensemble"]
    old = {name: leaf[members] for name, leaf in kept["params"].items()}
    outputs = {name: leaf for name, leaf in new.items() if "head" in name}
    return from_leaves({**{name: old[name] for name in old if name in new}, **outputs}, fresh)
