"""The student of a text graph as a run keeps it, and how it is made again from that."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.nn.encoders import Student, make_student
from jaxgkd.recipes.node_rows import Row
from jaxgkd.training.student_folder import KeptStudent

#: File of the words, beside the weights.
VOCABULARY = "vocabulary.json"


def keep_node_student(
    row: Row,
    seeds: Sequence[int],
    *,
    kind: str,
    d_in: int,
    width: int,
    layers: int,
    norm: str,
    readout: str,
    class_names: Sequence[str],
    text_columns: Sequence[str],
    label: str,
    vocabulary: Vocabulary | None,
    positions: int,
) -> KeptStudent:
    """What is kept of a trained row.

    Args:
      row: of all seeds.
      seeds: one a member.
      kind, d_in, width, layers, norm, readout: of `make_student`.
      class_names: of the logits.
      text_columns: that were named, none for the usual ones; label: the column that is never text.
      vocabulary: of the inputs, None where they were features of the nodes.
      positions: width of what the inputs hold of the graph's own spectrum.
    """
    valid = np.nanmax(row.curves["valid"], axis=1)
    return KeptStudent(
        recipe="lingugkd",
        reads={
            "data": "text graph",
            "inputs": "features" if vocabulary is None else "words",
            "width": d_in,
            "edges": kind != "mlp",
            "text_columns": list(text_columns),
            "label": label,
            "positions": positions,
        },
        model={
            "kind": kind,
            "d_in": d_in,
            "width": width,
            "layers": layers,
            "classes": len(class_names),
            "norm": norm,
            "readout": readout,
        },
        says={"kind": "classes", "names": list(class_names)},
        members=[{"seed": seed, "valid": float(score)} for seed, score in zip(seeds, valid, strict=True)],
        chosen=[int(valid.argmax())],
        why="best accuracy on its own validation nodes",
        weights=row.weights,
        files={} if vocabulary is None else {VOCABULARY: vocabulary.to_json().encode()},
    )


def node_student_maker(kept: KeptStudent) -> Callable[[Array], Student]:
    """A function from a key to an untrained student of the kept one's shape."""
    model: dict[str, Any] = dict(kept.model)
    sizes = (model["kind"], model["d_in"], model["width"], model["layers"], model["classes"])

    def make(key: Array) -> Student:
        return make_student(*sizes, key, norm=model["norm"], readout=model["readout"])

    return make


def one_member(states: Any, member: int) -> Any:
    """The states of one of several members, which stay the first axis."""
    return jax.tree.map(lambda leaf: leaf[member : member + 1], states)
