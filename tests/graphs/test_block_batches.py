import jax
import numpy as np
import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.graphs import Position, prefetch
from jaxgkd.graphs.block_batches import BlockBatches, ask_nodes
from jaxgkd.graphs.sampling import NeighbourSampler, Request
from tests.graphs.sampled_graphs import CITES, random_edges, typed_graph

IDS = np.array([3, 30, 11, 7, 39, 0, 21, 8, 14, 2, 33])


@pytest.fixture(scope="module")
def sampler():
    return NeighbourSampler(typed_graph(), [2, 2])


@pytest.fixture(scope="module")
def batches(sampler):
    return BlockBatches(sampler, ask_nodes("paper", IDS), len(IDS), 4, seed=5)


def test_every_item_comes_once_an_epoch_and_the_last_batch_is_padded(batches):
    assert batches.n_batch == 3
    orders = []
    for epoch in range(2):
        blocks = [batches.batch(epoch, number) for number in range(3)]
        index = np.concatenate([block.index for block in blocks])
        orders.append(index[index >= 0].tolist())
        assert sorted(orders[-1]) == list(range(11)) and index[-1] == -1
        for block in blocks:
            real = block.index >= 0
            rows = block.seeds["target"]
            np.testing.assert_array_equal(block.nodes["paper"][rows][real], IDS[block.index[real]])
            np.testing.assert_array_equal(block.node_mask["paper"][rows], real)
    assert orders[0] != orders[1]


def test_batches_are_the_same_whenever_they_are_asked_for(sampler, batches):
    again = BlockBatches(sampler, ask_nodes("paper", IDS), len(IDS), 4, seed=5)
    assert again.budgets == batches.budgets
    whole = list(batches.stream(epochs=3))
    assert [step.position for step in whole][2:4] == [Position(1, 0), Position(1, 1)]
    for at in (0, 1, 4, 7):
        rest = list(again.stream(whole[at].position, epochs=3))
        assert len(rest) == len(whole) - at - 1
        for one, other in zip(rest, whole[at + 1 :], strict=True):
            assert one.position == other.position
            assert jax.tree.structure(one.batch) == jax.tree.structure(other.batch)
            jax.tree.map(np.testing.assert_array_equal, one.batch, other.batch)
    other = BlockBatches(sampler, ask_nodes("paper", IDS), len(IDS), 4, seed=6, budgets=batches.budgets)
    assert any(np.any(other.batch(0, i).index != batches.batch(0, i).index) for i in range(3))
    # Epochs differ in what is drawn, not only in the order.
    still = BlockBatches(sampler, ask_nodes("paper", IDS), len(IDS), 4, shuffle=False)
    first, second = still.batch(0, 0), still.batch(1, 0)
    np.testing.assert_array_equal(first.index, np.arange(4))
    np.testing.assert_array_equal(second.index, np.arange(4))
    assert any(not np.array_equal(first.edges[r], second.edges[r]) for r in first.edges)


def test_blocks_go_through_prefetch(batches):
    plain = list(batches.stream(epochs=2))
    for one, other in zip(plain, prefetch(batches.stream(epochs=2)), strict=True):
        assert one.position == other.position
        jax.tree.map(np.testing.assert_array_equal, one.batch, other.batch)


def test_edges_that_are_asked_for_are_not_in_the_block(sampler):
    """Link prediction: sources, targets and negatives are seeds, and target edges pass no messages."""
    senders, receivers = random_edges()[CITES]
    neighbours = sampler.graph.relations[CITES]

    def ask(items, position):
        real = items[items >= 0]
        ends = [np.where(items >= 0, end[items], -1) for end in (senders, receivers)]
        negatives = np.random.default_rng([*position, 1]).integers(0, 40, 3)
        asked = neighbours.positions_of_pairs(senders[real], receivers[real])
        back = neighbours.positions_of_pairs(receivers[real], senders[real])
        roles = {"source": ends[0], "target": ends[1], "negative": negatives}
        return Request({role: ("paper", ids) for role, ids in roles.items()}, {CITES: np.r_[asked, back]})

    batches = BlockBatches(NeighbourSampler(sampler.graph, [-1, -1]), ask, len(senders), 16)
    seen = 0
    for number in range(batches.n_batch):
        block = batches.batch(0, number)
        real = block.index[block.index >= 0]
        np.testing.assert_array_equal(block.nodes["paper"][block.seeds["source"]][: len(real)], senders[real])
        assert block.seeds["negative"].shape == (3,)
        layout, mask = block.layers[0][CITES], block.edge_mask[CITES]
        ends = [block.nodes["paper"][np.asarray(rows)[mask]] for rows in (layout.senders, layout.receivers)]
        inside, asked = set(zip(*ends, strict=True)), set(zip(senders[real], receivers[real], strict=True))
        assert not inside & (asked | {(r, s) for s, r in asked})
        seen += len(inside)
    assert seen


def test_few_shapes_and_what_they_pad(batches):
    report = batches.report(epochs=2)
    shapes = {str(jax.tree.map(np.shape, batches.batch(epoch, number))) for epoch in range(2) for number in range(3)}
    assert report.shapes == len(shapes) and report.n_batch == 6
    assert 0 < report.padded_share < 1
    assert str(report) == f"{100 * report.padded_share:.1f} % padding, 1 compiled shape"


def test_bad_settings(sampler, batches):
    for n_item, batch_size, seed in ((0, 4, 0), (5, 0, 0), (5, 4, -1)):
        with pytest.raises(ConfigError, match="cannot be made"):
            BlockBatches(sampler, ask_nodes("paper", IDS), n_item, batch_size, seed=seed)
    with pytest.raises(ValueError, match="does not fit"):
        other = NeighbourSampler(sampler.graph, [-1, -1])
        BlockBatches(other, ask_nodes("paper", IDS), 8, 4, budgets=batches.budgets[:1]).batch(0, 0)
