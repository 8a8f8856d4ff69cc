from pathlib import Path

import pytest

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import DataError


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def with_labels(*labels: object) -> dict[str, str | bytes]:
    return {
        "nodes.csv": "node,text,label\n" + "".join(f"{i},t,{label}\n" for i, label in enumerate(labels)),
        "edges.csv": "src,dst\n0,1\n",
    }


@pytest.mark.parametrize(
    ("labels", "classes", "numbers", "names"),
    [
        ("010", None, [0, 1, 0], ("0", "1")),
        (("1", "2", ""), None, [0, 1, -1], ("1", "2")),
        (("-1", "cat", "dog"), None, [-1, 0, 1], ("cat", "dog")),
        (("0.0", "", "1.0"), None, [0, -1, 1], ("0", "1")),
        ("02", '["x", "y", "z"]', [0, 2], ("x", "y", "z")),
        (("z", "x"), '["x", "y", "z"]', [2, 0], ("x", "y", "z")),
        (("10", "5"), "[10, 5]", [0, 1], ("10", "5")),
        (("10", "5"), '{"10": "ten", "5": "five"}', [1, 0], ("five", "ten")),
        (("b", "a"), '{"b": "bees", "a": "ants"}', [0, 1], ("bees", "ants")),
        (("2.5", "1.5"), '{"1.5": "low", "2.5": "high"}', [1, 0], ("low", "high")),
    ],
)
def test_labels(tmp_path, labels, classes, numbers, names):
    files = with_labels(*labels) | ({"classes.json": classes} if classes else {})
    graph = load_text_graph(write(tmp_path, files))
    assert graph.labels.tolist() == numbers and graph.class_names == names


@pytest.mark.parametrize(
    ("labels", "classes", "row", "match"),
    [
        (("0", "1", "3"), None, 4, "label 3 leaves a gap after 1"),
        (("0", "1", "-2"), None, 4, "label -2 is below 0"),
        (("0", "1.5"), None, 3, "neither an integer nor the name"),
        (("0", "1e3"), None, 3, "neither an integer nor the name"),
        (("0", "cat"), None, 3, "a name among integers"),
        (("cat", "0"), None, 3, "an integer among class names"),
        (("0", "1", "3"), '["x", "y", "z"]', 4, "label '3' is not among the 3 classes of classes.json"),
        (("x", "w"), '["x", "y", "z"]', 3, "label 'w' is not among"),
        (("x", "1"), '["x", "y", "z"]', 3, "an integer among class names"),
        (("", ""), None, None, "no row has a label"),
        (("a", "a"), None, None, "every label is 'a'; label at least two classes"),
        (("2", "2"), '["x", "y", "z"]', None, "every label is 'z'"),
    ],
)
def test_refused_labels(tmp_path, labels, classes, row, match):
    files = with_labels(*labels) | ({"classes.json": classes} if classes else {})
    with pytest.raises(DataError, match=match) as caught:
        load_text_graph(write(tmp_path, files))
    assert caught.value.row == row and "nodes.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[1", "is not JSON"),
        ("3", "neither a list nor an object"),
        ("[]", "lists no classes"),
        ('["a", "a"]', "class 'a' is listed twice"),
        ('["a", ""]', "name of class 1 is not text"),
        ("[true, false]", "name of class 0 is not text"),
        ('["a", "\\ud800"]', "name of class 1 is not text"),
        ('["a", "1"]', "is an integer among names"),
        ('{"1": "a", "1.0": "b"}', "listed twice"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_refused_class_lists(tmp_path, content, match):
    with pytest.raises(DataError, match=match) as caught:
        load_text_graph(write(tmp_path, with_labels(0, 1) | {"classes.json": content}))
    assert "classes.json" in str(caught.value)
