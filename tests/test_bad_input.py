"""Whatever a user gets wrong: one line that names the place, exit code 2, and nothing left behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from safetensors.numpy import load_file, save_file

from jaxgkd import cli

QUICK = ["--epochs=2", "--width=8", "--hops=1", "--seeds=2", "--folds=2", "--max-tokens=24", "--parts=8"]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture
def refused(bert_folder, tmp_path, capsys):
    """Runs on a folder, has to be refused, and gives the line that says why."""

    def refused(data, *flags, teacher=bert_folder, out=None) -> str:
        place = tmp_path / "out" if out is None else out
        before = sorted(tmp_path.rglob("*"))
        words = ["run", "lingugkd", "--data", str(data), "--teacher", str(teacher), "--out", str(place), *QUICK, *flags]
        capsys.readouterr()
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("jaxgkd: ")
        assert error.endswith(".\n")
        assert error.count("\n") == 1
        assert "Traceback" not in error
        # Whatever was there stays, and nothing is added.
        assert sorted(tmp_path.rglob("*")) == before
        return error

    return refused


@pytest.fixture
def folder(text_graph_folder, tmp_path):
    return text_graph_folder(tmp_path / "topics", split=True)


def cell(row: int, field: str, value: str):
    """A change that writes a cell of the node table; rows count as in a spreadsheet."""

    def change(nodes, edges):
        nodes[row - 2][field] = value

    return change


def everywhere(field: str, value: str | None):
    def change(nodes, edges):
        for row in nodes:
            row.pop(field) if value is None else row.update({field: value})

    return change


def without_training(nodes, edges):
    for row in nodes:
        if row["label"] == "student" and row["split"] == "train":
            row["split"] = ""


def edge(row: int, *ends: str):
    def change(nodes, edges):
        edges[row - 2] = ends

    return change


def numbered(nodes, edges):
    for row in nodes:
        row["node"] = row["node"][1:]
    edges[:] = [(src[1:], dst[1:]) for src, dst in edges]
    edges[5] = (edges[5][0], "n7")


def own_words(nodes, edges):
    for i, row in enumerate(nodes):
        row["title"], row["abstract"] = f"word{i}", ""


TABLES = {
    "an edge to a node that is not there": (edge(9, "n3", "n99"), "edges.csv, row 9, field 'dst'", "'n99'"),
    "an edge from nowhere": (edge(4, "", "n1"), "edges.csv, row 4, field 'src'", "empty"),
    "an id that is not a number": (numbered, "edges.csv, row 7, field 'dst'", "'n7' is not an integer"),
    "only links to itself": (
        lambda nodes, edges: edges.__setitem__(slice(None), [("n1", "n1")]),
        "edges.csv",
        "links a node to itself",
    ),
    "no edges": (lambda nodes, edges: edges.clear(), "edges.csv", "no edges"),
    "an id twice": (cell(12, "node", "n3"), "nodes.csv, row 12, field 'node'", "'n3' is also in row 5"),
    "no id": (cell(12, "node", ""), "nodes.csv, row 12, field 'node'", "no id"),
    "a fraction for a label": (cell(8, "label", "0.5"), "nodes.csv, row 8, field 'label'", "0.5"),
    "a number among names": (cell(8, "label", "3"), "nodes.csv, row 8, field 'label'", "integer among class names"),
    "no label column": (everywhere("label", None), "nodes.csv, row 1", "no column 'label'"),
    "no labels": (everywhere("label", ""), "nodes.csv, field 'label'", "no row has a label"),
    "one class": (everywhere("label", "graph"), "nodes.csv, field 'label'", "every label is 'graph'"),
    "a part of no split": (cell(6, "split", "dev"), "nodes.csv, row 6, field 'split'", "'dev'"),
    "a class without training items": (without_training, "topics", "class 'student' of topics has no training item"),
    "no validation items": (
        lambda nodes, edges: [row.update(split="train") for row in nodes if row["split"] == "valid"],
        "valid",
        "empty",
    ),
    "no text": (
        lambda nodes, edges: [row.update(title="", abstract=" ") for row in nodes],
        "nodes.csv",
        "every node is without text",
    ),
    "no text column": (
        lambda nodes, edges: [(row.pop("title"), row.pop("abstract")) for row in nodes],
        "nodes.csv, row 1",
        "no text column",
    ),
    "no word twice": (own_words, "", "no word is in at least 2"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_contradict_themselves(name, text_graph_folder, tmp_path, refused):
    change, place, what = TABLES[name]
    error = refused(text_graph_folder(tmp_path / "topics", split=True, change=change), "--split", "public")
    assert place in error
    assert what in error


FILES = {
    "an empty file": ("nodes.csv", b"", "nodes.csv: is empty"),
    "only a header": ("nodes.csv", b"node,title,label\n", "nodes.csv: there are no nodes"),
    "bytes": ("nodes.csv", b"\x00\x01\x02" * 100, "nodes.csv, row 1: is not a text file"),
    "another encoding": ("edges.csv", "src,dst\nn1,né\n".encode("latin-1"), "edges.csv, row 2: is not UTF-8"),
    "a picture": ("edges.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "edges.csv, row 1: is not"),
    "a gzip file": ("nodes.csv", b"\x1f\x8b\x08\x00", "nodes.csv: is gzip-compressed"),
    "a ragged row": ("edges.csv", b"src,dst\nn1,n2\nn3\n", "edges.csv, row 3: has 1 cell where the header has 2"),
    "an open quote": ("edges.csv", b'src,dst\nn1,"n2\nn3,n4\n', "edges.csv, row 2: is not well-formed CSV"),
    "JSON": ("edges.csv", b'{"src": ["n1"],\n "dst": ["n2"]}\n', "edges.csv, row "),
    "semicolons": ("edges.csv", b"src;dst\nn1;n2\n", "edges.csv, row 1: is not separated by commas"),
    "one column twice": ("edges.csv", b"src,src\nn1,n2\n", "edges.csv, row 1: there are two columns 'src'"),
    "other columns": ("edges.csv", b"from,to\nn1,n2\n", "edges.csv, row 1: there is no column 'src'"),
    "a class that is not listed": ("classes.json", b'["graph", "student"]', "row 4, field 'label': label 'molecules'"),
    "classes that are no JSON": ("classes.json", b"graph, student", "classes.json: is not JSON"),
    "features that are no archive": ("features.npz", b"1,2,3\n", "features.npz: is not a readable NPZ file"),
    "a damaged parquet file": ("nodes.parquet", b"PAR1 and no more", "are both there"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_something_else(name, folder, refused):
    file, content, said = FILES[name]
    (folder / file).write_bytes(content)
    error = refused(folder)
    assert str(folder) in error
    assert said in error


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": np.full((60, 3), np.nan)}, "the feature in row 0, column 0"),
        ({"features": np.ones((59, 3))}, "there are 59 rows of features for 60 nodes"),
        ({"features": np.ones((60, 0))}, "the features have no columns"),
        ({"features": np.ones(60)}, "has 1 dimensions"),
        ({"features": np.array([["a", "b"]] * 60)}, "field 'features': holds <U1 values"),
        ({"values": np.ones((60, 3))}, "no array 'features'"),
    ],
)
def test_features_that_do_not_fit(arrays, said, folder, refused):
    np.savez(folder / "features.npz", **arrays)
    error = refused(folder)
    assert f"{folder / 'features.npz'}" in error
    assert said in error


def test_sparse_features_narrower_than_their_indices(folder, refused):
    matrix = scipy.sparse.random_array((60, 5), density=0.5, format="csr", rng=0)
    np.savez(
        folder / "features.npz", data=matrix.data, indices=matrix.indices, indptr=matrix.indptr, shape=np.array([60, 3])
    )
    assert "features.npz, field 'indices': row " in refused(folder)


def test_features_that_hold_objects_are_not_unpickled(folder, refused):
    np.savez(folder / "features.npz", features=np.array([{"a": 1}] * 60, dtype=object))
    assert "features.npz: is not a readable NPZ file of numbers" in refused(folder)


def test_folders_and_names_that_are_not_there(tmp_path, refused, folder, monkeypatch):
    monkeypatch.delenv("JAXGKD_DATA", raising=False)
    assert f"{tmp_path / 'nowhere'}: does not exist" in refused(tmp_path / "nowhere")
    assert "nodes.csv: is not a folder" in refused(folder / "nodes.csv")
    assert "there is no data set 'corra' for lingugkd; use one of scipy-docs" in refused("corra")
    (folder / "edges.csv").unlink()
    assert f"{folder}: there is none of edges.csv" in refused(folder)


def test_a_split_that_the_data_does_not_give(text_graph_folder, tmp_path, refused):
    error = refused(text_graph_folder(tmp_path / "plain"), "--split", "public")
    assert "field 'split': plain comes without a split" in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shots", "13"], "has 12 training items"),
        (["--shots", "1", "--folds", "4"], "3 labelled items cannot be divided into 4 folds"),
        (["--shots", "-1"], "--shots"),
        (["--positions", "60"], "--positions"),
        (["--positions", "-1"], "--positions"),
        (["--max-tokens", "41"], "the model reads 40 tokens"),
        (["--max-tokens", "4"], "tokens"),
        (["--parts", "0"], "--parts"),
        (["--aligned-nodes", "-1"], "--aligned-nodes"),
        (["--dropout", "1"], "--dropout"),
        (["--temperature", "0"], "--temperature"),
        (["--align-temperature", "-1"], "--align-temperature"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--text-columns", "label"], "the text would give the answer away"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_the_data_or_the_model_do_not_allow(flags, said, folder, refused):
    assert said in refused(folder, *flags)


def copied(bert_folder: Path, folder: Path) -> Path:
    shutil.copytree(bert_folder, folder)
    return folder


def test_a_teacher_that_is_not_there_or_holds_no_weights(bert_folder, folder, tmp_path, refused):
    assert "there is no such folder" in refused(folder, teacher=tmp_path / "nowhere")
    bare = copied(bert_folder, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert f"{bare}: there is neither model.safetensors nor" in refused(folder, teacher=bare)
    (bare / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "a pickle, which can run code and is not read" in refused(folder, teacher=bare)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_size", 32, "has shape"),
        ("num_hidden_layers", 3, "tensor encoder.layer.2."),
        ("num_hidden_layers", 1, "is not part of the model"),
        ("vocab_size", 30, "has shape"),
        ("model_type", "gpt_neo", "field 'model_type'"),
        ("hidden_act", "sine", "field 'hidden_act'"),
    ],
)
def test_weights_that_do_not_match_their_configuration(field, value, said, bert_folder, folder, tmp_path, refused):
    other = copied(bert_folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {field: value}
    (other / "config.json").write_text(json.dumps(config))
    error = refused(folder, teacher=other)
    assert str(other) in error
    assert said in error


def test_weights_that_are_cut_short_or_not_finite(bert_folder, folder, tmp_path, refused):
    other = copied(bert_folder, tmp_path / "other")
    weights = other / "model.safetensors"
    tensors = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"{weights}: the file is truncated or damaged" in refused(folder, teacher=other)
    save_file(tensors | {"embeddings.LayerNorm.bias": np.full(16, np.nan, np.float32)}, weights)
    assert "is not finite as float16" in refused(folder, teacher=other)


def test_a_teacher_without_a_tokenizer(bert_folder, folder, tmp_path, refused):
    other = copied(bert_folder, tmp_path / "other")
    for file in other.glob("tokenizer*"):
        file.unlink()
    assert str(other) in refused(folder, teacher=other)


def test_a_store_of_other_data_in_the_place_of_this_one(
    bert_folder, folder, text_graph_folder, tmp_path, refused, monkeypatch
):
    from jaxgkd.data.text_graphs import load_text_graph
    from jaxgkd.teachers.hops import TextEncoder, hop_features

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoder = TextEncoder.load(str(bert_folder))
    other = load_text_graph(text_graph_folder(tmp_path / "other", seed=1))
    of_other, own = (
        hop_features(graph, encoder, hops=1, max_tokens=24, progress=False).folder
        for graph in (other, load_text_graph(folder))
    )
    shutil.rmtree(own)
    shutil.copytree(of_other, own)
    assert f"{own}, field 'prompt_hash': made from other prompts" in refused(folder)
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["data_sha256"] = load_text_graph(folder).sha256
    (own / "manifest.json").write_text(json.dumps(manifest))
    assert f"{own / 'manifest.json'}: was changed after it was written" in refused(folder)


def test_places_that_cannot_be_written_to(folder, tmp_path, refused):
    (tmp_path / "file").write_text("in the way")
    assert f"{tmp_path / 'file'}: the folder cannot be made" in refused(folder, out=tmp_path / "file")
    assert "the folder cannot be made" in refused(folder, out=tmp_path / "file" / "run")
    assert "/proc/run: the folder cannot be made" in refused(folder, out=Path("/proc/run"))


def test_a_place_is_refused_before_the_teacher_is_asked(folder, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "the folder is not empty" in refused(folder, teacher=tmp_path / "nowhere")
    assert "the folder cannot be made" in refused(folder, teacher=tmp_path / "nowhere", out=Path("/proc/run"))
