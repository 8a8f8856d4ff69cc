import json

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from jaxgkd import cli
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.mentions import with_mentions
from jaxgkd.exported import load
from tests.recipes.hetero_folder import SMALL, predicted, run_films, with_features, without_asked_edges, write_films


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


def inputs_of(folder, data, *, shuffled) -> dict[str, np.ndarray]:
    """A folder of films as the program in another folder takes it, by what its manifest says alone."""
    manifest, graph = json.loads((folder / "manifest.json").read_text()), load_hetero_graph(data)
    if manifest["reads"]["mentions"]:
        graph = with_mentions(graph, [tuple(kind) for kind in manifest["reads"]["relations"]])
    ids = json.loads((folder / "ids.json").read_text())
    inputs = {}
    for name, nodes in graph.nodes.items():
        if f"tokens_{name}" in manifest["inputs"]:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            batch = tokenizer(list(nodes.texts), max_length=12, padding="longest", truncation=True)
            inputs[f"tokens_{name}"] = np.array(batch["input_ids"])
            inputs[f"lengths_{name}"] = np.sum(batch["attention_mask"], axis=1)
        if f"features_{name}" in manifest["inputs"]:
            inputs[f"features_{name}"] = nodes.features.toarray()
        if f"rows_{name}" in manifest["inputs"]:
            inputs[f"rows_{name}"] = np.array([ids[name].index(key) for key in nodes.ids])
    for kind, edges in graph.edges.items():
        order = np.random.default_rng(0).permutation(len(edges)) if shuffled else np.arange(len(edges))
        name = "__".join(kind)
        if f"senders_{name}" in manifest["inputs"]:
            inputs |= {f"senders_{name}": edges.senders[order], f"receivers_{name}": edges.receivers[order]}
    return inputs


# More tuned layers than there are is all of them.
FROZEN = pytest.param("rgat", ("--stages",), marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("encoder", "flags"),
    [
        pytest.param("rgcn", ("--mentions", "--stages", "lm", "student"), marks=pytest.mark.thorough),
        pytest.param("hgt", ("--tuned-layers", "3", "--stages", "lm"), marks=pytest.mark.thorough),
        FROZEN,
    ],
)
def test_a_program_says_of_nodes_what_the_run_says(bert_folder, tmp_path, encoder, flags):
    data, run = with_features(write_films(tmp_path / "films")), tmp_path / "run"
    assert run_films(data, run, bert_folder, *flags, **(SMALL | {"encoder": encoder})) == 0
    table = predicted(run, data, tmp_path / "said.csv")
    assert cli.main(["export", str(run), "--out", str(tmp_path / "student")]) == 0
    student, inputs = load(tmp_path / "student"), inputs_of(tmp_path / "student", data, shuffled=True)
    expected = table[["p_graph", "p_molecules", "p_student"]].to_numpy()
    np.testing.assert_allclose(student(**inputs), expected, atol=2e-5)
    # Features have a say, but not in what a student says that reads texts alone.
    others = with_features(write_films(tmp_path / "others"), seed=1)
    other = predicted(run, others, tmp_path / "other.csv")[["p_graph", "p_molecules", "p_student"]].to_numpy()
    assert np.abs(other - expected).max() > 1e-3
    np.testing.assert_allclose(student(**inputs_of(tmp_path / "student", others, shuffled=False)), other, atol=2e-5)
    if "student" in flags:
        said = [predicted(run, at, tmp_path / f"{at.name}.csv", "--student", "text_student") for at in (data, others)]
        pd.testing.assert_frame_equal(*said)
    # Other sizes, and no edge of any relation.
    alone = {name: values[:0] if "ers_" in name else values[:3] for name, values in inputs.items()}
    said = student(**alone)
    assert said.shape == (3, 3) and np.abs(said - expected[:3]).max() > 1e-3
    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)
    assert student.manifest["output"]["shape"] == ["n0", 3]


CLASSES = pytest.param("edge_classification", marks=pytest.mark.thorough)


@pytest.mark.parametrize("task", [CLASSES, "link_prediction"])
def test_a_program_says_of_pairs_what_the_run_says(bert_folder, tmp_path, task, asked_elsewhere):
    data, asked = without_asked_edges(tmp_path / "films")
    whole, run = write_films(tmp_path / "whole"), tmp_path / "run"
    assert run_films(whole, run, bert_folder, "--task", task, "--stages", **SMALL) == 0
    pairs = asked[asked["part"] == "test"]
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    table = predicted(run, data, tmp_path / "said.csv", "--pairs", str(tmp_path / "pairs.csv"))
    assert cli.main(["export", str(run), "--out", str(tmp_path / "student")]) == 0
    graph = load_hetero_graph(data)
    inputs = inputs_of(tmp_path / "student", data, shuffled=True)
    for end, name in (("src", "actor"), ("dst", "movie")):
        rows = {key: row for row, key in enumerate(graph.nodes[name].ids)}
        inputs[end] = np.array([rows[key] for key in pairs[end]])
    said = asked_elsewhere(tmp_path / "student", inputs)
    wanted = ["score"] if task == "link_prediction" else [name for name in table.columns if name.startswith("p_")]
    np.testing.assert_allclose(said.reshape(len(pairs), -1), table[wanted].to_numpy(), atol=1e-4, rtol=1e-4)
    assert not pd.isna(said).any()
