import numpy as np
import pytest

from jaxgkd.data.graph_counts import check_text_graph, describe_shape, edge_homophily, linked_pairs
from jaxgkd.data.text_counts import describe_texts
from jaxgkd.data.text_graphs import make_text_graph


def test_homophily_is_adjusted_for_chance():
    random = np.random.default_rng(0)
    labels = random.choice(3, 3000, p=[0.8, 0.1, 0.1])
    pairs = linked_pairs(random.integers(3000, size=20_000), random.integers(3000, size=20_000))
    plain, adjusted = edge_homophily(pairs, labels)
    assert plain == pytest.approx(0.66, abs=0.02)
    assert adjusted == pytest.approx(0, abs=0.02)
    same = pairs[:, labels[pairs[0]] == labels[pairs[1]]]
    assert edge_homophily(same, labels) == (1, 1)
    # By its definition, one class after the other.
    known = np.where(labels == 2, -1, labels)
    ends = known[pairs][:, (known[pairs] >= 0).all(axis=0)]
    share = sum((ends == k).sum() ** 2 for k in range(2)) / (2 * ends.shape[1]) ** 2
    expected = ((ends[0] == ends[1]).mean() - share) / (1 - share)
    assert edge_homophily(pairs, known)[1] == pytest.approx(expected)
    assert edge_homophily(pairs, np.full(3000, -1)) == (None, None)
    assert edge_homophily(pairs, np.zeros(3000, int)) == (1, None)


def test_components_and_degrees_are_those_of_networkx():
    networkx = pytest.importorskip("networkx")
    random = np.random.default_rng(1)
    pairs = linked_pairs(random.integers(60, size=40), random.integers(60, size=40))
    other = networkx.Graph()
    other.add_nodes_from(range(60))
    other.add_edges_from(pairs.T.tolist())
    facts = describe_shape(pairs, 60)
    sizes = [len(each) for each in networkx.connected_components(other)]
    assert facts["components"] == len(sizes)
    assert facts["largest_component"] == max(sizes) / 60
    assert facts["isolated"] == sum(size == 1 for size in sizes)
    degree = [d for _, d in other.degree]
    assert facts["degree"] == {"median": np.median(degree), "mean": np.mean(degree), "largest": max(degree)}


def test_texts():
    facts = describe_texts(["a" * 10, "b", "", " ", "b", "b"])
    assert facts == {
        "text_length": {"median": 1, "95 %": 10, "longest": 10},
        "without_text": 2,
        "same_text": 2,
    }
    assert describe_texts(["", ""]) == {"without_text": 2, "same_text": 0}


def test_everything_that_is_said_of_a_graph():
    graph = make_text_graph(
        name="toy",
        node_ids=np.arange(5),
        texts=["ab", "", "abcd", "x", "x"],
        titles=["t"] * 5,
        labels=np.array([0, 0, 1, -1, 0]),
        class_names=["p", "q"],
        senders=np.array([0, 1, 1, 2, 0]),
        receivers=np.array([1, 0, 2, 3, 0]),
        given_split=np.array(["train", "valid", "", "test", "train"]),
    )
    facts = check_text_graph(graph)
    assert facts["class_sizes"] == {"p": 3, "q": 1}
    assert (facts["labelled"], facts["labelled_share"]) == (4, 0.8)
    assert (facts["largest_class"], facts["smallest_class"]) == (0.75, 0.25)
    assert (facts["linked_pairs"], facts["isolated"], facts["largest_component"]) == (3, 1, 0.8)
    assert facts["homophily"] == 0.5
    assert facts["adjusted_homophily"] == pytest.approx((0.5 - 10 / 16) / (6 / 16))
    assert (facts["same_text"], facts["without_text"]) == (1, 1)
    assert facts["given_split"] == {"train": 2, "valid": 1, "test": 1, "labelled in none": 1}
