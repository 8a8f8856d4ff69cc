"""What ``jaxgkd data check`` says of molecules: sizes, what is there twice, every label's range, and unusable rows."""

from collections import Counter
from typing import Any

import numpy as np
from rdkit.Chem import GetPeriodicTable

from jaxgkd.data.atom_fields import ATOM_FIELDS
from jaxgkd.data.molecules import Molecules

_REASONS = 5


def check_molecules(molecules: Molecules) -> dict[str, Any]:
    """Counts of molecules.

    ``atoms`` and ``bonds`` have median, 95 % quantile and largest; ``repeats`` are molecules that an earlier one equals
    by canonical SMILES, ``contradicting`` those of them with another label; ``labels`` has for every task how many
    molecules have one, and the share of positives or least, mean and greatest value with the standard deviation.
    """
    again = np.flatnonzero(molecules.repeats >= 0)
    difference = np.nan_to_num(molecules.labels[again] - molecules.labels[molecules.repeats[again]])
    reasons = Counter(problem.reason for problem in molecules.problems)
    shown = dict(reasons.most_common(_REASONS))
    if len(reasons) > _REASONS:
        shown["other reasons"] = sum(reasons.values()) - sum(shown.values())
    return {
        "name": molecules.name,
        "sha256": molecules.sha256,
        "molecules": len(molecules),
        "records": molecules.n_record,
        "left_out": molecules.n_record - len(molecules),
        "atoms": _spread(molecules.n_atom),
        "bonds": _spread(molecules.n_edge // 2),
        "elements": _elements(molecules),
        "hydrogens": molecules.hydrogens,
        "with_coordinates": int(np.sum(molecules.placed)),
        "repeats": len(again),
        "contradicting": int(np.count_nonzero(np.abs(difference).sum(axis=1))),
        "labels": {task.name: _label(molecules.labels[:, i], task.kind) for i, task in enumerate(molecules.tasks)},
        "problems": shown,
        "notes": list(molecules.notes),
    }


def _spread(counts: np.ndarray) -> dict[str, int]:
    median, large = np.quantile(counts, [0.5, 0.95], method="higher")
    return {"median": int(median), "95 %": int(large), "largest": int(counts.max())}


def _elements(molecules: Molecules) -> dict[str, int]:
    """Element → molecules that hold it, the most frequent first; dummy atoms are "other"."""
    table = GetPeriodicTable()
    codes = np.asarray(molecules.atoms[:, list(ATOM_FIELDS).index("atomic_number")]).astype(np.int64)
    owner = np.repeat(np.arange(len(molecules)), molecules.n_atom)
    counts = Counter((np.unique(owner * 256 + codes) % 256).tolist())
    # The field of an atom is its atomic number less one.
    return {table.GetElementSymbol(code + 1) if code < 118 else "other": count for code, count in counts.most_common()}


def _label(values: np.ndarray, kind: str) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    facts: dict[str, Any] = {"kind": kind, "labelled": len(known), "missing": len(values) - len(known)}
    if kind == "classification":
        return facts | {"positive": int(known.sum()), "positive_share": float(known.mean())}
    summary = {"least": known.min(), "mean": known.mean(), "greatest": known.max(), "std": known.std()}
    return facts | {name: float(value) for name, value in summary.items()}
