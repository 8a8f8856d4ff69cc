"""Where the teacher's coordinates come from: the data, RDKit, or both by turns."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from jaxgkd.data.conformers import make_conformers
from jaxgkd.data.molecules import Molecules
from jaxgkd.errors import ConfigError

GeometrySource = Literal["auto", "given", "rdkit", "mixed"]


@dataclass(frozen=True, eq=False)
class Geometry:
    """One or more coordinates for each of n molecules with N atoms in all.

    Fields:
      coordinates: [N, c, 3] float32 in Å; the first are those the teacher is tested with and teaches from.
      placed: [n] whether the first are known; n_choice: [n] how many are, before the first that is not.
      source: which of the sources it is, "auto" resolved; notes: counted facts for the report.
    """

    coordinates: np.ndarray
    placed: np.ndarray
    n_choice: np.ndarray
    source: GeometrySource
    notes: tuple[str, ...]


def find_geometry(
    molecules: Molecules, source: GeometrySource, n_conformer: int, seed: int, console: Console
) -> Geometry:
    """Coordinates of all molecules.

    Args:
      molecules: n of them.
      source: "given" takes those of the data, "rdkit" makes conformers, "mixed" puts the made ones beside the given,
        so that a teacher learns from both; "auto" takes the given ones where there are any, else makes them.
      n_conformer: how many are made of each molecule.
      seed: of what is made.
      console: for progress.

    Raises:
      ConfigError: coordinates are wanted that the data does not have, or no molecule gets any.
    """
    given = molecules.coordinates
    if source == "auto":
        source = "rdkit" if given is None else "given"
    if given is None and source != "rdkit":
        what = f"{molecules.name} has no coordinates"
        raise ConfigError(what, field="--conformers", mend="use rdkit, or give an SD file with 3D coordinates")
    options, placed, notes = [], [], []
    if source != "rdkit":
        assert given is not None
        options.append(np.asarray(given)[:, None])
        placed.append(np.asarray(molecules.placed)[:, None])
        missing = int((~molecules.placed).sum())
        if missing:
            notes.append(f"{missing:,} molecules have no coordinates; the teacher neither sees nor teaches them")
    if source != "given":
        title = f"conformers of {len(molecules):,} molecules"
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(title, total=len(molecules))
            made = make_conformers(
                molecules, count=n_conformer, seed=seed, progress=lambda done, _: bar.update(task, completed=done)
            )
        options.append(np.asarray(made.coordinates))
        placed.append(np.arange(n_conformer) < np.asarray(made.n_conformer)[:, None])
        counts = ", ".join(f"{name} {count:,}" for name, count in made.counts.items())
        notes.append(f"Conformers by RDKit (ETKDGv3, force field): {counts}")
        problems = made.problems(molecules)
        for problem in problems[:20]:
            notes.append(f"Row {problem.row}: {problem.reason}")
        if len(problems) > 20:
            notes.append(f"… and {len(problems) - 20:,} rows more")
    known = np.concatenate(placed, axis=1)
    if not known[:, 0].any():
        raise ConfigError("no molecule has coordinates", field="--conformers", mend="use other data, or rdkit")
    return Geometry(
        np.concatenate(options, axis=1).astype(np.float32, copy=False),
        known[:, 0],
        np.cumprod(known, axis=1).sum(axis=1),
        source,
        tuple(notes),
    )


def choose(coordinates: np.ndarray, n_choice: np.ndarray, *seed: int) -> np.ndarray:
    """One of the coordinates of each molecule of a batch, drawn evenly.

    Args:
      coordinates: [g, L, c, 3]; n_choice: [g] how many of them there are, the first ones.
      seed: what is drawn from.

    Returns:
      [g, L, 3].
    """
    drawn = np.random.PCG64(list(seed)).random_raw(len(n_choice)) % np.maximum(n_choice, 1).astype(np.uint64)
    return np.take_along_axis(coordinates, drawn.astype(np.int64)[:, None, None, None], axis=2)[:, :, 0]
