"""What is written of items that belong to a class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def class_columns(
    ids: Mapping[str, Sequence[str]], names: Sequence[str], probabilities: np.ndarray, problems: Mapping[int, str]
) -> dict[str, Any]:
    """Columns of n items: their ids, the likeliest class, a probability for each [n, classes], and problems.

    Args:
      ids: column → of every item; names: of the classes; probabilities: [n, classes].
      problems: position of an item → why it has no prediction.
    """
    there = np.ones(len(probabilities), bool)
    there[list(problems)] = False
    likeliest = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        **{name: list(of) for name, of in ids.items()},
        "class": [names[best] if known else None for best, known in zip(likeliest.tolist(), there, strict=True)],
    }
    for i, name in enumerate(names):
        columns[f"p_{name}"] = np.where(there, probabilities[:, i], np.nan).astype(np.float32)
    return columns | {"problem": [problems.get(i) for i in range(len(probabilities))]}
