import json
import shutil
from dataclasses import replace

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from jaxgkd import cli
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.errors import ConfigError
from jaxgkd.exported import load
from jaxgkd.nn.hetero_tasks import NodeTask
from jaxgkd.recipes.lmgnn import _check_start
from jaxgkd.recipes.lmgnn_data import task_data
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.student_folder import read_student, write_student
from tests.recipes.hetero_folder import SMALL, predicted, run_films, summary_of, without_asked_edges, write_films

TRAINED = {"text_only", "teacher", "student_alone", "fine_tuned", "cotrained", "glem", "text_student", "without_links"}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("data") / "films")


@pytest.fixture(scope="module")
def run(bert_folder):
    """The exit code of a run on the command line; flags and changed settings come last."""

    def run(data, out, *flags, teacher=bert_folder, **changed) -> int:
        return run_films(data, out, teacher, *flags, **(SMALL | changed))

    return run


@pytest.fixture(scope="module")
def first(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert run(data, out) == 0
    return out


def what_was_found(summary):
    """All of it that does not go by the clock."""
    clock = ("seconds", "ms_per_item", "lm_step_milliseconds")
    results = {
        name: {key: value for key, value in row.items() if key not in clock} for name, row in summary["results"].items()
    }
    return {**{key: summary[key] for key in ("data", "difference", "differences", "notes")}, "results": results}


def test_a_run_scores_every_row_and_writes_its_report(first):
    summary = summary_of(first)
    assert set(summary["results"]) == TRAINED | {"student_distilled", "majority", "neighbours"}
    assert summary["metric"] == "accuracy" and summary["higher_is_better"] and summary["seeds"] == [0, 1]
    staged = summary["results"]["student_distilled"]
    assert staged["row"] in ("fine_tuned", "cotrained", "glem")
    best = max(("fine_tuned", "cotrained", "glem"), key=lambda name: summary["results"][name]["valid"][0])
    assert summary["results"][best]["valid"] == staged["valid"]
    arrays = np.load(first / "predictions.npz")
    test = arrays["split"][0] == 3
    for name, row in summary["results"].items():
        # Of baselines without a network nothing is kept.
        for seed in (0, 1) if name not in ("majority", "neighbours") else ():
            said = arrays[f"pred/{name}"][seed]
            if row["test"][seed] is None:
                assert (said == -1).all()
            else:
                right = np.mean(said[test] == arrays["labels"][test])
                assert row["test"][seed] == pytest.approx(right) and (said[test] >= 0).all()
    # One seed of two has a language model of its own.
    for name in TRAINED - {"text_only", "student_alone"}:
        assert summary["results"][name]["test"][1] is None and summary["results"][name]["test"][0] is not None
    assert None not in summary["results"]["student_alone"]["test"]
    assert (first / "report.md").is_file() and list((first / "figures").glob("*.png"))
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert {line["row"] for line in lines} == TRAINED - {"without_links"}
    assert summary["data"]["split_sha256"] and summary["data"]["items"] == "nodes"


def test_a_finished_run_is_reported_and_another_is_not_written_over(first, run, data, capsys):
    before = {path: path.read_bytes() for path in first.rglob("*.json*")}
    assert run(data, first, "--resume") == 0
    assert {path: path.read_bytes() for path in first.rglob("*.json*")} == before
    assert run(data, first) == 2
    assert "not empty" in capsys.readouterr().err
    assert run(data, first, "--resume", width=4) == 2
    assert "field 'width'" in capsys.readouterr().err


def test_the_run_predicts_what_it_said_itself(first, data, tmp_path):
    table = predicted(first, data, tmp_path / "out.csv")
    given = pandas.read_csv(data / "nodes_movie.csv")
    assert table["node"].tolist() == given["node"].tolist() and table["problem"].isna().all()
    probabilities = table[["p_graph", "p_molecules", "p_student"]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    right = (table["class"] == given["genre"]).to_numpy()
    result = summary_of(first)["results"]["student_distilled"]
    for part in ("valid", "test"):
        assert right[(given["part"] == part).to_numpy()].mean() == pytest.approx(result[part][0])


def test_new_nodes_need_no_labels_no_tasks_and_not_every_relation(first, tmp_path):
    def fewer(metadata, tables):
        metadata["node_types"]["movie"] = {"text": ["title"]}
        metadata["tasks"] = {}
        metadata["edge_types"].pop()
        tables["nodes_movie"] = [{"node": row["node"], "title": row["title"]} for row in tables["nodes_movie"]]

    for whole in (False, True):
        data = write_films(tmp_path / str(whole), n=9, seed=5, change=fewer)
        if whole:
            (data / "edges_director__directs__movie.csv").write_text("src,dst\nd0,m0\n")
        table = predicted(first, data, tmp_path / f"{whole}.csv")
        assert len(table) == 9 and set(table["class"]) <= {"graph", "molecules", "student"}


def test_a_graph_of_other_types_or_another_language_model_is_refused(first, data, tmp_path, capsys):
    def refused(change, run=first):
        folder = write_films(tmp_path / str(len(list(tmp_path.iterdir()))), change=change)
        assert cli.main(["predict", str(run), "--data", str(folder), "--out", str(tmp_path / "out.csv")]) == 2
        assert not (tmp_path / "out.csv").exists()
        return capsys.readouterr().err

    def new_director(metadata, tables):
        tables["nodes_director"].append({"node": "d9"})

    assert "nodes_director, row 8: 'd9' has neither text nor features" in refused(new_director)

    def no_text(metadata, tables):
        metadata["node_types"]["actor"] = {}

    assert "nodes of type actor have no text" in refused(no_text)

    def new_relation(metadata, tables):
        metadata["edge_types"].append(["actor", "likes", "movie"])
        tables["edges_actor__likes__movie"] = [{"src": "a0", "dst": "m0"}]

    assert "the relation actor–likes–movie, which the run did not know" in refused(new_relation)

    def new_type(metadata, tables):
        metadata["node_types"]["studio"] = {}
        tables["nodes_studio"] = [{"node": "s0"}]

    assert "has nodes of type 'studio'" in refused(new_type)
    other = tmp_path / "other"
    shutil.copytree(first, other)
    kept = read_student(other)
    write_student(other, replace(kept, reads={**kept.reads, "teacher_sha256": "0" * 64}))
    assert "is not the language model that the run had" in refused(None, other)
    assert cli.main(["export", str(other), "--out", str(tmp_path / "program")]) == 2
    assert "is not the language model that the run had" in capsys.readouterr().err
    words = ["predict", str(first), "--data", str(data), "--out", str(tmp_path / "out.csv"), "--pairs", "pairs.csv"]
    assert cli.main(words) == 2
    assert "field '--pairs': the student answers for nodes of type movie" in capsys.readouterr().err


def test_the_text_student_reads_nodes_alone(first, data, tmp_path, capsys):
    def texts_alone(metadata, tables):
        metadata["node_types"] = {"movie": {"text": ["title"]}}
        del metadata["edge_types"], metadata["tasks"]
        for name in [name for name in tables if name != "nodes_movie"]:
            del tables[name]

    given = pandas.read_csv(data / "nodes_movie.csv")
    alone = write_films(tmp_path / "alone", change=texts_alone)
    table = predicted(first, alone, tmp_path / "alone.csv", "--student", "text_student")
    right = (table["class"] == given["genre"]).to_numpy()
    result = summary_of(first)["results"]["text_student"]
    for part in ("valid", "test"):
        assert right[(given["part"] == part).to_numpy()].mean() == pytest.approx(result[part][0])
    # Links and nodes of other types are not read where they are there.
    whole = predicted(first, data, tmp_path / "whole.csv", "--student", "text_student")
    pandas.testing.assert_frame_equal(whole, table)
    assert cli.main(["predict", str(first), "--data", str(alone), "--out", str(tmp_path / "no.csv")]) == 2
    assert "has no nodes of type 'actor'" in capsys.readouterr().err
    assert cli.main(["export", str(first), "--out", str(tmp_path / "program"), "--student", "text_student"]) == 0
    batch = AutoTokenizer.from_pretrained(tmp_path / "program")(
        given["title"].tolist(), max_length=12, padding="max_length", truncation=True
    )
    lengths = np.sum(batch["attention_mask"], axis=1)
    said = load(tmp_path / "program")(tokens_movie=batch["input_ids"], lengths_movie=lengths)
    np.testing.assert_allclose(said, table[["p_graph", "p_molecules", "p_student"]], atol=2e-5)


def test_a_graph_without_relations_is_for_prediction_alone(run, tmp_path, capsys):
    def no_links(metadata, tables):
        del metadata["edge_types"]
        metadata["tasks"] = {"node_classification": {"node_type": "movie"}}

    assert run(write_films(tmp_path / "films", change=no_links), tmp_path / "run") == 2
    assert "has no relations; name them in edge_types of metadata.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_mentions_are_found_again_in_what_is_predicted(run, tmp_path):
    def cast(metadata, tables):
        for row, actor in zip(tables["nodes_movie"], tables["nodes_actor"], strict=True):
            actor["name"] = f"star {actor['node']}"
            row["title"] += f" with {actor['name'].upper()}"

    data = write_films(tmp_path / "films", change=cast)
    out = tmp_path / "run"
    assert run(data, out, "--mentions", "--stages") == 0
    summary = summary_of(out)
    assert "texts of movie name 36 times another actor" in summary["notes"]
    table, given = predicted(out, data, tmp_path / "out.csv"), pandas.read_csv(data / "nodes_movie.csv")
    right, test = (table["class"] == given["genre"]).to_numpy(), (given["part"] == "test").to_numpy()
    assert right[test].mean() == pytest.approx(summary["results"]["student_distilled"]["test"][0])
    assert len(predicted(out, write_films(tmp_path / "silent"), tmp_path / "silent.csv")) == 36


@pytest.mark.thorough
def test_a_run_that_was_killed_goes_on_to_the_same_end(first, run, data, tmp_path):
    """Only the first row was there."""
    again = tmp_path / "again"
    shutil.copytree(first, again)
    for name in ("summary.json", "metrics.jsonl", "predictions.npz", "report.md"):
        (again / name).unlink()
    for folder in (again / "checkpoints").iterdir():
        if folder.name != "text_only":
            shutil.rmtree(folder)
    assert run(data, again, "--resume") == 0
    assert what_was_found(summary_of(again)) == what_was_found(summary_of(first))
    one, other = (np.load(folder / "predictions.npz") for folder in (first, again))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.thorough
def test_a_run_may_start_from_the_language_models_of_another(first, run, data, tmp_path, capsys):
    out = tmp_path / "second"
    assert run(data, out, "--start", str(first), "--stages", "lm") == 0
    names = {folder.name for folder in (out / "checkpoints").iterdir()}
    assert "lm-0" not in names and "fine_tuned" in names
    one, other = summary_of(first)["results"], summary_of(out)["results"]
    for name in ("teacher", "fine_tuned"):
        assert one[name]["test"] == other[name]["test"] and one[name]["metrics"] == other[name]["metrics"]
    # GNNs of the same settings are taken over, how long they took included; others are trained.
    before = load_tree(first / "checkpoints" / "fine_tuned")
    assert load_tree(out / "checkpoints" / "fine_tuned")["seconds"] == before["seconds"]
    assert run(data, tmp_path / "other", "--start", str(first), "--stages", "lm", dropout=0.5) == 0
    assert load_tree(tmp_path / "other" / "checkpoints" / "fine_tuned")["settings"]["dropout"] == 0.5
    capsys.readouterr()
    assert run(data, tmp_path / "third", "--start", str(first), lm_seeds=2) == 2
    assert "field '--start': there is no language model lm-1" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
    assert run(data, tmp_path / "fourth", "--start", str(first), max_tokens=8) == 2
    assert "'--max-tokens': the run in --start had 12, not 8" in capsys.readouterr().err
    assert not (tmp_path / "fourth").exists()
    assert run(data, tmp_path / "fifth", "--start", str(tmp_path / "nowhere")) == 2
    assert "field '--start': there is no run" in capsys.readouterr().err and not (tmp_path / "fifth").exists()


def test_what_decides_the_head_and_the_weights_of_a_start_are_compared(first, run, data, bert_folder, tmp_path, capsys):
    def refused(*flags, **changed):
        assert run(data, tmp_path / "out", "--start", str(start), *flags, **changed) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    start = first
    found = "the run in --start had node_classification, not link_prediction"
    assert f"'--task': {found}" in refused("--task", "link_prediction", "--stages", "lm")
    other = tmp_path / "other"
    shutil.copytree(bert_folder, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * leaf for name, leaf in weights.items()}, other / "model.safetensors")
    assert "'--teacher': the run in --start had a language model with other" in refused(teacher=other)
    # One of links, as its settings say it.
    start = tmp_path / "links"
    (start / "checkpoints" / "lm-0").mkdir(parents=True)
    settings = json.loads((first / "config.json").read_text())
    split = task_data(load_hetero_graph(data), "link_prediction", candidates="auto", n_candidates=5, score="", loss="")
    settings |= {"task": "link_prediction", "score": "dot", "split_sha256": split.split_sha256}
    (start / "config.json").write_text(json.dumps(settings))
    said = refused("--task", "link_prediction", "--stages", "lm")
    assert "'--score': the run in --start had dot, not distmult" in said


def test_a_start_is_told_by_its_weights_and_its_task_by_whatever_name(first, bert_folder):
    identity = json.loads((first / "config.json").read_text())
    assert identity["task"] == "auto" and identity["teacher"] == str(bert_folder)
    named = identity | {"task": "node_classification", "teacher": "elsewhere"}
    _check_start(first, named, NodeTask("movie", 3))
    with pytest.raises(ConfigError, match=r"'--task': the run in --start had node_classification, not edge_class"):
        _check_start(first, identity | {"task": "edge_classification"}, NodeTask("movie", 3))


@pytest.mark.thorough
def test_links(run, data, tmp_path):
    out = tmp_path / "links"
    assert run(data, out, "--task", "link_prediction", "--stages", "lm", "cotrain", candidates="known_for") == 0
    summary = summary_of(out)
    trained = TRAINED - {"glem", "text_student", "without_links"}
    assert set(summary["results"]) == trained | {"student_distilled", "degree", "popularity", "relations", "cosine"}
    assert summary["metric"] == "mrr" and set(summary["data"]["candidates_sha256"]) == {"valid", "test"}
    for row in summary["results"].values():
        for value in (*row["valid"], *row["test"]):
            assert value is None or 0 < value <= 1
        assert set(row["metrics"]) == {"mrr", "hits@1", "hits@3", "hits@10"}
    for part in ("valid", "test"):
        with np.load(out / f"candidates-{part}.npz", allow_pickle=False) as arrays:
            assert str(arrays["sha256"]) == summary["data"]["candidates_sha256"][part]
    assert (out / "report.md").is_file() and not (out / "predictions.npz").exists()
    # What ranks the test edges in the run is what prediction says of the same pairs, all of them unknown to the graph.
    known, _ = without_asked_edges(tmp_path / "known")
    with np.load(out / "candidates-test.npz", allow_pickle=False) as arrays:
        starts, nodes = arrays["start"], arrays["nodes"]
        ends = [np.repeat(arrays["sources"], np.diff(starts)), nodes]
        asked = [np.concatenate([arrays["sources"], ends[0]]), np.concatenate([arrays["targets"], ends[1]])]
    pairs = pandas.DataFrame({"src": [f"a{row}" for row in asked[0]], "dst": [f"m{row}" for row in asked[1]]})
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    table = predicted(out, known, tmp_path / "out.csv", "--pairs", str(tmp_path / "pairs.csv"))
    assert table[["src", "dst"]].equals(pairs) and table["problem"].isna().all()
    scores, n = table["score"].to_numpy(), len(starts) - 1
    ranks = []
    for i in range(n):
        others = scores[n + starts[i] : n + starts[i + 1]]
        if len(others):
            ranks.append(1 + np.sum(others > scores[i]) + 0.5 * np.sum(others == scores[i]))
    assert np.mean(1 / np.array(ranks)) == pytest.approx(summary["results"]["student_distilled"]["test"][0], abs=1e-6)


@pytest.mark.thorough
def test_classes_of_links_without_any_stage(run, data, tmp_path):
    out = tmp_path / "edges"
    assert run(data, out, "--task", "edge_classification", "--stages", epochs=5) == 0
    summary = summary_of(out)
    assert summary["metric"] == "auroc" and summary["data"]["items"] == "edges"
    results = summary["results"]
    assert set(results) == {
        "text_only",
        "student_alone",
        "teacher",
        "student_distilled",
        "degree",
        "popularity",
        "relations",
        "cosine",
    }
    assert results["student_distilled"]["test"] == results["student_alone"]["test"]
    assert results["teacher"]["test"] == results["text_only"]["test"]


@pytest.mark.thorough
def test_three_classes_of_links(run, tmp_path):
    def three(metadata, tables):
        for i, row in enumerate(tables["edges_actor__acts_in__movie"]):
            row["lead"] = ("yes", "no", "half")[0 if i % 2 else i % 3]

    data, out = write_films(tmp_path / "films", change=three), tmp_path / "run"
    assert run(data, out, "--task", "edge_classification", "--stages") == 0
    summary = summary_of(out)
    assert summary["metric"] == "accuracy"
    assert set(summary["results"]) == {"text_only", "student_alone", "teacher", "student_distilled", "majority"}
    edges = pandas.read_csv(data / "edges_actor__acts_in__movie.csv")
    most = edges["lead"][edges["part"] == "train"].mode()[0]
    for part in ("valid", "test"):
        right = (edges["lead"][edges["part"] == part] == most).mean()
        assert summary["results"]["majority"][part][0] == pytest.approx(right)


def test_data_check(data, capsys):
    assert cli.main(["data", "check", str(data), "--recipe", "lmgnn"]) == 0
    said = capsys.readouterr().out
    assert "36" in said and "actor–acts_in–movie" in said and "link_prediction" in said
    assert cli.main(["data", "check", str(data), "--recipe", "lmgnn", "--label", "genre"]) == 2
    assert "--label" in capsys.readouterr().err
