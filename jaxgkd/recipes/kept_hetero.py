"""The student of ``jaxgkd run lmgnn`` as a run keeps it: a network and the language model's layers trained for it.

The layers below, which no stage trains, stay with the language model: it is found again by its name, and known by the
hash of its weights. Weights of the network are named ``gnn.…``, those of the language model's layers ``lm.…``.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxgkd.data.hetero_graphs import shown_type
from jaxgkd.errors import CheckpointError
from jaxgkd.nn.hetero_tasks import EdgeTask, HeteroModel, LinkTask, NodeTask
from jaxgkd.nn.named_weights import states_of, student_weights
from jaxgkd.recipes.lmgnn_config import LMGNN
from jaxgkd.recipes.lmgnn_networks import Workplace, make_hetero_model
from jaxgkd.recipes.lmgnn_rows import HeteroRow
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.scaling import Scale
from jaxgkd.training.student_folder import KeptStudent

#: File of the nodes that are known by their rows alone: node type → ids.
IDS = "ids.json"
GNN, LM = "gnn.", "lm."

Tree = Any


def keep_hetero_student(
    row: HeteroRow,
    valid: Sequence[float | None],
    *,
    higher_is_better: bool,
    place: Workplace,
    config: LMGNN,
    encoder: TextEncoder,
) -> KeptStudent:
    """What is kept of a row.

    Args:
      row: what was trained; valid: of every seed its validation score, None where it has none.
      higher_is_better: of these scores.
      place: what all rows shared; config: of the run; encoder: its language model.
    """
    graph = place.data.graph
    d_in = place.widths_in(config.layers)
    learned = [name for name, width in d_in.items() if not width]
    return _kept(
        row,
        valid,
        higher_is_better=higher_is_better,
        place=place,
        reads=_reads(config, encoder)
        | {
            "texts": list(place.texts.first),
            "features": {name: int(x.shape[1]) for name, x in place.others.items() if x.ndim == 2},
            "learned": learned,
            "relations": [list(kind) for kind in place.data.edge_types[::2]],
            "without": list(config.without),
            "mentions": config.mentions,
        },
        model={
            "kind": config.encoder,
            "d_in": d_in,
            "d_text": place.d_text,
            "n_node": {name: len(graph.nodes[name]) if name in learned else 0 for name in d_in},
            "edge_types": [list(kind) for kind in place.data.edge_types],
            "width": config.width,
            "layers": config.layers,
        },
        weights=[_named(lm, params, rest) for lm, params, rest in row.trained],
        files={IDS: json.dumps({name: [str(key) for key in graph.nodes[name].ids] for name in learned}).encode()},
    )


def keep_text_student(
    row: HeteroRow, valid: Sequence[float | None], *, place: Workplace, config: LMGNN, encoder: TextEncoder
) -> KeptStudent:
    """What is kept of language models that have learned from a network: they read nodes of one type, and no links.

    Args are those of `keep_hetero_student`. Of what they were trained to say the classes stay, the states go.
    """
    task = place.data.task
    assert isinstance(task, NodeTask)
    name, nothing = task.node_type, {"features": {}, "learned": [], "relations": [], "without": [], "mentions": False}
    weights = []
    for lm, params, rest in row.trained:
        of_all = _named(lm, params, rest)
        its_own = (LM, f"{GNN}encoder.project.{name}.", f"{GNN}norm.")
        of_one = {key: leaf for key, leaf in of_all.items() if key.startswith(its_own)}
        heads = {key: leaf[..., : task.n_out] for key, leaf in of_all.items() if key.startswith(f"{GNN}head.")}
        weights.append(of_one | heads)
    return _kept(
        row,
        valid,
        higher_is_better=True,
        place=place,
        reads=_reads(config, encoder) | {"texts": [name]} | nothing,
        model={
            "kind": config.encoder,
            "d_in": {name: place.widths_in(0)[name]},
            "n_node": {name: 0},
            "edge_types": [],
            "width": config.width,
            "layers": 0,
        },
        weights=weights,
        files={},
    )


def language_model(kept: KeptStudent) -> TextEncoder:
    """The language model that a kept student reads with, as it was before any training.

    Raises:
      CheckpointError: what is found under its name has other weights.
    """
    encoder = TextEncoder.load(kept.reads["teacher"])
    if encoder.weights_hash != kept.reads["teacher_sha256"]:
        what = f"{encoder.name} is not the language model that the run had (its weights or its config.json differ)"
        raise CheckpointError(what, file=kept.reads["teacher"], mend="put the one of the run there")
    return encoder


def hetero_maker(kept: KeptStudent) -> Callable[[jax.Array], HeteroModel]:
    """A function from a key to an untrained network of the kept one's shape."""
    model = kept.model
    edge_types = tuple((source, name, target) for source, name, target in model["edge_types"])
    # A student that was kept by an earlier version has no features beside texts.
    d_text = model.get("d_text", {})
    sizes = (model["kind"], model["d_in"], d_text, model["n_node"], edge_types, model["width"], model["layers"])
    return lambda key: make_hetero_model(*sizes, hetero_task(kept), key)


def hetero_task(kept: KeptStudent) -> NodeTask | EdgeTask | LinkTask:
    """What the student answers."""
    model = kept.model
    if "edge_type" not in model:
        return NodeTask(model["node_type"], model["n_out"], model["task"])
    source, name, destination = model["edge_type"]
    if model["task"] == "links":
        return LinkTask((source, name, destination), model["score"])
    return EdgeTask((source, name, destination), model["n_out"])


def in_unit(kept: KeptStudent, outputs: Any) -> Any:
    """What the network says [...] in the unit of the labels it was trained on; classes and scores as they are."""
    scale = kept.model.get("scale")
    return outputs if scale is None else outputs * scale["std"] + scale["mean"]


def weights_of_member(kept: KeptStudent, member: int, lm: Tree) -> tuple[Tree, tuple[Tree, Tree]]:
    """The language model's layers, and parameters and other state of the network.

    Args:
      kept: the student; member: which.
      lm: the layers as they were before any training, which are those of a student whose language model was frozen.

    Raises:
      CheckpointError: the kept weights have another shape.
    """
    of = {name: leaf[member] for name, leaf in kept.weights.items()}
    layers = {name.removeprefix(LM): leaf for name, leaf in of.items() if name.startswith(LM)}
    network = {name.removeprefix(GNN): leaf for name, leaf in of.items() if name.startswith(GNN)}
    if layers:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lm)
        lm = jax.tree.map(jax.numpy.asarray, from_leaves(layers, shapes))
    return lm, states_of(hetero_maker(kept), network)


def _reads(config: LMGNN, encoder: TextEncoder) -> dict[str, Any]:
    return {
        "data": "typed graph",
        "teacher": config.teacher,
        "teacher_sha256": encoder.weights_hash,
        "tuned_layers": config.tuned_layers,
        "max_tokens": config.max_tokens,
    }


def _kept(
    row: HeteroRow,
    valid: Sequence[float | None],
    *,
    higher_is_better: bool,
    place: Workplace,
    reads: dict[str, Any],
    model: dict[str, Any],
    weights: list[dict[str, np.ndarray]],
    files: dict[str, bytes],
) -> KeptStudent:
    task, graph = place.data.task, place.data.graph
    about = task.node_type if isinstance(task, NodeTask) else shown_type(task.edge_type)
    names = (graph.nodes[task.node_type] if isinstance(task, NodeTask) else graph.edges[task.edge_type]).class_names
    if isinstance(task, LinkTask):
        says = {"kind": "scores", "tasks": [about]}
    else:
        says = {"kind": "classes", "names": list(names)} if names else {"kind": "values", "tasks": [about]}
    scores = np.array([score for score in valid if score is not None])
    best = int(scores.argmax() if higher_is_better else scores.argmin())
    return KeptStudent(
        recipe="lmgnn",
        reads=reads,
        model=model | _described(task) | _scaled(place.data.scale),
        says=says,
        members=[{"seed": seed, "valid": float(score)} for seed, score in enumerate(scores)],
        chosen=[best],
        why=f"best score on the validation {'nodes' if isinstance(task, NodeTask) else 'edges'}",
        weights={name: np.stack([each[name] for each in weights]) for name in weights[0]},
        files=files,
    )


def _described(task: NodeTask | EdgeTask | LinkTask) -> dict[str, Any]:
    if isinstance(task, NodeTask):
        return {"node_type": task.node_type, "n_out": task.n_out, "task": task.kind}
    if isinstance(task, EdgeTask):
        return {"edge_type": list(task.edge_type), "n_out": task.n_out, "task": "edges"}
    return {"edge_type": list(task.edge_type), "score": task.score, "task": "links"}


def _scaled(scale: Scale | None) -> dict[str, Any]:
    return {} if scale is None else {"scale": {"mean": float(scale.mean[0]), "std": float(scale.std[0])}}


def _named(lm: Tree | None, params: Tree, rest: Tree) -> dict[str, np.ndarray]:
    network = {f"{GNN}{name}": leaf for name, leaf in student_weights(params, rest).items()}
    if lm is None:
        return network
    return network | {f"{LM}{name}": np.asarray(leaf) for name, leaf in leaves_by_name(lm).items()}
