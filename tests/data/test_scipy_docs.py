import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxgkd.data import scipy_docs
from jaxgkd.data.registry import describe
from jaxgkd.data.scipy_docs import load_scipy_docs
from jaxgkd.errors import DataError


@pytest.fixture(scope="module")
def graph():
    return load_scipy_docs()


def text_of(graph, path):
    return graph.texts[graph.node_ids.tolist().index(path)]


def neighbours(graph, path):
    row = graph.node_ids.tolist().index(path)
    return set(graph.node_ids[graph.receivers[graph.senders == row]].tolist())


def test_size(graph):
    # Counts move with the installed versions; 2,522 nodes, 9,286 edges and 22 classes with SciPy 1.17 and NumPy 2.4.
    assert 2000 < graph.n_node < 3500 and 7000 < graph.n_edge < 15_000
    counts = describe(graph)
    assert 18 <= counts["classes"] <= 26 and min(counts["class_sizes"].values()) >= 20
    assert counts["homophily"] > 0.45 and counts["isolated"] < 0.12 * graph.n_node
    assert any("scipy" in note for note in graph.notes) and any("numpy" in note for note in graph.notes)
    assert graph.name == "scipy-docs" and (graph.labels >= 0).all()


def test_nodes_are_sorted_and_named(graph):
    paths = graph.node_ids.tolist()
    assert paths == sorted(set(paths))
    for path, title, label in zip(paths, graph.titles, graph.labels, strict=True):
        assert path.endswith("." + title) and path.startswith(graph.class_names[label] + ".")
    assert {"scipy.signal.lfilter", "scipy.stats.norm", "numpy.linalg.svd", "numpy.fft.fft"} - set(paths) <= {
        "numpy.fft.fft"
    }


def test_see_also_and_examples_become_edges(graph):
    assert {"scipy.signal.lfiltic", "scipy.signal.filtfilt"} <= neighbours(graph, "scipy.signal.lfilter")
    assert "scipy.stats.rv_continuous" in neighbours(graph, "scipy.stats.norm")
    assert "numpy.linalg.eig" in neighbours(graph, "numpy.linalg.eigvals")


def test_texts_do_not_spell_out_the_class(graph):
    for path, text in zip(graph.node_ids, graph.texts, strict=True):
        assert not re.search(r"^See Also\n-", text, re.MULTILINE), path
        assert not re.search(r"\b(?:scipy|numpy|np)\.\w", text), path
        assert not re.search(r"^>>> (?:import|from) (?:scipy|numpy)", text, re.MULTILINE), path
        assert "scipy.org" not in text, path
    assert "signal." not in text_of(graph, "scipy.signal.lfilter")
    assert text_of(graph, "scipy.signal.lfilter").startswith("lfilter\nFilter data along one-dimension")
    assert "Parameters\n----------\nb : array_like" in text_of(graph, "scipy.signal.lfilter")


def test_students_see_the_summary_only(graph):
    row = graph.node_ids.tolist().index("scipy.signal.lfilter")
    assert graph.student_texts[row] == "lfilter. Filter data along one-dimension with an IIR or FIR filter."
    # Compiled functions begin with their signature, which is not a summary.
    row = graph.node_ids.tolist().index("scipy.special.gamma")
    assert graph.student_texts[row] == "gamma. gamma function."
    lengths = [len(text) for text in graph.student_texts]
    assert np.mean(lengths) < 0.1 * np.mean([len(text) for text in graph.texts])
    with_summary = sum(
        len(text) > len(title) + 2 for text, title in zip(graph.student_texts, graph.titles, strict=True)
    )
    assert with_summary > 0.98 * graph.n_node


@pytest.mark.thorough
def test_another_process_gives_the_same_graph_in_time(graph):
    # Some docstrings hold random numbers and Python sets, so another hash seed matters.
    code = "from jaxgkd.data.scipy_docs import load_scipy_docs; print(load_scipy_docs().sha256)"
    start = time.perf_counter()
    environment = os.environ | {
        "PYTHONHASHSEED": "12",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == graph.sha256
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("scipy.stats.norm", "norm"),
        ("scipy.stats", ""),
        ("np.fft.fft", "fft"),
        ("np.array", "array"),
        ("stats.norm.rvs", "norm.rvs"),
        ("fft.fft", "fft"),
        ("spl.norm", "norm"),
        ("plt.plot", "plt.plot"),
        ("x.shape", "x.shape"),
        ("~scipy.stats.norm", "norm"),
    ],
)
def test_module_paths_are_shortened(path, expected):
    modules = frozenset({"numpy", "scipy", "numpy.fft", "scipy.fft", "scipy.stats"})
    assert scipy_docs._without_module(path, modules, {"spl", "np"}) == expected


def test_what_varies_is_left_out():
    docstring = "Draw.\n\nExamples\n--------\n>>> f()\narray([1,\n       2])  # may vary\n>>> g()\n3\n"
    assert scipy_docs.clean(docstring, frozenset()) == "Draw.\n\nExamples\n--------\n>>> f()\n>>> g()\n3"
    one, other = ("Use of argument(s) ``{" + names + "}`` by position" for names in ("'b', 'a'", "'a', 'b'"))
    assert scipy_docs.clean(one, frozenset()) == scipy_docs.clean(other, frozenset()) == other


def test_references():
    docstring = """Do it with `beta`, not `x` or :func:`stats.gamma`, says `beta.fit`.

    Parameters
    ----------
    x : array
        See ``numpy.delta``.

    See Also
    --------
    alpha, stats.omega : these
    :func:`phi`
        That, not psi.
    nothing : unknown

    Examples
    --------
    >>> from scipy.stats import chi, f
    >>> np.eta(1)
    """
    item = scipy_docs.Item("scipy.stats.f", "f", "scipy.stats", "scipy.stats", scipy_docs.inspect.cleandoc(docstring))
    known = ["alpha", "omega", "phi", "psi", "beta", "gamma", "chi", "f", "x"]
    names = {f"scipy.stats.{name}": f"scipy.stats.{name}" for name in known}
    names |= {"numpy.delta": "numpy.delta", "numpy.eta": "numpy.eta"}
    listed, mentioned = ({path.rpartition(".")[2] for path in paths} for paths in scipy_docs.references(item, names))
    assert listed == {"alpha", "omega", "phi"}
    assert mentioned - listed == {"beta", "gamma", "chi", "f", "delta", "eta"}


def test_stripped_docstrings_are_an_error(monkeypatch):
    monkeypatch.setattr(scipy_docs, "_public", lambda module: [])
    with pytest.raises(DataError, match="run Python without -OO"):
        load_scipy_docs()
