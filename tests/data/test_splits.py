import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd.data.splits import (
    Split,
    few_shot,
    load_split,
    make_split,
    save_split,
    stratified_folds,
    training_edges,
)
from jaxgkd.data.text_graphs import load_text_graph, make_text_graph
from jaxgkd.errors import ConfigError, DataError


def graph_of(labels, given_split=None, senders=(0,), receivers=(1,), n_class=None):
    labels = np.asarray(labels, np.int32)
    n_class = int(labels.max()) + 1 if n_class is None else n_class
    return make_text_graph(
        name="toy",
        node_ids=np.arange(len(labels)),
        texts=["t"] * len(labels),
        titles=["t"] * len(labels),
        labels=labels,
        class_names=[f"class {i}" for i in range(n_class)],
        senders=np.array(senders),
        receivers=np.array(receivers),
        given_split=None if given_split is None else np.array(given_split),
    )


def rows(*values):
    return np.array(values, np.int32)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(3, 40), min_size=2, max_size=6), seed=st.integers(0, 2**31), unlabelled=st.integers(0, 5)
)
def test_every_class_is_divided_60_20_20(sizes, seed, unlabelled):
    labels = np.concatenate([np.full(size, i) for i, size in enumerate(sizes)] + [np.full(unlabelled, -1)])
    labels = np.random.default_rng(seed).permutation(labels)
    split = make_split(graph_of(labels), "60-20-20", seed)
    together = np.concatenate([split.train, split.valid, split.test])
    np.testing.assert_array_equal(np.sort(together), np.flatnonzero(labels >= 0))
    for part, share in ((split.train, 0.6), (split.valid, 0.2), (split.test, 0.2)):
        assert part.dtype == np.int32 and (np.diff(part) > 0).all()
        counts = np.bincount(labels[part], minlength=len(sizes))
        assert (counts >= 1).all()
        assert (np.abs(counts - share * np.array(sizes)) <= 1).all()
    assert split.name == "60-20-20" and split.seed == seed


def test_small_classes():
    labels = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]
    split = make_split(graph_of(labels), "60-20-20", 0)
    counts = [
        np.bincount(np.array(labels)[part], minlength=4).tolist() for part in (split.train, split.valid, split.test)
    ]
    assert counts == [[1, 1, 1, 2], [1, 0, 0, 1], [1, 1, 0, 1]]


def test_the_split_of_a_seed_never_changes():
    split = make_split(graph_of(np.arange(30) % 3), "60-20-20", 7)
    again = make_split(graph_of(np.arange(30) % 3), "60-20-20", 7)
    assert split.sha256 == again.sha256 != make_split(graph_of(np.arange(30) % 3), "60-20-20", 8).sha256
    # Written down once: a split that a report names must come out the same in every later version.
    assert split.test.tolist() == [0, 5, 8, 16, 19, 27]


def test_public_split():
    labels = [0, 1, 0, 1, 0, 1, -1]
    given_split = ["train", "train", "valid", "valid", "test", "", "test"]
    split = make_split(graph_of(labels, given_split), "public", 3)
    assert (split.train.tolist(), split.valid.tolist(), split.test.tolist()) == ([0, 1], [2, 3], [4])
    assert split.seed is None
    with pytest.raises(DataError, match="toy comes without a split; add a column 'split'"):
        make_split(graph_of(labels), "public", 0)
    given_split[1] = "valid"
    with pytest.raises(DataError, match="class 'class 1' of toy has no training item"):
        make_split(graph_of(labels, given_split), "public", 0)


def test_errors_of_make_split():
    with pytest.raises(DataError, match="class 'class 2' of toy has no training item"):
        make_split(graph_of([0, 1] * 6, n_class=3), "60-20-20", 0)
    with pytest.raises(ConfigError, match="no split 'random'; use public, 60-20-20 or inductive"):
        make_split(graph_of([0, 1] * 6), "random", 0)
    with pytest.raises(ConfigError, match="seed -1 is below 0"):
        make_split(graph_of([0, 1] * 6), "60-20-20", -1)
    with pytest.raises(DataError, match="the valid part of the split is empty"):
        make_split(graph_of([0, 1]), "60-20-20", 0)


def test_inductive_split_hides_the_test_nodes():
    n = 40
    senders, receivers = np.arange(n), (np.arange(n) * 3 + 1) % n
    graph = graph_of(np.arange(n) % 4, senders=senders, receivers=receivers)
    split = make_split(graph, "inductive", 5)
    assert split.inductive and not make_split(graph, "60-20-20", 5).inductive
    assert split.sha256 == make_split(graph, "60-20-20", 5).sha256
    mask = training_edges(graph, split)
    expected = [
        s not in split.test and r not in split.test for s, r in zip(graph.senders, graph.receivers, strict=True)
    ]
    assert mask.tolist() == expected and mask.dtype == bool
    assert 0 < mask.sum() < graph.n_edge
    assert few_shot(split, graph.labels, 2, 0).inductive


def test_few_shot():
    labels = np.arange(60) % 3
    split = make_split(graph_of(labels), "60-20-20", 1)
    five, three = few_shot(split, labels, 5, 9), few_shot(split, labels, 3, 9)
    assert np.bincount(labels[five.train]).tolist() == [5, 5, 5]
    assert set(three.train) < set(five.train) < set(split.train)
    assert five.valid is split.valid and five.test is split.test
    assert five.name == "60-20-20, 5 a class" and five.seed == 9
    assert few_shot(split, labels, 5, 10).sha256 != five.sha256 == few_shot(split, labels, 5, 9).sha256
    with pytest.raises(DataError, match="class '0' has 12 training items; keep fewer"):
        few_shot(split, labels, 13, 0)
    with pytest.raises(DataError, match="class 'x' has 12"):
        few_shot(split, labels, 13, 0, class_names=["x", "y", "z"])
    with pytest.raises(ConfigError, match="0 labels a class"):
        few_shot(split, labels, 0, 0)


@settings(deadline=None, max_examples=40)
@given(labels=st.lists(st.integers(-1, 4), min_size=8, max_size=60), k=st.integers(2, 5), seed=st.integers(0, 99))
def test_folds_are_even_in_size_and_class(labels, k, seed):
    labels = np.array(labels)
    if (labels >= 0).sum() < k:
        with pytest.raises(DataError, match="cannot be divided"):
            stratified_folds(labels, k, seed)
        return
    folds = stratified_folds(labels, k, seed)
    np.testing.assert_array_equal(folds == -1, labels < 0)
    for chosen in [labels >= 0, *(labels == c for c in range(5))]:
        sizes = np.bincount(folds[chosen], minlength=k)
        assert len(sizes) == k and sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, stratified_folds(labels, k, seed))


def test_folds_depend_on_the_seed_and_are_mixed():
    labels = np.zeros(100, np.int32)
    one, other = stratified_folds(labels, 5, 0), stratified_folds(labels, 5, 1)
    assert (one != other).any() and (np.diff(one) != 1).any()
    with pytest.raises(DataError, match="100 labelled items cannot be divided into 1 folds"):
        stratified_folds(labels, 1, 0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"valid": rows(2, 1)}, "valid rows of the split are not sorted"),
        ({"valid": rows(2, 2)}, "valid rows of the split are not sorted"),
        ({"valid": rows(-1)}, "valid rows of the split are not sorted"),
        ({"valid": rows(1, 2)}, "row 1 .* is in the train and the valid part"),
        ({"test": rows(1)}, "row 1 .* is in the train and the test part"),
        ({"test": rows(2)}, "row 2 .* is in the valid and the test part"),
        ({"test": rows()}, "the test part of the split is empty"),
        ({"test": np.array([4])}, "the test part of the split is not a list of rows"),
    ],
)
def test_parts_must_be_disjoint_sorted_rows(change, match):
    split = Split(train=rows(0, 1), valid=rows(2), test=rows(4), name="mine", seed=None)
    with pytest.raises(DataError, match=match):
        dataclasses.replace(split, **change)


def test_saved_splits(tmp_path):
    path = tmp_path / "split.json"
    split = make_split(graph_of(np.arange(30) % 3), "60-20-20", 2)
    save_split(split, path)
    again = load_split(path, 30)
    assert (again.sha256, again.name, again.seed) == (split.sha256, split.name, split.seed)
    with pytest.raises(DataError, match="rows beyond the 20 nodes"):
        load_split(path, 20)
    content = json.loads(path.read_text())
    content["train"].pop()
    for broken in (
        json.dumps(content),
        "{",
        "[]",
        json.dumps({**content, "train": [2**40]}),
        json.dumps({"name": "x"}),
    ):
        path.write_text(broken)
        with pytest.raises(DataError, match=r"split\.json: (does not match its hash|is not a saved split)"):
            load_split(path)
    with pytest.raises(DataError, match="does not exist"):
        load_split(tmp_path / "none.json")


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="JAXGKD_DATA does not name the data folder")
def test_public_split_of_cora():
    graph = load_text_graph(Path(os.environ["JAXGKD_DATA"]) / "text" / "cora")
    split = make_split(graph, "public", 0)
    assert (len(split.train), len(split.valid), len(split.test)) == (140, 500, 1000)
    assert np.bincount(graph.labels[split.train]).tolist() == [20] * 7
    drawn = make_split(graph, "60-20-20", 0)
    assert (len(drawn.train), len(drawn.valid), len(drawn.test)) == pytest.approx((1625, 541, 542), abs=4)
