import numpy as np
import optax
import pytest
from rich.console import Console

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.graphs import from_edges
from jaxgkd.nn.encoders import make_student
from jaxgkd.recipes.node_rows import train_row
from jaxgkd.recipes.node_splits import draw_splits
from jaxgkd.recipes.searched_fit import Budget
from jaxgkd.recipes.student_inputs import student_inputs
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.search import Choice

DEFAULT = {"learning_rate": 0.02, "weight_decay": 1e-4, "dropout": 0.0}
SPACE = {"learning_rate": Choice((1e-6, 0.05))}
SEEDS = [0, 1, 2]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.fixture(scope="module")
def problem(text_graph_folder, tmp_path_factory):
    """Arguments of `train_row` that all tests share."""
    graph = load_text_graph(text_graph_folder(tmp_path_factory.mktemp("data") / "topics"))
    splits = draw_splits(graph, "60-20-20", SEEDS)
    inputs, _ = student_inputs(graph, splits)
    nodes, layout = from_edges(inputs, splits.senders, splits.receivers, splits.n_rows)
    return {
        "make": lambda key: make_student("mlp", inputs.shape[1], 8, 1, 3, key),
        "run_data": splits.run_data("none"),
        "shared": {"graph": nodes, "layout": layout},
        "seeds": SEEDS,
        "default": DEFAULT,
        "console": Console(quiet=True),
    }


@pytest.fixture
def train(problem, tmp_path):
    def train(name="row", *, tries=1, search_seeds=2, space=SPACE, sweep=None, **changed):
        budget = Budget(epochs=8, patience=None, tries=tries, search_seeds=search_seeds, sweep=sweep or {})
        run_dir = RunDirectory(tmp_path / "run", {}, resume=True)
        return train_row(name, **(problem | changed), space=space, budget=budget, run_dir=run_dir)

    return train


def test_a_row_predicts_for_every_seed_and_node(train, problem, tmp_path):
    row = train()
    assert row.probabilities.shape == (3, 60, 3)
    np.testing.assert_allclose(row.probabilities.sum(axis=-1), 1.0, rtol=1e-5)
    assert row.hidden.shape == (60, 8)
    np.testing.assert_array_equal(row.epochs, [2, 4, 6, 8])
    assert row.curves["valid"].shape == (3, 4)
    assert row.settings == DEFAULT
    assert row.milliseconds > 0
    assert row.seconds > 0
    # The predictions are those of each seed's best epoch.
    for i in range(3):
        valid = np.asarray(problem["run_data"]["valid"][i])
        right = row.probabilities[i].argmax(axis=-1) == np.asarray(problem["run_data"]["labels"][i])
        assert right[valid].mean() == pytest.approx(row.curves["valid"][i, row.best_epoch[i] // 2 - 1])
        assert row.best_epoch[i] == row.epochs[row.curves["valid"][i].argmax()]


def test_a_finished_row_is_read_not_trained(train, monkeypatch):
    first = train()
    monkeypatch.setattr("jaxgkd.recipes.searched_fit.fit", lambda *a, **k: pytest.fail("it was trained again"))
    again = train()
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert first.settings == again.settings
    assert first.seconds == again.seconds
    np.testing.assert_array_equal(first.curves["valid"], again.curves["valid"])
    assert first.curves.keys() == again.curves.keys()


@pytest.mark.thorough
def test_the_search_takes_the_better_setting_by_validation(train, tmp_path):
    frozen = DEFAULT | {"learning_rate": 1e-6}
    row = train(tries=2, default=frozen)
    search = load_tree(tmp_path / "run" / "checkpoints" / "row")["search"]
    assert search["scores"].shape == (2, 2)
    np.testing.assert_allclose(search["learning_rate"], [1e-6, 0.05])
    # Both go on to the final, where all three seeds count.
    assert search["final_scores"].shape == (2, 3)
    best = search["finalists"][search["final_scores"].mean(axis=1).argmax()]
    assert row.settings["learning_rate"] == search["learning_rate"][best]
    assert row.probabilities.shape[0] == 3
    final = search["final_scores"][search["final_scores"].mean(axis=1).argmax()]
    np.testing.assert_allclose(row.curves["valid"].max(axis=1), final)
    assert best == 1
    # A search over one setting searches nothing.
    train("plain")
    assert np.isnan(load_tree(tmp_path / "run" / "checkpoints" / "plain")["search"]["scores"]).all()


@pytest.mark.thorough
def test_a_sweep_tries_every_combination_and_keeps_the_best(train, tmp_path):
    sweep = {"learning_rate": Choice((1e-6, 0.05)), "dropout": Choice((0.0, 0.1)), "temperature": Choice((1.0, 2.0))}
    row = train(sweep=sweep)
    search = load_tree(tmp_path / "run" / "checkpoints" / "row")["search"]
    np.testing.assert_allclose(search["learning_rate"], [1e-6, 1e-6, 0.05, 0.05])
    np.testing.assert_allclose(search["dropout"], [0.0, 0.1, 0.0, 0.1])
    assert row.settings["learning_rate"] == 0.05


def test_an_optimizer_is_asked_with_the_settings_of_the_run(train):
    asked = []

    def optimizer(settings):
        asked.append(set(settings))
        return optax.sgd(0.0 * settings["learning_rate"])

    row = train(optimizer=optimizer)
    assert asked
    assert all(names == set(DEFAULT) for names in asked)
    assert (row.best_epoch == 2).all()


def test_only_what_is_left_after_training_is_counted(train, problem):
    row = train(counted=lambda model: model)
    inputs = problem["shared"]["graph"].nodes.shape[1]
    assert row.parameters >= inputs * 8 + 8 * 3
    nothing = train(counted=lambda model: ())
    assert nothing.parameters == 0
