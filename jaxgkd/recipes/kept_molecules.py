"""Students of molecules as the runs of ``ccmd`` and ``gallon`` keep them, and how they are made again from that.

Beside a network's weights lie ``outputs.std`` and ``outputs.mean`` [members, t], which turn what it says of numbers
into the unit of the labels, and ``outputs.composition`` [members, 119, t] where labels were counted from a ridge on the
counts of elements.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxgkd.data.molecule_sets import unit_of
from jaxgkd.data.molecules import Molecules
from jaxgkd.nn.molecule_bags import AtomMLP, FingerprintMLP
from jaxgkd.nn.named_weights import student_weights
from jaxgkd.recipes.gallon_bags import OF_FRAGMENTS, atom_sizes
from jaxgkd.recipes.gallon_graph_students import GraphSummary
from jaxgkd.recipes.molecule_baselines import BITS, composition_weights, element_counts
from jaxgkd.recipes.molecule_networks import Sizes, make_open_student
from jaxgkd.recipes.molecule_rows import MoleculeData, Trained
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.scaling import Scale
from jaxgkd.training.student_folder import KeptStudent

OUTPUTS = "outputs."
#: Edges of a path that a transformer tells apart.
N_HOP = 5


def keep_ccmd_student(
    data: MoleculeData,
    students: Sequence[Trained],
    splits: Sequence[Any],
    *,
    kind: str,
    sizes: Sizes,
    ensemble: int,
) -> KeptStudent:
    """What a run of ``ccmd`` keeps: the distilled students of all seeds, ``ensemble`` of each.

    Args:
      data: of all seeds.
      students: of every seed; the first ``ensemble`` runs are the student alone, the next ones the distilled one.
      splits: of every seed.
      kind, sizes: of the networks.
    """
    mine = slice(ensemble, 2 * ensemble)
    sign = 1.0 if data.targets.higher_is_better else -1.0
    scores = np.stack([sign * (sign * one.curves["valid"][mine]).max(axis=1) for one in students])
    weights = [
        {name: leaf[mine] for name, leaf in student_weights(*one.params).items()} | _outputs(data, split, ensemble)
        for one, split in zip(students, splits, strict=True)
    ]
    best = int((sign * scores).mean(axis=1).argmax())
    return KeptStudent(
        recipe="ccmd",
        reads={
            "data": "molecules",
            "inputs": "graphs" if kind == "gine" else "paths",
            "hydrogens": data.molecules.hydrogens,
        },
        model={"kind": kind, **sizes._asdict()},
        says=_says(data.molecules, data.targets),
        members=[
            {"seed": seed, "member": member, "valid": float(score)}
            for seed, of_seed in enumerate(scores)
            for member, score in enumerate(of_seed)
        ],
        chosen=list(range(best * ensemble, (best + 1) * ensemble)),
        why=f"best {data.targets.metric} on its own validation molecules",
        weights={name: np.concatenate([one[name] for one in weights]) for name in weights[0]},
    )


def keep_gallon_student(
    molecules: Molecules,
    targets: Targets,
    scales: Sequence[Scale],
    networks: Sequence[tuple[Any, Any]],
    valid: Sequence[float],
    *,
    kind: str,
    width: int,
    layers: int,
) -> KeptStudent:
    """What a run of ``gallon`` keeps: the distilled student of every seed.

    Args:
      molecules: of the run; targets: of these; scales: of every seed.
      networks: parameters and other state of every seed's student.
      valid: best validation score of every seed, higher being better.
      kind, width, layers: of the networks.
    """
    weights = [
        {name: leaf[None] for name, leaf in student_weights(*network).items()} | _scaled(scale)
        for network, scale in zip(networks, scales, strict=True)
    ]
    return KeptStudent(
        recipe="gallon",
        reads={
            "data": "molecules",
            "inputs": "graphs" if kind == "gnn" else kind,
            "hydrogens": molecules.hydrogens,
        },
        model={"kind": kind, "width": width, "layers": layers, "tasks": targets.labels.shape[1]},
        says=_says(molecules, targets),
        members=[{"seed": seed, "valid": float(score)} for seed, score in enumerate(valid)],
        chosen=[int(np.argmax(valid))],
        why=f"best {targets.metric} on its own validation molecules, counted so that higher is better",
        weights={name: np.concatenate([one[name] for one in weights]) for name in weights[0]},
    )


def molecule_student_maker(kept: KeptStudent) -> Callable[[jax.Array], nnx.Module]:
    """A function from a key to an untrained student of the kept one's shape."""
    model = dict(kept.model)
    if kept.recipe == "ccmd":
        kind = model.pop("kind")
        return make_open_student(kind, Sizes(**model), N_HOP)

    def make(key: jax.Array) -> nnx.Module:
        kind, width, layers, tasks = (model[name] for name in ("kind", "width", "layers", "tasks"))
        if kind == "gnn":
            return GraphSummary(width, layers, tasks, key)
        rngs = nnx.Rngs(params=key)
        if kind in OF_FRAGMENTS:
            return FingerprintMLP(BITS, width, tasks, rngs=rngs)
        return AtomMLP(atom_sizes(kind), width, layers, tasks, rngs=rngs)

    return make


def network_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the network alone, as `jaxgkd.nn.named_weights.states_of` takes them."""
    return {name: leaf for name, leaf in weights.items() if not name.startswith(OUTPUTS)}


def in_unit(outputs: np.ndarray, weights: Mapping[str, np.ndarray], counts: np.ndarray) -> np.ndarray:
    """What students say of numbers, in the unit of the labels.

    Args:
      outputs: [members, n, t] of the networks.
      weights: of these members.
      counts: [n, 119] atoms of every element.

    Returns:
      [members, n, t] float64.
    """
    found = outputs * weights[f"{OUTPUTS}std"][:, None] + weights[f"{OUTPUTS}mean"][:, None]
    composition = weights.get(f"{OUTPUTS}composition")
    return found if composition is None else found + counts @ composition


def _says(molecules: Molecules, targets: Targets) -> dict[str, Any]:
    kind = "binary" if targets.kind == "classification" else "values"
    unit = unit_of(molecules) if kind == "values" else None
    return {"kind": kind, "tasks": [task.name for task in molecules.tasks], "unit": unit}


def _outputs(data: MoleculeData, split: Any, members: int) -> dict[str, np.ndarray]:
    """`OUTPUTS` of a seed, the same for all members of its ensemble."""
    if not data.by_composition or data.targets.kind == "classification":
        return {name: np.repeat(leaf, members, axis=0) for name, leaf in _scaled(data.scale(split)).items()}
    composition, intercept = composition_weights(data.molecules, split, data.targets.labels)
    scale = data.scale(split)
    # What molecules are counted from is the ridge and the mean of what it leaves in the training part, a constant.
    ridge = element_counts(data.molecules) @ composition + intercept
    rest = (scale.mean - ridge).mean(axis=0)
    found = {"std": scale.std, "mean": intercept + rest, "composition": composition}
    return {f"{OUTPUTS}{name}": np.repeat(leaf[None], members, axis=0) for name, leaf in found.items()}


def _scaled(scale: Scale) -> dict[str, np.ndarray]:
    found = {"std": np.asarray(scale.std, np.float64), "mean": np.asarray(scale.mean, np.float64)}
    return {f"{OUTPUTS}{name}": leaf[None] for name, leaf in found.items()}
