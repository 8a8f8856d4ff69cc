"""The students of ``jaxgkd run bleg`` as a run keeps them, one a fold, with what their fold fitted to its subjects.

Beside a network's weights may lie ``fold.whitening`` [members, r, r] of the tangent space, and of ComBat
``fold.mean`` and ``fold.scale`` [members, p] and ``fold.shifts`` and ``fold.scales`` [members, sites, p]. An MLP's
principal coordinates are no longer there: its first layer is linear, so both are one product with all connections.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxgkd.data.brain_graphs import brain_graphs
from jaxgkd.data.brains import Brains
from jaxgkd.data.connectivity import TangentSpace, connectivity_of, fit_tangent, from_upper, shrunk_matrices, upper_of
from jaxgkd.data.harmonise import ComBat, fit_combat
from jaxgkd.errors import CheckpointError
from jaxgkd.nn.brain_inputs import BrainInputs, brain_inputs
from jaxgkd.nn.brain_students import brain_student_maker
from jaxgkd.nn.named_weights import states_of, student_weights
from jaxgkd.nn.untrained import graphdef_of, shapes_of
from jaxgkd.recipes.bleg_config import BLEG
from jaxgkd.recipes.bleg_students import Lesson
from jaxgkd.recipes.brain_baselines import map_to_coordinates
from jaxgkd.recipes.brain_views import fold_features
from jaxgkd.training.checkpoint import from_leaves
from jaxgkd.training.student_folder import KeptStudent

FOLD = "fold."


def keep_brain_student(
    brains: Brains,
    lessons: Sequence[Lesson],
    folds: Sequence[tuple[int, int]],
    studied: Sequence[Mapping[str, Any]],
    make: Callable[[jax.Array], nnx.Module],
    *,
    row: str,
    config: BLEG,
) -> KeptStudent:
    """What is kept of the students of a row.

    Args:
      brains: of the run; lessons: of every fold; folds: their seed and number.
      studied: what was trained, some folds after others, see `jaxgkd.recipes.bleg_students.study`.
      make: a student with its layer to the teacher's states.
      row: which students.
      config: of the run.
    """
    named = [one["weights"][row] for one in studied]
    leaves = {name: np.concatenate([one[name] for one in named]) for name in named[0]}
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(lessons), *leaf.shape), leaf.dtype), shapes_of(make))
    weights = student_weights(*from_leaves(leaves, like))
    place = min(list(studied[0]["weights"]).index(row), len(studied[0]["valid"]) - 1)
    valid = np.concatenate([one["valid"][place].max(axis=-1) for one in studied])
    fitted, sites = zip(*(_fitted(brains, lesson, config) for lesson in lessons), strict=True)
    if config.student == "mlp":
        kernels, biases = zip(
            *(
                _without_coordinates(brains, lesson, config, weights["first.kernel"][i], weights["first.bias"][i])
                for i, lesson in enumerate(lessons)
            ),
            strict=True,
        )
        weights |= {"first.kernel": np.stack(kernels), "first.bias": np.stack(biases)}
    r = brains.n_regions
    kept = KeptStudent(
        recipe="bleg",
        reads={
            "data": "brains",
            "inputs": config.student,
            "regions": r,
            "connectivity": config.connectivity,
            "from_series": brains.series is not None and config.connectivity == "tangent",
            "harmonise": config.harmonise,
            "sparsity": config.sparsity,
            "amount": config.amount,
            "weights": config.weights,
            "atlas": config.atlas,
        },
        model={
            "kind": config.student,
            "n_inputs": r * (r - 1) // 2 if config.student == "mlp" else r,
            "width": config.width,
            "layers": config.layers,
            "readout": config.readout,
        },
        says={"kind": "classes", "names": list(brains.class_names)},
        members=[
            {
                "seed": seed,
                "fold": fold,
                "valid": float(score),
                "shrinkage": lesson.shrinkage,
                "sites": of_fold,
            }
            for (seed, fold), score, lesson, of_fold in zip(folds, valid, lessons, sites, strict=True)
        ],
        chosen=[int(valid.argmax())],
        why="best score on its own validation subjects",
        weights=weights | {name: _stacked(name, fitted) for name in fitted[0]},
    )
    if config.student == "mlp":
        _check(kept, brains, np.concatenate([one["probabilities"][place] for one in studied]))
    return kept


def brain_maker(kept: KeptStudent) -> Callable[[jax.Array], nnx.Module]:
    """A function from a key to an untrained student of the kept one's shape."""
    model = kept.model
    sizes = (model["kind"], model["n_inputs"], model["width"], model["layers"], len(kept.says["names"]))
    return lambda key: brain_student_maker(*sizes, 1, model["readout"])(key).student


def network_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the network alone, as `jaxgkd.nn.named_weights.states_of` takes them."""
    return {name: leaf for name, leaf in weights.items() if not name.startswith(FOLD)}


def inputs_of_member(kept: KeptStudent, member: int, brains: Brains) -> BrainInputs:
    """What the student of a fold reads of new subjects: its fold's view of them."""
    reads, about = kept.reads, kept.members[member]
    weights = {name: leaf[member] for name, leaf in kept.weights.items() if name.startswith(FOLD)}
    features = _features(brains, reads["connectivity"], about["shrinkage"], weights)
    if reads["harmonise"]:
        features = _harmonised(features, brains, about["sites"], weights)
    features = features.astype(np.float32, copy=False)
    if reads["inputs"] == "mlp":
        return BrainInputs(jax.numpy.asarray(features))
    connectivity = from_upper(features)
    if reads["inputs"] != "gcn":
        return brain_inputs(connectivity)
    joined = connectivity if reads["connectivity"] == "correlation" else brains.connectivity
    graphs = brain_graphs(joined, reads["sparsity"], reads["amount"], weights=reads["weights"])
    return brain_inputs(connectivity, graphs)


def _features(brains: Brains, kind: str, shrinkage: float | None, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    if kind == "correlation":
        return brains.upper
    assert shrinkage is not None
    if kind == "partial":
        return upper_of(connectivity_of(brains, "partial correlation", shrinkage=shrinkage))
    space = TangentSpace(np.zeros(0), weights[f"{FOLD}whitening"])
    return upper_of(space.apply(shrunk_matrices(brains, "tangent", shrinkage)).astype(np.float32))


def _harmonised(
    features: np.ndarray, brains: Brains, sites: Sequence[str], weights: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Features less the shifts of the fold's sites; those of other sites keep the pooled ones, as in the run."""
    known = len(sites)
    mean, scale, shifts, scales = (weights[f"{FOLD}{name}"] for name in ("mean", "scale", "shifts", "scales"))
    combat = ComBat(
        mean, np.zeros((0, len(mean))), np.zeros(0), scale, np.arange(known), shifts[:known], scales[:known]
    )
    number = {name: i for i, name in enumerate(sites)}
    of_subjects = np.array([number.get(brains.site_names[site], known) for site in brains.sites])
    return combat.apply(features, of_subjects).values


def _fitted(brains: Brains, lesson: Lesson, config: BLEG) -> tuple[dict[str, np.ndarray], list[str]]:
    """What a fold fitted to its training subjects, and the names of the sites that ComBat has shifts of."""
    found: dict[str, np.ndarray] = {}
    sites: list[str] = []
    if config.connectivity == "tangent":
        assert lesson.shrinkage is not None
        matrices = shrunk_matrices(brains, "tangent", lesson.shrinkage)
        found["whitening"] = fit_tangent(matrices[lesson.trained], reference="arithmetic").whitening
    if config.harmonise:
        features = fold_features(brains, config.connectivity, lesson.shrinkage, lesson.trained)
        combat = fit_combat(features[lesson.trained], brains.sites[lesson.trained])
        found |= {name: getattr(combat, name) for name in ("mean", "scale", "shifts", "scales")}
        sites = [brains.site_names[site] for site in combat.sites.tolist()]
    return {f"{FOLD}{name}": leaf for name, leaf in found.items()}, sites


def _without_coordinates(
    brains: Brains, lesson: Lesson, config: BLEG, kernel: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First layer over all connections of an MLP whose first layer [m, d] is over principal coordinates."""
    assert lesson.vectors is not None
    features = fold_features(brains, config.connectivity, lesson.shrinkage, lesson.trained, harmonise=config.harmonise)
    mean, directions = map_to_coordinates(features, lesson.trained, lesson.vectors)
    whole = directions @ kernel.astype(np.float64)
    return whole.astype(np.float32), (bias - mean @ whole).astype(np.float32)


def _check(kept: KeptStudent, brains: Brains, probabilities: np.ndarray) -> None:
    """Raises CheckpointError where the students say something else than those [folds, n] that were trained.

    Directions of principal coordinates are found anew by a run that goes on, and on another machine some may have come
    out with the other sign.
    """
    make = brain_maker(kept)
    for member, expected in enumerate(probabilities):
        weights = {name: leaf[member] for name, leaf in network_weights(kept.weights).items()}
        logits = nnx.merge(graphdef_of(make), *states_of(make, weights))(inputs_of_member(kept, member, brains)).logits
        if np.abs(np.asarray(jax.nn.softmax(logits))[:, 1] - expected).max() > 0.01:
            what = "the students were trained on coordinates with other signs than this machine finds"
            raise CheckpointError(what, mend="delete the folders checkpoints/students-* and run again with --resume")


def _stacked(name: str, fitted: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """An array of all folds; folds with fewer sites get rows that no site is led to."""
    leaves = [each[name] for each in fitted]
    longest = max(map(len, leaves))
    return np.stack([np.pad(leaf, ((0, longest - len(leaf)), *[(0, 0)] * (leaf.ndim - 1))) for leaf in leaves])
