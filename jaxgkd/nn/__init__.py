"""Flax NNX students and graph teachers; every one returns the states of all its layers beside its output."""

from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.encoders import LayerStates, Student, make_student

__all__ = ["LayerStates", "Student", "dropout", "make_student"]
