"""The student of ``jaxgkd run bleg`` as a program: connectivity that has been prepared, in any number of subjects.

Inverting and taking logarithms of matrices are kernels of each platform and no part of StableHLO, so what a fold does
before (partial or tangent connectivity, sites) is the caller's: its arrays lie beside the weights as ``fold.*``.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgkd.export.program import Input, Program
from jaxgkd.nn.brain_inputs import BrainInputs
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.kept_brains import brain_maker, network_weights
from jaxgkd.training.student_folder import KeptStudent


def brain_program(kept: KeptStudent) -> Program:
    """From the connectivity of n subjects to probabilities [n, classes]."""
    make = brain_maker(kept)
    graphdef, r, kind = graphdef_of(make), kept.reads["regions"], kept.reads["inputs"]
    about = f"{kept.reads['connectivity']} connectivity{', harmonised' if kept.reads['harmonise'] else ''}"
    if kind == "mlp":
        pairs = r * (r - 1) // 2
        inputs = {"connections": Input(("n", pairs), "float32", f"{about} of all pairs, row by row above the diagonal")}
    else:
        inputs = {"rows": Input(("n", r, r), "float32", f"{about}, 0 on the diagonal")}
    if kind == "gcn":
        kept_edges = f"connections kept by '{kept.reads['sparsity']}' with {kept.reads['amount']:g}"
        words = f"{kept_edges}, with loops, normalised by the roots of both ends' degrees"
        inputs["adjacency"] = Input(("n", r, r), "float32", words)

    def call(weights: Mapping[str, Array], given: Mapping[str, Array]) -> Array:
        student = nnx.merge(graphdef, *states_of(make, network_weights(weights)))
        if kind == "mlp":
            return jax.nn.softmax(student(BrainInputs(given["connections"])).logits)
        if kind != "gcn":
            return jax.nn.softmax(student(BrainInputs(given["rows"])).logits)
        propagated = jnp.matmul(given["adjacency"], given["rows"])
        return jax.nn.softmax(student(BrainInputs(given["rows"], given["adjacency"], propagated)).logits)

    return Program(call, inputs, ("n", len(kept.says["names"])), "a probability for each class, in their order")
