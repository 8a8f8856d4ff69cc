"""A transformer over the atoms of molecules and a virtual token each, biased by how the atoms lie to each other.

Graphormer, Ying et al., arXiv 2106.05234, with LayerNorm before attention and MLP. What is a relation, bonds or
distances, is the business of `molecule_relations`; a teacher that sees three dimensions and a student that sees bonds
are otherwise the same network. Every layer's atom and molecule states are returned, because distillation compares them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from jaxgkd.graphs.rows import RowBatch
from jaxgkd.nn.dropout import dropout
from jaxgkd.nn.gine import FieldEmbedding, MoleculeStates
from jaxgkd.nn.molecule_relations import RelationEncoding

# Added to the scores of padding: exp gives exactly 0, and sums stay finite.
_MASKED = -1e9


class Block(nnx.Module):
    """``x + attention(norm(x))``, then ``x + MLP(norm(x))``."""

    def __init__(self, width: int, n_heads: int, mlp_width: int, dtype: DTypeLike, *, rngs: nnx.Rngs):
        self.n_heads, self.dtype = n_heads, jnp.dtype(dtype)
        linear = lambda d_in, d_out: nnx.Linear(d_in, d_out, dtype=dtype, rngs=rngs)  # noqa: E731
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.query_key_value = linear(width, 3 * width)
        self.mixed = linear(width, width)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.first, self.second = linear(width, mlp_width), linear(mlp_width, width)

    def __call__(self, tokens: Array, bias: Array, keys: tuple[Array, Array] | None, rate: ArrayLike) -> Array:
        """States [g, t, d] and biases [g, heads, t, t] → [g, t, d]."""
        g, t, d = tokens.shape
        projected = self.query_key_value(self.attention_norm(tokens)).reshape(g, t, 3, self.n_heads, -1)
        query, key, value = projected.transpose(2, 0, 3, 1, 4)
        attended = attention(query * query.shape[-1] ** -0.5, key, value, bias)
        tokens = tokens + dropped(self.mixed(attended.transpose(0, 2, 1, 3).reshape(g, t, d)), keys, 0, rate)
        hidden = jax.nn.gelu(self.first(self.mlp_norm(tokens)))
        return tokens + dropped(self.second(hidden), keys, 1, rate)


def attention(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """``softmax(query keyᵀ + bias) value``, [g, heads, t, e] each, scores in float32."""
    both = ((0, 1), (0, 1))
    scores = lax.dot_general(query, key, (((3,), (3,)), both), preferred_element_type=jnp.float32) + bias
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    summed = lax.dot_general(
        weights.astype(value.dtype), value, (((3,), (2,)), both), preferred_element_type=jnp.float32
    )
    return (summed / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def dropped(update: Array, keys: tuple[Array, Array] | None, which: int, rate: ArrayLike) -> Array:
    """Dropout of an update where there are keys, and back to float32."""
    if keys is not None:
        update = dropout(update, keys[which], rate)
    return update.astype(jnp.float32)


class MoleculeTransformer(nnx.Module):
    """L blocks over a molecule's atoms and its virtual token, from whose last state the outputs are read."""

    def __init__(
        self,
        atom_sizes: Sequence[int],
        width: int,
        n_layers: int,
        n_heads: int,
        n_outputs: int,
        *,
        relations: RelationEncoding,
        bond_sizes: Sequence[int] | None = None,
        mlp_factor: int = 4,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Make the layers.

        Args:
          atom_sizes: categories of each atom field.
          width: d of every state; n_layers: L; n_heads: divides the width; n_outputs: tasks.
          relations: what attention is told of the pairs of atoms.
          bond_sizes: categories of each bond field, where the fields of an atom's bonds are part of its first state.
          mlp_factor: hidden width of the MLPs in widths.
          remat: whether the backward pass computes each block once more instead of keeping what is inside.
          dtype: of products; the states between blocks, LayerNorm and softmax are float32.
          rngs: random streams of the initial weights.

        Raises:
          ValueError: the heads do not divide the width.
        """
        if width % n_heads:
            raise ValueError(f"a width of {width} does not divide into {n_heads} heads")
        self.remat = remat
        self.relations = relations
        self.atoms = FieldEmbedding(atom_sizes, width, rngs=rngs)
        small = nnx.initializers.normal(0.02)
        self.bonds = None if bond_sizes is None else nnx.Param(small(rngs.params(), (sum(bond_sizes), width)))
        n_summary = relations.n_summary
        self.summary = nnx.Linear(n_summary, width, rngs=rngs) if n_summary else None
        self.virtual = nnx.Param(small(rngs.params(), (width,)))
        # Of the virtual token for atoms, and of atoms for the virtual token.
        self.virtual_bias = nnx.Param(jnp.zeros((2, n_heads)))
        self.blocks = nnx.List([Block(width, n_heads, mlp_factor * width, dtype, rngs=rngs) for _ in range(n_layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, n_outputs, rngs=rngs)

    def __call__(
        self, rows: RowBatch, *, dropout_key: Array | None = None, dropout_rate: ArrayLike = 0.0
    ) -> MoleculeStates:
        """States and outputs of a batch whose nodes hold integer ``fields`` [g, n, …].

        With ``bond_sizes`` its nodes also hold ``bonds`` [g, n, Σ sizes], see `bond_counts`. Padding gives finite
        numbers that mean nothing; no molecule's outputs depend on what it shares a batch with.

        Args:
          rows: a batch of molecules.
          dropout_key: given in training only; dropout_rate: of what every attention and MLP adds.
        """
        fields = rows.nodes["fields"]
        g, n, _ = fields.shape
        atoms = self.atoms(fields.reshape(g * n, -1)).reshape(g, n, -1)
        if self.bonds is not None:
            atoms = atoms + rows.nodes["bonds"].astype(atoms.dtype) @ self.bonds[...]
        bias, summary = self.relations(rows)
        if self.summary is not None:
            atoms = atoms + self.summary(summary)
        virtual = jnp.broadcast_to(self.virtual[...], (g, 1, atoms.shape[2]))
        tokens = jnp.concatenate([virtual, atoms], axis=1)
        bias = self._with_virtual(bias, rows.node_mask)
        states = [tokens]
        run = lambda block, *inputs: block(*inputs)  # noqa: E731
        if self.remat:
            run = nnx.remat(run)
        for i, block in enumerate(self.blocks):
            keys = None
            if dropout_key is not None:
                keys = (jax.random.fold_in(dropout_key, 2 * i), jax.random.fold_in(dropout_key, 2 * i + 1))
            tokens = run(block, tokens, bias, keys, dropout_rate)
            states.append(tokens)
        outputs = self.head(self.norm(tokens[:, 0]))
        return MoleculeStates(tuple(s[:, 1:] for s in states), tuple(s[:, 0] for s in states), outputs)

    def _with_virtual(self, bias: Array, node_mask: Array) -> Array:
        """Biases of atoms [g, heads, n, n] → of all tokens [g, heads, 1 + n, 1 + n], padding masked as a key."""
        g, n_heads, n, _ = bias.shape
        to_atoms, to_virtual = self.virtual_bias[...][:, None, :, None, None]
        bias = jnp.concatenate([jnp.broadcast_to(to_virtual, (g, n_heads, n, 1)), bias], axis=3)
        first = jnp.broadcast_to(to_atoms, (g, n_heads, 1, n + 1)).at[:, :, :, 0].set(0.0)
        bias = jnp.concatenate([first, bias], axis=2)
        real = jnp.concatenate([jnp.ones((g, 1), bool), node_mask], axis=1)
        return jnp.where(real[:, None, None, :], bias, _MASKED)
