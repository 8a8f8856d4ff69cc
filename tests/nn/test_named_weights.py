import jax
import numpy as np
import pytest
from flax import nnx

from jaxgkd.errors import CheckpointError
from jaxgkd.nn.alignment import Alignment
from jaxgkd.nn.distilled import DistilledStudent
from jaxgkd.nn.encoders import make_student
from jaxgkd.nn.named_weights import states_of, student_weights


def make(key):
    return make_student("sage", 5, 4, 2, 3, key, norm="batch")


def states(model):
    return nnx.split(model, nnx.Param, ...)[1:]


def test_weights_go_by_their_paths_and_come_back():
    model = make(jax.random.key(0))
    weights = student_weights(*states(model))
    assert {"kernel", "convolutions.1.neighbours.kernel", "norms.0.mean", "head.bias"} <= weights.keys()
    jax.tree.map(np.testing.assert_array_equal, states_of(make, weights), states(model))


def test_of_a_distilled_student_the_alignment_is_left_out():
    model = make(jax.random.key(1))
    both = DistilledStudent(model, Alignment(6, 4, 3, 2, rngs=nnx.Rngs(0)))
    alone, found = student_weights(*states(model)), student_weights(*states(both))
    jax.tree.map(np.testing.assert_array_equal, found, alone)


def test_members_stay_the_first_axis():
    both = [student_weights(*states(make(jax.random.key(i)))) for i in (0, 1)]
    stacked = {name: np.stack([one[name] for one in both]) for name in both[0]}
    second = jax.tree.map(lambda leaf: leaf[1], states_of(make, stacked))
    jax.tree.map(np.testing.assert_array_equal, second, states(make(jax.random.key(1))))


def test_weights_of_another_student_are_refused():
    weights = student_weights(*states(make(jax.random.key(0))))
    with pytest.raises(CheckpointError, match=r"do not share head\.bias"):
        states_of(make, {name: leaf for name, leaf in weights.items() if name != "head.bias"})
    with pytest.raises(CheckpointError, match=r"head\.bias was kept as \(7,\)"):
        states_of(make, weights | {"head.bias": np.zeros(7)})
