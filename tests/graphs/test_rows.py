import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.graphs import Batches, Budget, ManyGraphs
from jaxgkd.graphs.rows import assemble_rows, row_batches


def some_graphs(sizes, seed=0):
    random = np.random.default_rng(seed)
    graphs = ManyGraphs.from_list(
        [
            {
                "nodes": {"x": random.normal(size=(n, 3)), "kind": random.integers(1, 9, n)},
                "senders": np.zeros(0, np.int64),
                "receivers": np.zeros(0, np.int64),
                "globals": {"y": random.normal()},
            }
            for n in sizes
        ]
    )
    pairs = {
        "p": random.integers(1, 100, int(np.sum(np.square(sizes)))),
        "v": random.normal(size=(sum(np.square(sizes)), 2)),
    }
    return graphs, pairs


def slices(sizes):
    ends = np.cumsum(sizes)
    return [slice(end - n, end) for n, end in zip(sizes, ends, strict=True)]


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9), data=st.data())
def test_every_node_and_pair_is_in_its_place_and_the_rest_is_zero(sizes, data):
    graphs, pairs = some_graphs(sizes)
    rows = np.array(data.draw(st.permutations(range(len(sizes)))))[: data.draw(st.integers(1, len(sizes)))]
    longest = int(max(sizes)) + data.draw(st.integers(0, 2))
    n_row = len(rows) + data.draw(st.integers(0, 2))
    batch = assemble_rows(graphs, rows, Budget(99, 99, n_row + 1, longest), pairs)
    assert batch.nodes["x"].shape == (n_row, longest, 3) and batch.pairs["v"].shape == (n_row, longest, longest, 2)
    of_nodes, of_pairs = slices(sizes), slices(np.square(sizes))
    for at in range(n_row):
        n = sizes[rows[at]] if at < len(rows) else 0
        assert batch.node_mask[at].tolist() == [True] * n + [False] * (longest - n)
        assert batch.graph_mask[at] == (at < len(rows)) and batch.index[at] == (rows[at] if at < len(rows) else -1)
        if n:
            row = rows[at]
            np.testing.assert_array_equal(batch.nodes["x"][at, :n], graphs.nodes["x"][of_nodes[row]])
            np.testing.assert_array_equal(batch.pairs["p"][at, :n, :n], pairs["p"][of_pairs[row]].reshape(n, n))
            np.testing.assert_array_equal(batch.pairs["v"][at, :n, :n], pairs["v"][of_pairs[row]].reshape(n, n, 2))
            assert batch.globals["y"][at] == graphs.globals["y"][row]
        assert not batch.nodes["x"][at, n:].any() and not batch.nodes["kind"][at, n:].any()
        assert not batch.pairs["p"][at, n:].any() and not batch.pairs["p"][at, :, n:].any()


def test_what_does_not_fit_is_refused():
    graphs, _ = some_graphs([2, 5])
    with pytest.raises(ValueError, match="2 graphs of up to 5 nodes do not fit"):
        assemble_rows(graphs, np.array([0, 1]), Budget(99, 99, 2, 5))
    with pytest.raises(ValueError, match="1 graphs of up to 5 nodes do not fit"):
        assemble_rows(graphs, np.array([1]), Budget(99, 99, 2, 4))


def test_an_epoch_has_every_graph_once_in_the_shapes_of_its_classes():
    sizes = np.random.default_rng(1).integers(1, 30, 200).tolist()
    graphs, pairs = some_graphs(sizes)
    batches = Batches(graphs, 16, mode="similar")
    made = list(row_batches(batches, 3, pairs))
    index = np.concatenate([batch.index for batch in made])
    assert sorted(index[index >= 0]) == list(range(200))
    assert {batch.node_mask.shape for batch in made} <= {(16, budget.largest) for budget in batches.budgets}


def test_a_row_batch_is_a_tree_of_arrays():
    graphs, pairs = some_graphs([3, 2])
    batch = assemble_rows(graphs, np.array([0, 1]), Budget(99, 99, 3, 3), pairs)
    total = jax.jit(lambda batch: jnp.sum(batch.nodes["x"]) + jnp.sum(batch.pairs["p"]))(batch)
    np.testing.assert_allclose(total, graphs.nodes["x"].sum() + pairs["p"].sum(), rtol=1e-5)
