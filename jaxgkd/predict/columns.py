"""What is written of items that belong to a class."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def class_columns(
    item: str, ids: Sequence[str], names: Sequence[str], probabilities: np.ndarray, problems: dict[int, str]
) -> dict[str, Any]:
    """Columns of some items: their ids, the likeliest class, a probability for each [n, classes], and problems."""
    there = np.ones(len(ids), bool)
    there[list(problems)] = False
    likeliest = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        item: list(ids),
        "class": [names[best] if known else None for best, known in zip(likeliest.tolist(), there, strict=True)],
    }
    for i, name in enumerate(names):
        columns[f"p_{name}"] = np.where(there, probabilities[:, i], np.nan).astype(np.float32)
    return columns | {"problem": [problems.get(i) for i in range(len(ids))]}
