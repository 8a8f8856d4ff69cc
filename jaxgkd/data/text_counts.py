"""How long texts are, how many are empty, and how many nodes say the same."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


def describe_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Counts over n texts, lengths in characters.

    Returns:
      ``text_length``: median, 95 % quantile and longest of the texts that are not empty (left out where all are);
      ``without_text``: empty ones; ``same_text``: texts, empty ones aside, that an earlier one equals.
    """
    said = [text for text in texts if text.strip()]
    facts: dict[str, Any] = {}
    if said:
        lengths = np.array([len(text) for text in said])
        median, long = np.quantile(lengths, [0.5, 0.95], method="higher")
        facts["text_length"] = {"median": int(median), "95 %": int(long), "longest": int(lengths.max())}
    repeated = sum(count - 1 for count in Counter(said).values())
    return facts | {"without_text": len(texts) - len(said), "same_text": repeated}


def describe_split(given_split: np.ndarray | None, labelled: np.ndarray | None = None) -> dict[str, int] | None:
    """Rows of every part of a given split, and labelled rows in none of them; None where no split is given.

    Args:
      given_split: [n] of "train", "valid", "test" or "", or None.
      labelled: [n] which rows have a label; all of them where it is None.
    """
    if given_split is None:
        return None
    labelled = np.ones(len(given_split), bool) if labelled is None else labelled
    sizes = {part: int((given_split == part).sum()) for part in ("train", "valid", "test")}
    return sizes | {"labelled in none": int(((given_split == "") & labelled).sum())}


def describe_classes(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Sizes of the classes, and how unequal they are.

    Args:
      labels: [n] class numbers, −1 where unlabelled.
      class_names: [c].

    Returns:
      ``class_sizes`` by name, ``labelled`` and ``labelled_share``, ``largest_class`` and ``smallest_class`` as shares
      of the labelled.
    """
    known = labels[labels >= 0]
    sizes = np.bincount(known, minlength=len(class_names))
    total = max(len(known), 1)
    return {
        "class_sizes": dict(zip(class_names, sizes.tolist(), strict=True)),
        "labelled": len(known),
        "labelled_share": len(known) / max(len(labels), 1),
        "largest_class": float(sizes.max(initial=0) / total),
        "smallest_class": float(sizes.min(initial=len(labels)) / total),
    }
