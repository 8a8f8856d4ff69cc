import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxgkd.errors import DataError
from jaxgkd.graphs.budgets import (
    Budget,
    cheapest_cuts,
    filled_budgets,
    filled_plan,
    fixed_budgets,
    fixed_plan,
    rounded_budget,
    shuffled,
)
from jaxgkd.graphs.size_classes import similar_budgets, similar_plan

sizes = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 120)), min_size=1, max_size=70)


def columns(pairs):
    return np.array(pairs).T


def groups(plan):
    return np.split(plan.order, plan.start[1:-1])


def check(plan, n_node, n_edge, budgets):
    """Every graph once, and every batch with room for padding."""
    np.testing.assert_array_equal(np.sort(plan.order), np.arange(len(n_node)))
    assert plan.start[0] == 0 and plan.start[-1] == len(plan.order) and len(plan.start) == len(plan.budget) + 1
    for group, number in zip(groups(plan), plan.budget, strict=True):
        budget = budgets[number]
        assert 0 < len(group) < budget.n_graph and n_node[group].sum() < budget.n_node
        assert n_edge[group].sum() <= budget.n_edge and n_node[group].max() <= budget.largest


# The class of the largest graphs may need fewer edges than a smaller one.
@example(pairs=[(1, 17), (2, 0), (3, 0)], batch_size=1, most=3, seed=0)
@settings(deadline=None, max_examples=40)
@given(pairs=sizes, batch_size=st.integers(1, 20), most=st.integers(1, 4), seed=st.integers(0, 99))
def test_whatever_the_sizes_every_graph_has_a_place(pairs, batch_size, most, seed):
    n_node, n_edge = columns(pairs)
    order = shuffled(len(n_node), seed)
    fixed = fixed_budgets(n_node, n_edge, batch_size, most=most)
    plan = fixed_plan(order, n_node, n_edge, batch_size, fixed)
    check(plan, n_node, n_edge, fixed)
    assert [len(group) for group in groups(plan)][:-1] == [batch_size] * (len(plan.budget) - 1)
    filled = filled_budgets(n_node, n_edge, batch_size, most=most)
    check(filled_plan(order, n_node, n_edge, filled), n_node, n_edge, filled)
    similar = similar_budgets(n_node, n_edge, batch_size, most=most)
    check(similar_plan(order, n_node, n_edge, batch_size, similar), n_node, n_edge, similar)
    for budgets in (fixed, filled, similar):
        assert 1 <= len(budgets) <= most and list(budgets) == sorted(budgets, key=lambda budget: budget.slots)


def test_batches_are_filled_until_the_next_graph_has_no_room():
    n_node, n_edge = np.array([4, 4, 3, 9, 1, 1]), np.array([0, 0, 0, 0, 5, 6])
    budgets = [Budget(8, 9, 9, 9), Budget(12, 9, 9, 9)]
    plan = filled_plan(np.arange(6), n_node, n_edge, budgets)
    # 4 + 4 + 3 fill the 11 nodes beside the padding; then 9 + 1 nodes with 5 edges, since 6 more edges are too many.
    assert [group.tolist() for group in groups(plan)] == [[0, 1, 2], [3, 4], [5]]
    assert plan.budget.tolist() == [1, 1, 0]
    assert [len(g) for g in groups(filled_plan(np.arange(6), n_node, n_edge, [Budget(99, 99, 3, 9)]))] == [2, 2, 2]


def test_a_batch_without_room_is_halved_and_a_graph_without_room_refused():
    n_node, n_edge = np.full(8, 5), np.full(8, 2)
    plan = fixed_plan(np.arange(8), n_node, n_edge, 8, [Budget(12, 9, 9, 9)])
    assert [group.tolist() for group in groups(plan)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for make in (
        lambda b: fixed_plan(np.arange(8), n_node, n_edge, 8, b),
        lambda b: filled_plan(np.arange(8), n_node, n_edge, b),
    ):
        with pytest.raises(DataError, match=r"graph 0 has 5 nodes and 2 edges, more than there is room for"):
            make([Budget(5, 9, 9, 9)])


def test_little_is_padded_where_sizes_scatter():
    random = np.random.default_rng(0)
    n_node = np.minimum(8 + random.gamma(4, 5, 3000).astype(int), 130)
    n_edge = 2 * n_node + random.integers(0, 8, 3000)
    real = n_node.sum() + n_edge.sum()
    for budgets, make in (
        (fixed_budgets(n_node, n_edge, 128), lambda order, b: fixed_plan(order, n_node, n_edge, 128, b)),
        (filled_budgets(n_node, n_edge, 128), lambda order, b: filled_plan(order, n_node, n_edge, b)),
        (similar_budgets(n_node, n_edge, 128), lambda order, b: similar_plan(order, n_node, n_edge, 128, b)),
    ):
        slots = sum(budgets[i].slots for i in make(shuffled(3000, 7), budgets).budget)
        assert 1 - real / slots < 0.15


def test_batches_of_similar_graphs_have_short_rows():
    random = np.random.default_rng(1)
    n_node = 5 + random.gamma(4, 5, 4000).astype(int)
    n_edge = 2 * n_node
    budgets = similar_budgets(n_node, n_edge, 64)
    plan = similar_plan(shuffled(4000, 3), n_node, n_edge, 64, budgets)
    rows = sum(64 * budgets[i].largest for i in plan.budget)
    one_class = similar_budgets(n_node, n_edge, 64, most=1)
    assert n_node.sum() / rows > 0.65 > n_node.sum() / (64 * one_class[0].largest * len(plan.budget))
    assert [len(group) for group in groups(plan)].count(64) >= len(plan.budget) - 1
    other = similar_plan(shuffled(4000, 4), n_node, n_edge, 64, budgets)
    assert not np.array_equal(plan.budget, other.budget), "classes come in another order"


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 7), parts=st.integers(1, 4), seed=st.integers(0, 999))
def test_cuts_are_the_cheapest(k, parts, seed):
    cost = np.random.default_rng(seed).random((k + 1, k + 1))
    price = lambda ends: sum(cost[i, j] for i, j in zip((0, *ends), ends, strict=False))  # noqa: E731
    possible = [(*inner, k) for n in range(min(parts, k)) for inner in itertools.combinations(range(1, k), n)]
    found = cheapest_cuts(cost, parts)
    assert found[-1] == k and len(found) <= parts
    assert price(found) == pytest.approx(min(map(price, possible)))


def test_orders_come_from_seed_and_epoch_and_do_not_change():
    assert shuffled(6, 0, 0).tolist() == shuffled(6, 0, 0).tolist() == FIRST_ORDER
    orders = {tuple(shuffled(20, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16 and all(sorted(order) == list(range(20)) for order in orders)
    assert rounded_budget(15, 17, 3, 9) == Budget(16, 32, 3, 9) and rounded_budget(16, 0, 3, 9) == Budget(32, 16, 3, 9)


# Written down once: runs that are resumed with another version of NumPy see the same batches.
FIRST_ORDER = [3, 2, 1, 0, 4, 5]
