"""A run directory of simulated numbers, the folder of a run with untrained students, and figures that can be read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest
from flax import nnx
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from jaxgkd import cli
from jaxgkd.data import bag_of_words
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.nn.encoders import make_student
from jaxgkd.nn.named_weights import student_weights
from jaxgkd.recipes.kept_nodes import VOCABULARY
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.student_folder import KeptStudent, read_student, write_student
from jaxgkd.training.summary import write_summary

LONG = "Fast transforms and spectral estimates of"
SHORT_NAMES = ("algebra", "clusters", "fitting", "images", "optimizers", "signals", "sparse graphs")


def long_names(classes: int) -> list[str]:
    return [f"{LONG[: 40 - len(tail)].rstrip()} {tail}" for tail in (f"topic {i + 1}" for i in range(classes))]


def make_summary(
    *,
    seeds: int = 5,
    teacher: float = 0.876,
    alone: float = 0.832,
    distilled: float = 0.858,
    noise: float = 0.006,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    baselines: dict[str, float] | None = None,
) -> dict:
    random = np.random.default_rng(7)
    shared = noise * random.normal(size=seeds)
    means = {"teacher": teacher, "student_alone": alone, "student_distilled": distilled, **(baselines or {})}
    results = {}
    for row, mean in means.items():
        test = mean + shared + 0.5 * noise * random.normal(size=seeds)
        results[row] = {"valid": (test + 0.3 * noise * random.normal(size=seeds)).tolist(), "test": test.tolist()}
    difference = paired_difference(results["student_distilled"]["test"], results["student_alone"]["test"])
    return {
        "recipe": "lingugkd",
        "data": {"name": "scipy-docs", "sha256": "3f" * 32, "split": "60/20/20 drawn by the seed", "nodes": 2486},
        "protocol": "Node classification; the epoch is chosen by validation accuracy and tested once",
        "teacher": "all-MiniLM-L6-v2 with logistic regression on neighbour means",
        "student": {"name": "GCN", "layers": 2, "width": 128},
        "metric": metric,
        "higher_is_better": higher_is_better,
        "seeds": list(range(seeds)),
        "results": results,
        "difference": difference,
        "cost": {
            "teacher_parameters": 22_713_216,
            "student_parameters": 51_348,
            "teacher_ms_per_item": 12.3456789,
            "student_ms_per_item": 0.0213,
            "extract_seconds": 41.2,
            "train_seconds": 205.0,
            "peak_memory_mb": 1312.5,
        },
        "versions": {"jaxgkd": "0.1.0", "jax": "0.10.2", "flax": "0.12.8"},
        "command": "jaxgkd run lingugkd --data scipy-docs --seeds 5",
        "notes": ["The student sees the name and the summary line only"],
    }


def write_metrics(path: Path, *, seeds: int = 5, epochs: int = 300, layers: int = 3, gain: float = 0.026) -> None:
    random = np.random.default_rng(11)
    lines = []
    for seed in range(seeds):
        for row, best, speed in (("student_alone", 0.832, 30.0), ("student_distilled", 0.832 + gain, 17.0)):
            shift = 0.006 * random.normal()
            for epoch in range(5, epochs + 1, 5):
                value = best + shift - 0.6 * np.exp(-epoch / speed) + 0.004 * random.normal()
                line = {"row": row, "seed": seed, "epoch": epoch, "valid": value, "train_loss": np.exp(-epoch / 40)}
                if row == "student_distilled":
                    logits = np.linspace(0, 0.9, layers) * (1 - np.exp(-epoch / 90)) + 0.04 * shift * epoch
                    weights = np.exp(logits) / np.exp(logits).sum()
                    line |= {f"layer_weight/{i}": float(weight) for i, weight in enumerate(weights)}
                lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_predictions(
    *, seeds: int = 5, n: int = 1500, classes: int = 7, dimensions: int = 32, regression: bool = False
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    share = 1 / np.arange(2, classes + 2)
    labels = random.choice(classes, size=n, p=share / share.sum()).astype(np.int16)
    degree = np.minimum(random.pareto(1.3, size=n) * 2, 120).astype(np.int32)
    split = np.stack([random.choice([1, 2, 3], size=n, p=[0.6, 0.2, 0.2]) for _ in range(seeds)]).astype(np.uint8)
    difficulty = random.uniform(0.0, 0.15, size=classes)[labels]
    arrays = {"labels": labels, "degree": degree, "split": split}
    rows = {"teacher": (0.95, 0.0), "student_alone": (0.74, 0.06), "student_distilled": (0.88, 0.03)}
    for row, (base, per_degree) in rows.items():
        right = random.random((seeds, n)) < np.minimum(base + per_degree * np.log2(1 + degree), 0.98) - difficulty
        anything = random.integers(classes, size=(seeds, n))
        wrong = np.where(random.random((seeds, n)) < 0.6, (labels + 1) % classes, anything)
        arrays[f"pred/{row}"] = np.where(right, labels, wrong).astype(np.int16)
    centres = random.normal(size=(classes, dimensions))
    embedding = centres[labels] + 0.55 * random.normal(size=(n, dimensions))
    arrays["embedding"] = embedding.astype(np.float16)
    if regression:
        arrays = {"labels": embedding[:, 0].astype(np.float32), "split": split, "embedding": arrays["embedding"]}
    return arrays


def make_run(
    path: Path,
    summary: dict | None = None,
    *,
    class_names: list[str] | tuple[str, ...] = SHORT_NAMES,
    metrics: dict | None = None,
    predictions: dict[str, np.ndarray] | None = None,
) -> Path:
    """A run directory with everything in it; ``metrics={}`` or ``predictions={}`` leaves the file out."""
    path.mkdir(parents=True)
    summary = make_summary() if summary is None else summary
    seeds = len(summary["seeds"])
    write_summary(path / "summary.json", summary)
    config = {"class_names": list(class_names), "data": {"counts": {"train": 1491, "valid": 497, "test": 498}}}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps({"device": "cpu", "cores": 2}), encoding="utf-8")
    if metrics is None or metrics:
        write_metrics(path / "metrics.jsonl", **({"seeds": seeds} | (metrics or {})))
    if predictions is None:
        predictions = make_predictions(seeds=seeds, classes=len(class_names))
    if predictions:
        np.savez_compressed(path / "predictions.npz", **predictions)
    return path


@pytest.fixture
def run_directory(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory below the test's own folder."""

    def make(name: str = "run", **settings) -> Path:
        return make_run(tmp_path / name, **settings)

    return make


@pytest.fixture
def summary() -> Callable[..., dict]:
    return make_summary


@pytest.fixture
def predictions() -> Callable[..., dict[str, np.ndarray]]:
    return make_predictions


@pytest.fixture
def names() -> Callable[[int], list[str]]:
    """Class names of about 40 characters."""
    return long_names


def texts_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text of a figure that shows, with the box it covers in dots."""
    figure.canvas.draw()
    boxes = []
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible():
            axis_ticks = [
                tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
            ]
            if any(text in (tick.label1, tick.label2) and not _tick_shows(tick) for tick in axis_ticks):
                continue
            boxes.append((text.get_text(), text.get_window_extent()))
    return boxes


def _tick_shows(tick) -> bool:
    low, high = sorted(tick.axes.get_xlim() if tick in tick.axes.xaxis.get_major_ticks() else tick.axes.get_ylim())
    return low - 1e-9 <= tick.get_loc() <= high + 1e-9


def assert_readable(figure: Figure) -> None:
    """No text leaves the figure and no two texts overlap."""
    boxes = texts_of(figure)
    assert boxes
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{text!r} leaves the figure: {box}"
    for position, (text, box) in enumerate(boxes):
        for other, other_box in boxes[position + 1 :]:
            # Boxes include the room above small letters: let neighbours share a sliver of it.
            overlap = Bbox.intersection(box, other_box)
            touching = overlap is not None and overlap.width > 1 and overlap.height > 3
            assert not touching, f"{text!r} and {other!r} overlap: {box}, {other_box}"


@pytest.fixture
def readable() -> Callable[[Figure], None]:
    return assert_readable


@pytest.fixture
def node_run(tmp_path, text_graph_folder) -> Callable[..., tuple[Path, Path]]:
    """Writes the folder of a run with two untrained students of a kind, and a graph; returns both."""

    def node_run(kind: str, *, features: bool = False, change=None) -> tuple[Path, Path]:
        data = text_graph_folder(tmp_path / "topics", features=features, change=change)
        vocabulary = bag_of_words.fit(load_text_graph(data).texts)
        d_in = 9 if features else len(vocabulary.terms)
        readout = "all" if kind == "gat" else "last"
        models = [make_student(kind, d_in, 8, 2, 3, jax.random.key(i), norm="batch", readout=readout) for i in (0, 1)]
        members = [student_weights(*nnx.split(model, nnx.Param, ...)[1:]) for model in models]
        run = tmp_path / "run"
        run.mkdir()
        for name in ("config.json", "summary.json"):
            (run / name).write_text("{}")
        kept = KeptStudent(
            recipe="lingugkd",
            reads={
                "data": "text graph",
                "inputs": "features" if features else "words",
                "width": d_in,
                "edges": kind != "mlp",
                "text_columns": [],
                "label": "label",
                "positions": 0,
            },
            model={
                "kind": kind,
                "d_in": d_in,
                "width": 8,
                "layers": 2,
                "classes": 3,
                "norm": "batch",
                "readout": readout,
            },
            says={"kind": "classes", "names": ["graph", "molecules", "student"]},
            members=[{"seed": 0, "valid": 0.5}, {"seed": 1, "valid": 0.75}],
            chosen=[1],
            why="best accuracy on its own validation nodes",
            weights={name: np.stack([one[name] for one in members]) for name in members[0]},
            files={} if features else {VOCABULARY: vocabulary.to_json().encode()},
        )
        write_student(run, kept)
        return run, data

    return node_run


@pytest.fixture
def predicts_itself(tmp_path) -> Callable[[Path, Path], dict[str, np.ndarray]]:
    """Asks the distilled student that a run over molecules keeps about the run's own data, and compares with the run.

    Nothing of the run is there but its student. Returns what was predicted, by column.
    """

    def predicts_itself(run: Path, data: Path) -> dict[str, np.ndarray]:
        alone = tmp_path / f"alone-{run.name}"
        shutil.copytree(run / "student", alone / "student")
        for name in ("config.json", "summary.json"):
            shutil.copy(run / name, alone)
        kept = read_student(alone)
        out = tmp_path / f"{run.name}.parquet"
        assert cli.main(["predict", str(alone), "--data", str(data), "--out", str(out)]) == 0
        table = pandas.read_parquet(out)
        with np.load(run / "predictions.npz", allow_pickle=False) as arrays:
            expected = arrays["pred/student_distilled"][kept.members[kept.chosen[0]]["seed"]]
        column = "p" if kept.says["kind"] == "binary" else "predicted"
        for i, task in enumerate(kept.says["tasks"]):
            np.testing.assert_allclose(table[f"{column}_{task}"], expected[:, i], rtol=1e-5, atol=1e-5)
        return {name: table[name].to_numpy() for name in table}

    return predicts_itself
