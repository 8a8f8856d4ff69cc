"""Run directories over molecules, with simulated numbers: a regression in kcal/mol, or a classification of t tasks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxgkd.training.metrics import mean_over_columns
from jaxgkd.training.statistics import paired_difference

# How far rows are from the labels: kcal/mol, or a share of what tells the classes apart.
NOISE = {"teacher": 5.0, "student_alone": 11.0, "student_distilled": 9.0, "composition": 19.0, "mean": np.inf}


def molecule_arrays(metric: str, *, seeds: int = 3, n: int = 2400, tasks: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    size = np.clip(random.normal(15, 3.5, size=n).round(), 4, 23).astype(np.int32)
    part = random.permutation(np.repeat([1, 2, 3], [n - 2 * (n // 10), n // 10, n // 10]))
    split = np.stack([np.roll(part, seed) for seed in range(seeds)]).astype(np.uint8)
    truth = random.normal(size=(n, tasks))
    regression = metric != "auroc"
    labels = -1500 - 60 * (size[:, None] - 15) + 60 * truth if regression else (truth > 0.8).astype(float)
    arrays = {"split": split, "size": size, "embedding": (truth @ random.normal(size=(tasks, 24))).astype(np.float16)}
    arrays["embedding"] = arrays["embedding"] + random.normal(size=(n, 24)).astype(np.float16)
    for row, noise in NOISE.items():
        errors = random.normal(size=(seeds, n, tasks)) * np.sqrt(size / 15)[:, None]
        if np.isinf(noise):
            predicted = np.zeros((seeds, n, tasks)) + labels.mean(axis=0)
        else:
            predicted = labels + noise * errors if regression else truth + noise / 12 * errors
        arrays[f"pred/{row}"] = predicted.astype(np.float32)
    missing = random.random(size=(n, tasks)) < 0.1
    return arrays | {"labels": np.where(missing, np.nan, labels)}


def molecule_metrics(path: Path, metric: str, seeds: int, epochs: int) -> None:
    random, lines = np.random.default_rng(1), []
    for row, noise in NOISE.items():
        for seed in range(seeds) if row.startswith("student") else ():
            for epoch in range(1, epochs + 1):
                left = np.exp(-epoch / (25 if row == "student_alone" else 18)) + 0.02 * random.random()
                valid = 0.7 * noise * (1 + 8 * left) if metric != "auroc" else 0.9 - noise / 100 - 0.3 * left
                line = {"row": row, "seed": seed, "epoch": epoch, "valid": valid, "train_loss": 3 * left}
                if row == "student_distilled":
                    terms = {"task": 0.6 * left, "global": 9 * (0.1 + left), "local": 14 * (0.3 + left)}
                    line |= {f"loss/{name}": value for name, value in terms.items()}
                lines.append(json.dumps(line))
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def molecule_run(run_directory, summary) -> Callable[..., Path]:
    """Makes the directory of a run over molecules: ``molecule_run("mae", tasks=1, seeds=3)``."""

    def make(metric: str, *, tasks: int = 1, seeds: int = 3, epochs: int = 120, name: str = "molecules") -> Path:
        arrays = molecule_arrays(metric, seeds=seeds, tasks=tasks)
        results = {}
        for row in NOISE:
            counted = np.isfinite(arrays["labels"])
            scores = [
                [
                    mean_over_columns(metric, one, arrays["labels"], counted & (part == which)[:, None])
                    for one, part in zip(arrays[f"pred/{row}"], arrays["split"], strict=True)
                ]
                for which in (2, 3)
            ]
            results[row] = dict(zip(("valid", "test"), scores, strict=True))
        results["composition"]["label"] = "ridge on counts of elements"
        results["ecfp_forest"] = {"not_run": "install jaxgkd[baselines]", "label": "random forest on ECFP4"}
        alone, distilled = (results[row]["test"] for row in ("student_alone", "student_distilled"))
        data = {"name": "qm7", "sha256": "ab" * 32, "split": "random 80/10/10", "items": "molecules"}
        given = summary(seeds=seeds, metric=metric, higher_is_better=metric == "auroc") | {
            "recipe": "ccmd",
            "data": data | {"tasks": [f"task {i}" for i in range(tasks)]},
            "protocol": "The epoch is chosen on validation and tested once",
            "teacher": "transformer over 3D distances",
            "student": "transformer over bonds",
            "results": results,
            "difference": paired_difference(distilled, alone),
            **({"unit": "kcal/mol"} if metric != "auroc" else {}),
        }
        path = run_directory(name, summary=given, predictions=arrays, metrics={})
        molecule_metrics(path, metric, seeds, epochs)
        return path

    return make
