"""What makes a teacher's hop features comparable with a student's layer states, learned together with the student.

The teacher's side is projected, as LinguGKD does: the student's own states stay what they will be without a teacher.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array


class HopProjection(nnx.Module):
    """``LayerNorm → Linear → PReLU → Linear`` for one hop: teacher width to student width."""

    def __init__(self, d_teacher: int, width: int, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(d_teacher, rngs=rngs)
        self.first = nnx.Linear(d_teacher, width, rngs=rngs)
        self.activation = nnx.PReLU()
        self.second = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, features: Array) -> Array:
        """[k, d_teacher] → [k, width]."""
        return self.second(self.activation(self.first(self.norm(features))))


class Alignment(nnx.Module):
    """Projections of a teacher's hop features, and the learned weights of layers and terms.

    Attributes:
      layer_weights: [hops] before the softmax (or log variances), ones as published.
      term_weights: [terms] likewise.
    """

    def __init__(self, d_teacher: int, width: int, n_hops: int, n_terms: int, *, rngs: nnx.Rngs):
        self.by_hop = nnx.List([HopProjection(d_teacher, width, rngs=rngs) for _ in range(n_hops)])
        self.shared = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.layer_weights = nnx.Param(jnp.ones(n_hops))
        self.term_weights = nnx.Param(jnp.ones(n_terms))

    def __call__(self, features: Array) -> list[Array]:
        """Teacher features [k, hops, d_teacher] → one [k, width] per hop."""
        return [self.shared(project(features[:, hop])) for hop, project in enumerate(self.by_hop)]
