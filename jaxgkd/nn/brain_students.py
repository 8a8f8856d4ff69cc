"""The students of BLEG by name."""

from collections.abc import Callable
from typing import Literal, get_args

from flax import nnx
from jax import Array

from jaxgkd.nn.brain_cnn import BrainNetCNN
from jaxgkd.nn.brain_gcn import BrainGCN, Readout
from jaxgkd.nn.brain_mlp import BrainMLP
from jaxgkd.nn.brain_problem import TaughtBrain
from jaxgkd.nn.brain_transformer import BrainTransformer

BrainStudent = Literal["gcn", "bnt", "brainnetcnn", "mlp"]


def brain_student_maker(
    kind: BrainStudent,
    n_inputs: int,
    width: int,
    n_layers: int,
    n_classes: int,
    d_teacher: int,
    readout: Readout = "mean",
) -> Callable[[Array], TaughtBrain]:
    """A function from a key to a student.

    Args:
      kind: gcn, bnt (attention), brainnetcnn, or mlp over one vector a subject.
      n_inputs: r regions, or the numbers of that vector; width: of every state; n_layers: of messages or attention.
      n_classes: width of the logits; d_teacher: of the teacher's states.
      readout: of the gcn.

    Raises:
      ValueError: there is no such kind.
    """

    def make(key: Array) -> TaughtBrain:
        rngs = nnx.Rngs(params=key)
        if kind == "gcn":
            student = BrainGCN(n_inputs, width, n_layers, n_classes, readout=readout, rngs=rngs)
        elif kind == "bnt":
            student = BrainTransformer(n_inputs, width, n_layers, n_classes, rngs=rngs)
        elif kind == "brainnetcnn":
            student = BrainNetCNN(n_inputs, width, n_classes, rngs=rngs)
        else:
            student = BrainMLP(n_inputs, width, n_classes, rngs=rngs)
        return TaughtBrain(student, width, d_teacher, rngs=rngs)

    if kind not in get_args(BrainStudent):
        raise ValueError(f"'{kind}' is no student; choose one of {', '.join(get_args(BrainStudent))}")
    return make
