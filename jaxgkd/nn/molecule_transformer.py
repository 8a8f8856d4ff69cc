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
from jaxgkd.nn.row_linear import RowLinear

# Added to the scores of padding: exp gives exactly 0, and sums stay finite.
_MASKED = -1e9


class Block(nnx.Module):
    """``x + attention(norm(x))``, then ``x + MLP(norm(x))``.

    Tokens lie in one long list: products of arrays with two axes are several times faster on a CPU than the same
    products of arrays with three, their gradients above all.
    """

    def __init__(self, width: int, n_heads: int, mlp_width: int, dtype: DTypeLike, *, rngs: nnx.Rngs):
        self.n_heads = n_heads
        linear = lambda d_in, d_out: RowLinear(d_in, d_out, dtype=dtype, rngs=rngs)  # noqa: E731
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.query_key_value = linear(width, 3 * width)
        self.mixed = linear(width, width)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.first, self.second = linear(width, mlp_width), linear(mlp_width, width)

    def __call__(self, tokens: Array, bias: Array, keys: tuple[Array, Array] | None, rate: ArrayLike) -> Array:
        """States [g · t, d] and biases [g · heads, t, t] → [g · t, d]."""
        attended = attention(*self._projected(tokens, bias.shape[1]), bias)
        return self._updated(tokens, attended, keys, rate)

    def apart(
        self, tokens: Array, bias: Array, keys: tuple[Array, Array] | None, rate: ArrayLike
    ) -> tuple[Array, Array]:
        """The same, of the virtual tokens [g, d] and of the atoms [g · n, d], in products of their own.

        Where nobody reads the atoms' states of a last block, as in training on labels and in prediction, the compiler
        leaves out three quarters of it.
        """
        t, d = bias.shape[1], tokens.shape[1]
        query, key, value = self._projected(tokens, t)
        rows = tokens.reshape(-1, t, d)
        parts = []
        for i, part in enumerate((slice(0, 1), slice(1, None))):
            own = None if keys is None else (jax.random.fold_in(keys[0], i), jax.random.fold_in(keys[1], i))
            attended = attention(query[:, part], key, value, bias[:, part])
            parts.append(self._updated(rows[:, part].reshape(-1, d), attended, own, rate))
        return parts[0], parts[1]

    def _projected(self, tokens: Array, t: int) -> tuple[Array, Array, Array]:
        """Scaled queries, keys and values [g · heads, t, e]."""
        heads, d = self.n_heads, tokens.shape[1]
        # What the backward pass needs of a norm or a GELU is quicker computed again than kept.
        projected = self.query_key_value(jax.checkpoint(self.attention_norm)(tokens))
        query, key, value = projected.reshape(-1, t, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
        folded = lambda states: states.reshape(-1, t, d // heads)  # noqa: E731
        return folded(query * (d // heads) ** -0.5), folded(key), folded(value)

    def _updated(self, tokens: Array, attended: Array, keys: tuple[Array, Array] | None, rate: ArrayLike) -> Array:
        """States [g · t, d] after what attention says [g · heads, t, e], and after the MLP."""
        _, t, e = attended.shape
        attended = attended.reshape(-1, self.n_heads, t, e).swapaxes(1, 2).reshape(-1, self.n_heads * e)
        tokens = tokens + dropped(self.mixed(attended), keys, 0, rate)
        hidden = jax.checkpoint(jax.nn.gelu)(self.first(jax.checkpoint(self.mlp_norm)(tokens)))
        return tokens + dropped(self.second(hidden), keys, 1, rate)


@jax.custom_vjp
def attention(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """``softmax(query keyᵀ + bias) value``; scores and their softmax are float32.

    Heads are folded into the first axis, and rows are divided by their sums after the product with the values, where
    there are fewer numbers to divide.

    Args:
      query: [n, t, e], scaled; key: [n, s, e]; value: [n, s, e].
      bias: [n, t, s] float32.

    Returns:
      [n, t, e] in the dtype of ``value``.
    """
    return _attention_forward(query, key, value, bias)[0]


def _attention_forward(query: Array, key: Array, value: Array, bias: Array):
    scores = _products(query, key, 2) + bias
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    inverse_sum = 1.0 / weights.sum(axis=-1, keepdims=True)
    attended = (_products(weights.astype(value.dtype), value, 1) * inverse_sum).astype(value.dtype)
    return attended, (query, key, value, weights, inverse_sum, attended)


def _attention_backward(kept, gradient: Array):
    """By hand for two reasons: the sum over t that a softmax's gradient needs is one over e here, and a CPU multiplies
    with a transposed array several times slower than it transposes that array first."""
    query, key, value, weights, inverse_sum, attended = kept
    dtype = value.dtype
    gradient = gradient * inverse_sum
    row = jnp.sum(gradient * attended, axis=-1, keepdims=True)
    gradient = gradient.astype(dtype)
    to_scores = weights * (_products(gradient, value, 2) - row)
    to_value = _products(_transposed(weights.astype(dtype)), gradient, 1)
    narrow = to_scores.astype(dtype)
    to_query, to_key = _products(narrow, key, 1), _products(_transposed(narrow), query, 1)
    return to_query.astype(dtype), to_key.astype(dtype), to_value.astype(dtype), to_scores


attention.defvjp(_attention_forward, _attention_backward)


def _products(left: Array, right: Array, axis: int) -> Array:
    """[n, a, c] times [n, c, b] (``axis`` 1) or [n, b, c] (``axis`` 2) → [n, a, b] float32."""
    return lax.dot_general(left, right, (((2,), (axis,)), ((0,), (0,))), preferred_element_type=jnp.float32)


def _transposed(values: Array) -> Array:
    """[n, a, b] → [n, b, a]; on a CPU really moved in memory before whatever comes next."""
    swapped = lambda values: values.swapaxes(1, 2)  # noqa: E731
    moved = lambda values: lax.optimization_barrier(swapped(values))  # noqa: E731
    return lax.platform_dependent(values, cpu=moved, default=swapped)


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
        self.summary = RowLinear(n_summary, width, rngs=rngs) if n_summary else None
        self.virtual = nnx.Param(small(rngs.params(), (width,)))
        # Of the virtual token for atoms, and of atoms for the virtual token.
        self.virtual_bias = nnx.Param(jnp.zeros((2, n_heads)))
        self.blocks = nnx.List([Block(width, n_heads, mlp_factor * width, dtype, rngs=rngs) for _ in range(n_layers)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = RowLinear(width, n_outputs, rngs=rngs)

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
        atoms = self.atoms(fields.reshape(g * n, -1))
        if self.bonds is not None:
            atoms = atoms + rows.nodes["bonds"].reshape(g * n, -1).astype(atoms.dtype) @ self.bonds[...]
        bias, summary = self.relations(rows)
        if self.summary is not None and summary is not None:
            atoms = atoms + self.summary(summary.reshape(g * n, -1))
        width = atoms.shape[1]
        virtual = jnp.broadcast_to(self.virtual[...], (g, 1, width))
        tokens = jnp.concatenate([virtual, atoms.reshape(g, n, width)], axis=1).reshape(-1, width)
        bias = self._with_virtual(bias, rows.node_mask)

        def told_apart(tokens: Array) -> tuple[Array, Array]:
            rows = tokens.reshape(g, n + 1, width)
            return rows[:, 0], rows[:, 1:]

        whole = nnx.remat(Block.__call__) if self.remat else Block.__call__
        apart = nnx.remat(Block.apart) if self.remat else Block.apart
        states = [told_apart(tokens)]
        for i, block in enumerate(self.blocks):
            keys = None
            if dropout_key is not None:
                keys = (jax.random.fold_in(dropout_key, 2 * i), jax.random.fold_in(dropout_key, 2 * i + 1))
            if i < len(self.blocks) - 1:
                tokens = whole(block, tokens, bias, keys, dropout_rate)
                states.append(told_apart(tokens))
            else:
                molecules, atoms = apart(block, tokens, bias, keys, dropout_rate)
                states.append((molecules, atoms.reshape(g, n, width)))
        of_molecules, of_atoms = zip(*states, strict=True)
        return MoleculeStates(of_atoms, of_molecules, self.head(self.norm(of_molecules[-1])))

    def _with_virtual(self, bias: Array, node_mask: Array) -> Array:
        """Biases of atoms [g, heads, n, n] → of all tokens [g · heads, 1 + n, 1 + n], padding masked as a key."""
        g, n_heads, n, _ = bias.shape
        to_atoms, to_virtual = self.virtual_bias[...][:, None, :, None, None]
        bias = jnp.concatenate([jnp.broadcast_to(to_virtual, (g, n_heads, n, 1)), bias], axis=3)
        first = jnp.broadcast_to(to_atoms, (g, n_heads, 1, n + 1)).at[:, :, :, 0].set(0.0)
        bias = jnp.concatenate([first, bias], axis=2)
        real = jnp.concatenate([jnp.ones((g, 1), bool), node_mask], axis=1)
        return jnp.where(real[:, None, None, :], bias, _MASKED).reshape(g * n_heads, n + 1, n + 1)
