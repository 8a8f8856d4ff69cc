"""Coordinates for molecules that come without: RDKit's distance geometry, relaxed in a force field, in all cores.

Every molecule ends with a status, none is dropped. Conformers are kept memory-mapped in the user's cache under the hash
of the molecules and the settings.

Sources: Wang, Witek, Landrum and Riniker, 2020 (ETKDGv3); Tosco, Stiefl and Landrum, 2014 (MMFF94 in RDKit); Rappé et
al., 1992 (UFF).
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from jaxgkd.data.featurise import Problem
from jaxgkd.data.flat_arrays import ArrayFolderWriter, array_folder, open_array
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.watched_workers import map_watched
from jaxgkd.errors import ConfigError
from jaxgkd.training.compilation import cache_folder

ForceField = Literal["MMFF94", "MMFF94s", "UFF"]
Status = Literal["ok", "unconverged", "no parameters", "embedding failed", "timed out"]
STATUSES: tuple[Status, ...] = get_args(Status)
_FORMAT = 2
_WRITTEN_TOGETHER = 256
# Steps of relaxation that tell how long one takes.
_FIRST_STEPS = 10


@dataclass(frozen=True, eq=False)
class Conformers:
    """k conformers of each of n molecules with N atoms in all, the one of lowest energy first.

    Attributes:
      coordinates: [N, k, 3] float32 in Å, in the order of ``Molecules.atoms``; zeros where there is no conformer.
      energies: [n, k] float64 in kcal/mol, with hydrogens; NaN where there is no conformer or no force field for it.
      n_conformer: [n] conformers of every molecule, up to k.
      status: [n] positions in `STATUSES`: "ok"; "unconverged" where the lowest was still moving after the last step;
        "no parameters" where no force field knows the molecule, which is left as embedded; "embedding failed", with no
        conformer; "timed out", with the conformers there were by then.
      relaxed_with: [n] positions in ``force_fields``, -1 where none was used.
      force_fields: in the order they were tried.
    """

    coordinates: np.ndarray
    energies: np.ndarray
    n_conformer: np.ndarray
    status: np.ndarray
    relaxed_with: np.ndarray
    force_fields: tuple[ForceField, ...]

    @property
    def placed(self) -> np.ndarray:
        """Whether a molecule has a conformer, [n]."""
        return self.n_conformer > 0

    @property
    def counts(self) -> dict[str, int]:
        """Molecules with every status that occurs, and with every force field that was used."""
        statuses = Counter(STATUSES[code] for code in self.status.tolist())
        used = Counter(self.force_fields[code] for code in self.relaxed_with.tolist() if code >= 0)
        return {name: statuses[name] for name in STATUSES if statuses[name]} | {
            f"relaxed with {name}": used[name] for name in self.force_fields if used[name]
        }

    def problems(self, molecules: Molecules) -> list[Problem]:
        """The rows of all molecules that are not "ok", with their status; ``kept`` where there is a conformer."""
        return [
            Problem(int(molecules.rows[i]), STATUSES[self.status[i]], bool(self.n_conformer[i]))
            for i in np.flatnonzero(self.status)
        ]

    def lowest(self) -> np.ndarray:
        """Coordinates of every molecule's conformer of lowest energy, [N, 3], for ``Molecules.graphs``."""
        return self.coordinates[:, 0]


class _Made(NamedTuple):
    """The conformers of one molecule: status, force field, coordinates [m, atoms, 3] and energies [m], m up to k."""

    status: Status
    relaxed_with: int
    coordinates: np.ndarray
    energies: np.ndarray


def make_conformers(
    molecules: Molecules,
    *,
    count: int = 1,
    force_fields: Sequence[ForceField] = ("MMFF94", "UFF"),
    seed: int = 0,
    time_limit: float = 60.0,
    max_steps: int = 1000,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    root: Path | None = None,
) -> Conformers:
    """Conformers of all molecules, from the cache where they were made before.

    Hydrogens are added for the purpose where the graphs have none. The same seed gives the same conformers with the
    same version of RDKit, except where time runs out.

    Args:
      molecules: n of them.
      count: conformers k of each.
      force_fields: tried in this order; the first that knows all atoms of a molecule relaxes it. None: as embedded.
      seed: of the embedding.
      time_limit: seconds a molecule may take.
      max_steps: of relaxation.
      workers: processes, by default one a core.
      progress: called with molecules done and n.
      root: folder of caches; the user's by default.

    Raises:
      ConfigError: a setting does not fit.
    """
    _check(count, force_fields, seed, time_limit, max_steps)
    settings = {
        "format": _FORMAT,
        "rdkit": rdBase.rdkitVersion,
        "structures": molecules.structure_sha256,
        "count": count,
        "force_fields": list(force_fields),
        "seed": seed,
        "time_limit": time_limit,
        "max_steps": max_steps,
    }
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    folder = (cache_folder() if root is None else root) / "conformers" / key

    def write(writer: ArrayFolderWriter) -> dict[str, Any]:
        n, nothing = len(molecules), np.zeros((0, 0, 3))
        work = partial(
            embed,
            count=count,
            force_fields=tuple(force_fields),
            seed=seed,
            time_limit=time_limit,
            max_steps=max_steps,
        )
        # The process watches the clock itself; whatever holds it up for longer is ended from outside.
        made = map_watched(
            work,
            (molecules.rdkit_molecule(i).ToBinary() for i in range(n)),
            seconds=2 * time_limit + 5,
            late=_Made("timed out", -1, nothing, np.zeros(0)),
            died=_Made("embedding failed", -1, nothing, np.zeros(0)),
            workers=workers,
        )
        waiting: list[_Made] = []
        for done, result in enumerate(made, start=1):
            waiting.append(result)
            if len(waiting) == _WRITTEN_TOGETHER or done == n:
                _append(writer, waiting, molecules.n_atom[done - len(waiting) : done], count)
                waiting = []
            if progress is not None:
                progress(done, n)
        return {"settings": settings}

    array_folder(folder, write)
    arrays = {name: open_array(folder, name) for name in ("coordinates", "energies", "n_conformer", "status")}
    return Conformers(relaxed_with=open_array(folder, "relaxed_with"), force_fields=tuple(force_fields), **arrays)


def embed(
    binary: bytes,
    *,
    count: int,
    force_fields: tuple[ForceField, ...],
    seed: int,
    time_limit: float,
    max_steps: int,
) -> _Made:
    """Conformers of one molecule, given in RDKit's binary form; see `make_conformers`."""
    until = time.monotonic() + time_limit
    molecule = Chem.Mol(binary)  # type: ignore[call-overload]
    n_atom = molecule.GetNumAtoms()
    with rdBase.BlockLogs():
        molecule = Chem.AddHs(molecule)
        numbers = _embedded(molecule, count, seed, until)
        if not numbers:
            status: Status = "timed out" if time.monotonic() >= until else "embedding failed"
            return _Made(status, -1, np.zeros((0, n_atom, 3)), np.zeros(0))
        relaxed_with, field_of = _force_field(molecule, force_fields)
        energies, converged = np.full(len(numbers), np.nan), np.zeros(len(numbers), bool)
        if field_of is not None:
            for i, number in enumerate(numbers):
                energies[i], converged[i] = _relaxed(field_of(number), max_steps, until)
    coordinates = np.stack([molecule.GetConformer(number).GetPositions()[:n_atom] for number in numbers])
    order = np.argsort(energies, kind="stable")
    if time.monotonic() >= until and not converged.all():
        status = "timed out"
    elif field_of is None:
        status = "no parameters" if force_fields else "ok"
    else:
        status = "ok" if converged[order[0]] else "unconverged"
    return _Made(status, relaxed_with, coordinates[order].astype(np.float32), energies[order])


def _embedded(molecule: Chem.Mol, count: int, seed: int, until: float) -> list[int]:
    """Embeds conformers into the molecule, from random coordinates where the first way gives none in half the time;
    returns their numbers.

    One after another: RDKit forgets those it has where time runs out.
    """
    for random_coordinates, share in ((False, 0.5), (True, 1.0)):
        numbers: list[int] = []
        for i in range(count):
            left = until - time.monotonic()
            if left <= 0:
                break
            parameters = rdDistGeom.ETKDGv3()
            parameters.clearConfs = i == 0
            parameters.randomSeed = seed if i == 0 else int(np.random.SeedSequence([seed, i]).generate_state(1)[0] >> 1)
            parameters.useRandomCoords = random_coordinates
            parameters.timeout = max(1, round(share * left))
            number = rdDistGeom.EmbedMolecule(molecule, parameters)
            if number >= 0:
                numbers.append(number)
            elif not numbers:
                break
        if numbers:
            return numbers
    return []


def _force_field(molecule: Chem.Mol, force_fields: tuple[ForceField, ...]) -> tuple[int, Callable[[int], Any] | None]:
    """The first force field with parameters for all atoms: its position, and what makes it for a conformer."""
    for position, name in enumerate(force_fields):
        if name == "UFF":
            if rdForceFieldHelpers.UFFHasAllMoleculeParams(molecule):
                return position, lambda number: rdForceFieldHelpers.UFFGetMoleculeForceField(molecule, confId=number)
        else:
            found = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule, mmffVariant=name)
            if found is not None:
                return position, lambda number, found=found: rdForceFieldHelpers.MMFFGetMoleculeForceField(
                    molecule, found, confId=number
                )
    return -1, None


def _relaxed(field: Any, max_steps: int, until: float) -> tuple[float, bool]:
    """Relaxes a conformer in place; its energy in kcal/mol, and whether it came to rest."""
    field.Initialize()
    # A call forgets what those before it learned of the curvature, without which few molecules come to rest: a short
    # one tells how long a step takes, and a second one does all for which there is time.
    begun = time.monotonic()
    first = min(_FIRST_STEPS, max_steps)
    moving = bool(field.Minimize(maxIts=first))
    now = time.monotonic()
    steps = min(max_steps - first, int((until - now) * first / max(now - begun, 1e-6)))
    if moving and steps > 0:
        moving = bool(field.Minimize(maxIts=steps))
    return field.CalcEnergy(), not moving


def _append(writer: ArrayFolderWriter, made: list[_Made], n_atom: np.ndarray, count: int) -> None:
    coordinates = np.zeros((int(n_atom.sum()), count, 3), np.float32)
    energies = np.full((len(made), count), np.nan)
    for result, end, size, energy in zip(made, np.cumsum(n_atom), n_atom, energies, strict=True):
        found = len(result.energies)
        coordinates[end - size : end, :found] = result.coordinates.reshape(found, size, 3).swapaxes(0, 1)
        energy[:found] = result.energies
    writer.append(
        coordinates=coordinates,
        energies=energies,
        n_conformer=np.array([len(result.energies) for result in made], np.int32),
        status=np.array([STATUSES.index(result.status) for result in made], np.uint8),
        relaxed_with=np.array([result.relaxed_with for result in made], np.int8),
    )


def _check(count: int, force_fields: Sequence[str], seed: int, time_limit: float, max_steps: int) -> None:
    if count < 1 or seed < 0 or not time_limit > 0 or max_steps < 1:
        what = f"{count} conformers with seed {seed}, {time_limit} seconds and {max_steps} steps cannot be made"
        raise ConfigError(what, mend="use a seed from 0 on, and more than 0 of the others")
    for name in force_fields:
        if name not in get_args(ForceField):
            raise ConfigError(f"there is no force field '{name}'", mend=f"use {', '.join(get_args(ForceField))}")
