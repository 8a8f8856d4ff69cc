"""Samples of a graph in fixed shapes, padded and laid out for `aggregate`, layer by layer.

All hops share one list of nodes and one list of edges for each relation. Both are ordered by hop, so the nodes that a
layer reads and those that it computes are beginnings of the list of nodes, and its edges are a beginning of the list of
edges: the first of L layers uses the edges of all hops, the last one those into the seeds alone. A two-layer network
thus computes hidden states of the seeds and of hop 1 only, and outputs of the seeds only. Blocks that are drawn anew
for each layer hold the edges into the seeds twice, draw them twice, and list their nodes twice; one layout that all
layers share computes states of every sampled node in every layer, and with fan-outs of 10 and 10 nine nodes and edges
in ten belong to the last hop. What it costs is one smaller layout for each layer but the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxgkd.graphs.hetero import EdgeType
from jaxgkd.graphs.layout import Layout, host_layout
from jaxgkd.graphs.sampling import Sample

# Room above the largest sample that was drawn, how many times larger each shape is than the one before, and the number
# that slots are multiples of.
_ABOVE = 1.05
_GROWTH = 1.5
_ROUND = 16


@dataclass(frozen=True)
class BlockBudget:
    """Slots of a block. Every part of the list of nodes that holds any has one slot at least for padding.

    Attributes:
      nodes: (type, (L + 1) slots: for the seeds, and for what each hop brings in), by type.
      edges: (relation, L slots: for the edges of each hop), by relation.
    """

    nodes: tuple[tuple[str, tuple[int, ...]], ...]
    edges: tuple[tuple[EdgeType, tuple[int, ...]], ...]

    @property
    def slots(self) -> int:
        """Nodes and edges together: what padding is measured in."""
        return sum(sum(sizes) for _, sizes in (*self.nodes, *self.edges))

    def fits(self, sample: Sample) -> bool:
        """Whether a sample goes in beside the padding."""
        counts = edge_counts(sample)
        nodes = all(
            new < slots or new == slots == 0
            for node_type, sizes in self.nodes
            for new, slots in zip(sample.n_new[node_type], sizes, strict=True)
        )
        return nodes and all(
            count <= slots
            for relation, sizes in self.edges
            for count, slots in zip(counts[relation], sizes, strict=True)
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["nodes", "node_mask", "layers", "edges", "edge_mask", "seeds", "index"],
    meta_fields=["ends"],
)
@dataclass(frozen=True)
class Block:
    """A sample in the shape of a budget, for a network of L layers.

    Attributes:
      nodes: type → [n] int32 ids in the whole graph, 0 for padding; types without slots are not there.
      node_mask: type → [n] True where a node is real.
      layers: for each layer, the first one first, relation → `Layout` from the first ``n_senders`` nodes of the source
        type to the first ``n_receivers`` of the target type. Relations without slots are not there. Edges of padding
        run between nodes of padding.
      edges: relation → [e] int32 positions in its compressed rows, -1 for padding, in the order of ``layers[0]``;
        later layers have the first ones of these.
      edge_mask: relation → [e] True where an edge is real.
      seeds: role → [...] int32 rows in the list of nodes of the role's type; those of seeds that were -1 are padding.
      index: [b] int32 position of each item of the batch among all, -1 for padding.
      ends: static; (type, (L + 1) ends of the list of nodes after the seeds and after each hop), see `n_computed`.
    """

    nodes: dict[str, Int[Array, " n"]]
    node_mask: dict[str, Bool[Array, " n"]]
    layers: tuple[dict[EdgeType, Layout], ...]
    edges: dict[EdgeType, Int[Array, " e"]]
    edge_mask: dict[EdgeType, Bool[Array, " e"]]
    seeds: dict[str, Int[Array, "..."]]
    index: Int[Array, " b"]
    ends: tuple[tuple[str, tuple[int, ...]], ...]

    # As a pytree it is also rebuilt with stacked arrays, axes of vmap and placeholders: no check of fields then.
    __no_type_check__ = True

    def n_computed(self, layer: int) -> dict[str, int]:
        """Of every type how many nodes, from the first one on, layer ``layer`` (from 0) computes; static."""
        return {node_type: ends[len(self.layers) - 1 - layer] for node_type, ends in self.ends}


def assemble_block(sample: Sample, budget: BlockBudget, index: np.ndarray | None = None) -> Block:
    """Put a sample into a fixed shape, in numpy.

    Args:
      sample: what was drawn.
      budget: the shape.
      index: [b] positions of the items of the batch, -1 for padding.

    Raises:
      ValueError: the sample does not fit.
    """
    if not budget.fits(sample):
        raise ValueError(f"a sample of {sample.n_new} nodes and {edge_counts(sample)} edges does not fit into {budget}")
    ends = {node_type: np.cumsum(sizes) for node_type, sizes in budget.nodes}
    slot_of, nodes, node_mask, spare = {}, {}, {}, {}
    for node_type, sizes in budget.nodes:
        new, starts = np.array(sample.n_new[node_type]), ends[node_type] - sizes
        slot_of[node_type] = np.repeat(starts - (np.cumsum(new) - new), new) + np.arange(new.sum())
        spare[node_type] = [np.arange(*ends_of) for ends_of in zip(starts + new, ends[node_type], strict=True)]
        if ends[node_type][-1]:
            nodes[node_type] = np.zeros(ends[node_type][-1], np.int32)
            nodes[node_type][slot_of[node_type]] = sample.nodes[node_type]
            node_mask[node_type] = np.zeros(ends[node_type][-1], bool)
            node_mask[node_type][slot_of[node_type]] = True
    edges, whole = {}, {}
    for relation, sizes in budget.edges:
        senders, receivers, positions = [], [], []
        for hop, (taken, slots) in enumerate(zip(sample.hops[relation], sizes, strict=True), start=1):
            padding = np.arange(slots - len(taken.positions))
            senders += [slot_of[relation[0]][taken.senders], _dealt(spare[relation[0]][hop], padding)]
            receivers += [slot_of[relation[2]][taken.receivers], _dealt(spare[relation[2]][hop - 1], padding)]
            positions += [taken.positions, np.full(len(padding), -1)]
        if sum(sizes):
            whole[relation] = np.concatenate(senders), np.concatenate(receivers)
            edges[relation] = np.concatenate(positions).astype(np.int32)
    n_hops = len(budget.nodes[0][1]) - 1
    layers = []
    for hops in range(n_hops, 0, -1):
        layer = {}
        for relation, sizes in budget.edges:
            if n_edge := sum(sizes[:hops]):
                # Receivers of a hop's edges come before those of the next, so sorted edges keep the order of hops.
                layout = host_layout(
                    whole[relation][0][:n_edge],
                    whole[relation][1][:n_edge],
                    int(ends[relation[2]][hops - 1]),
                    n_senders=int(ends[relation[0]][hops]),
                )
                if hops == n_hops:
                    edges[relation] = edges[relation][np.asarray(layout.order)]
                    whole[relation] = np.asarray(layout.senders), np.asarray(layout.receivers)
                layer[relation] = layout
        layers.append(layer)
    seeds = {}
    for role, (node_type, rows) in sample.seeds.items():
        first_spare = spare[node_type][0][:1] if len(spare[node_type][0]) else np.zeros(1, np.int64)
        padded = np.concatenate([slot_of[node_type], first_spare])
        seeds[role] = padded[rows].astype(np.int32)
    return Block(
        nodes=nodes,
        node_mask=node_mask,
        layers=tuple(layers),
        edges=edges,
        edge_mask={relation: positions >= 0 for relation, positions in edges.items()},
        seeds=seeds,
        index=np.zeros(0, np.int32) if index is None else np.asarray(index, np.int32),  # type: ignore[arg-type]
        ends=tuple((node_type, tuple(each.tolist())) for node_type, each in ends.items()),
    )


def square(layout: Layout) -> Layout:
    """A layout whose senders are of the receivers' type, with as many receivers as senders: those added have no edges.

    For convolutions of homogeneous graphs, which return a state for every node they read; in numpy and inside
    compiled functions alike.
    """
    missing = layout.n_senders - layout.n_receivers
    if missing < 0:
        raise ValueError(f"a layout of {layout.n_receivers} receivers reads only {layout.n_senders} nodes")
    row_start = jnp.concatenate([layout.row_start, jnp.full(missing, layout.n_edges, jnp.int32)])
    return Layout(
        senders=layout.senders,
        receivers=layout.receivers,
        row_start=row_start,
        transpose_order=layout.transpose_order,
        column_start=layout.column_start,
        order=layout.order,
        n_senders=layout.n_senders,
        n_receivers=layout.n_senders,
    )


def edge_counts(sample: Sample) -> dict[EdgeType, tuple[int, ...]]:
    """Edges of every relation and hop."""
    return {relation: tuple(len(hop.positions) for hop in hops) for relation, hops in sample.hops.items()}


def chosen_budgets(samples: Sequence[Sample], largest: BlockBudget) -> tuple[BlockBudget, ...]:
    """Shapes for samples like some that were drawn, each larger than the one before; the last one fits every sample.

    Args:
      samples: drawn to see how large they get; hardly any other should need more than the first shape.
      largest: what no sample exceeds.
    """
    nodes = {
        node_type: np.max([sample.n_new[node_type] for sample in samples], axis=0) for node_type, _ in largest.nodes
    }
    counts = [edge_counts(sample) for sample in samples]
    edges = {relation: np.max([count[relation] for count in counts], axis=0) for relation, _ in largest.edges}
    budgets: list[BlockBudget] = []
    times = 1.0
    while not budgets or budgets[-1] != largest:
        # One more, so that there is room for padding, and for what was not drawn at all.
        slots = lambda sizes, most, times=times: tuple(  # noqa: E731
            min(-(-int((size + 1) * _ABOVE * times) // _ROUND) * _ROUND, limit)
            for size, limit in zip(sizes, most, strict=True)
        )
        budgets.append(
            BlockBudget(
                tuple((node_type, slots(nodes[node_type], most)) for node_type, most in largest.nodes),
                tuple((relation, slots(edges[relation], most)) for relation, most in largest.edges),
            )
        )
        times *= _GROWTH
    return tuple(budgets)


def largest_budget(
    n_node: Mapping[str, int],
    n_edges: Mapping[EdgeType, int],
    n_seeds: Mapping[str, int],
    fan_outs: Sequence[Mapping[EdgeType, int]],
) -> BlockBudget:
    """Room for any sample: no node or edge is there more often than the graph has it.

    Args:
      n_node: nodes of every type; n_edges: edges of every relation.
      n_seeds: seeds of every type, repeated ones included.
      fan_outs: for each hop, of every relation; -1 for all.
    """
    nodes = {node_type: [min(n_seeds.get(node_type, 0), size)] for node_type, size in n_node.items()}
    edges: dict[EdgeType, list[int]] = {relation: [] for relation in n_edges}
    for fan_out in fan_outs:
        for relation, n_edge in n_edges.items():
            frontier = nodes[relation[2]][-1]
            most = n_edge if fan_out[relation] < 0 else frontier * fan_out[relation]
            edges[relation].append(min(most, n_edge) if frontier else 0)
        for node_type, sizes in nodes.items():
            into = sum(each[-1] for relation, each in edges.items() if relation[0] == node_type)
            sizes.append(min(into, n_node[node_type]))
    return BlockBudget(
        tuple((node_type, tuple(size + (size > 0) for size in sizes)) for node_type, sizes in nodes.items()),
        tuple((relation, tuple(sizes)) for relation, sizes in edges.items()),
    )


def _dealt(spare: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Slots for edges of padding, dealt out so that no node of padding gets a long row."""
    return spare[padding % max(len(spare), 1)]
