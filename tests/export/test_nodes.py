import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax import export

from jaxgkd import cli
from jaxgkd.data.bag_of_words import Vocabulary
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.exported import load, read_safetensors
from jaxgkd.graphs import undirected


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


# Checks of sizes, and what StableHLO calls a sum over a window whose size is a symbol.
PORTABLE = {"shape_assertion", "stablehlo.dynamic_reduce_window"}


def inputs_of(run, data, kind) -> dict[str, np.ndarray]:
    graph = load_text_graph(data)
    rows = Vocabulary.load(run / "student" / "vocabulary.json").transform(graph.texts)
    found = {"indptr": rows.indptr, "indices": rows.indices, "data": rows.data}
    if kind == "mlp":
        return found
    senders, receivers = undirected(graph.senders, graph.receivers)
    order = np.random.default_rng(0).permutation(len(senders))
    return found | {"senders": senders[order], "receivers": receivers[order]}


def exported(run, data, folder) -> np.ndarray:
    """Exports a run, and says what it predicts itself."""
    assert cli.main(["export", str(run), "--out", str(folder)]) == 0
    out = folder.with_suffix(".parquet")
    assert cli.main(["predict", str(run), "--data", str(data), "--out", str(out)]) == 0
    table = pd.read_parquet(out)
    return table[[name for name in table.columns if name.startswith("p_")]].to_numpy()


THOROUGH = [pytest.param(kind, marks=pytest.mark.thorough) for kind in ("sage", "gin")]


@pytest.mark.parametrize("kind", ["gcn", "gat", "mlp", *THOROUGH])
def test_a_program_says_what_the_run_says(node_run, tmp_path, kind):
    run, data = node_run(kind)
    expected = exported(run, data, tmp_path / "student")
    inputs = inputs_of(run, data, kind)
    student = load(tmp_path / "student")
    np.testing.assert_allclose(student(**inputs), expected, atol=1e-6)
    assert student.manifest["platforms"] == ["cpu", "cuda", "tpu"]
    program = export.deserialize(bytearray((tmp_path / "student" / "program.jax").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    # No kernel that only one platform has is called by name.
    assert set(re.findall(r"custom_call @([\w.]+)", program.mlir_module())) <= PORTABLE
    # Another number of nodes, none of which has a word or a link.
    alone = {name: np.zeros(5 if name == "indptr" else 0, values.dtype) for name, values in inputs.items()}
    said = student(**alone)
    assert said.shape == (4, 3)
    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(said, said[:1].repeat(4, 0), rtol=1e-6)


def test_a_program_runs_where_our_libraries_are_not(node_run, tmp_path, asked_elsewhere):
    run, data = node_run("gcn")
    expected = exported(run, data, tmp_path / "student")
    np.testing.assert_allclose(asked_elsewhere(tmp_path / "student", inputs_of(run, data, "gcn")), expected, atol=1e-6)


def test_weights_are_plain_and_may_be_exchanged(node_run, tmp_path):
    run, data = node_run("mlp")
    exported(run, data, tmp_path / "best")
    assert cli.main(["export", str(run), "--out", str(tmp_path / "other"), "--member", "0"]) == 0
    best, other = load(tmp_path / "best"), load(tmp_path / "other")
    inputs = inputs_of(run, data, "mlp")
    assert np.abs(best(**inputs) - other(**inputs)).max() > 1e-3
    said = best._call({name: jnp.asarray(leaf) for name, leaf in other.weights.items()}, inputs)
    np.testing.assert_array_equal(said, other(**inputs))
    weights = read_safetensors(tmp_path / "best" / "weights.safetensors")
    assert jax.tree.map(np.shape, weights)["head.kernel"] == (1, 8, 3)


def test_what_cannot_be_exported_or_loaded_is_said(node_run, tmp_path, capsys):
    run, _ = node_run("mlp")
    folder = tmp_path / "student"
    assert cli.main(["export", str(run), "--out", str(folder), "--member", "2"]) == 2
    assert "the run has 2 members; give 0 to 1" in capsys.readouterr().err
    assert cli.main(["export", str(run), "--out", str(run)]) == 2
    assert "the folder is not empty" in capsys.readouterr().err
    assert cli.main(["export", str(run), "--out", str(run), "--overwrite"]) == 2
    assert "the folder is no earlier export" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "manifest.json").write_text('{"name": "an extension", "sha256": {}}')
    assert cli.main(["export", str(run), "--out", str(other), "--overwrite"]) == 2
    assert cli.main(["export", str(run), "--out", str(folder)]) == 0
    (folder / "mine.txt").write_text("mine")
    assert cli.main(["export", str(run), "--out", str(folder), "--overwrite"]) == 2
    (folder / "mine.txt").unlink()
    assert cli.main(["export", str(run), "--out", str(folder), "--overwrite"]) == 0
    student = load(folder)
    with pytest.raises(ValueError, match="the inputs are indptr, indices, data; 'data' is missing"):
        student(indptr=[0], indices=[])
    with pytest.raises(ValueError, match=r"'indptr' is \[n \+ 1\], not \(1, 1\)"):
        student(indptr=[[0]], indices=[], data=[])
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"weights\.safetensors: the file is damaged"):
        load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) | {"manifest.json"} == {entry.name for entry in folder.iterdir()}
