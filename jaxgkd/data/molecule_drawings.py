"""Molecules drawn as chemists draw them, by RDKit: for a page, or small and grey for a network that looks at them."""

import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from jaxgkd.data.flat_arrays import ArrayFolderWriter, array_folder, open_array
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.workers import map_chunks
from jaxgkd.errors import ConfigError
from jaxgkd.training.compilation import cache_folder

# Counts up when the drawings change.
_FORMAT = 1
_CHUNK = 64
# Small drawings are reduced from larger ones, whose lines are so thick that they stay visible.
_LARGER = 2
_SMALLEST, _LARGEST = 16, 1024


def png(molecule: Chem.Mol, size: int = 300) -> bytes:
    """A drawing in colour as the content of a PNG file of ``size`` times ``size`` pixels.

    Raises:
      ConfigError: RDKit cannot draw the molecule.
    """
    try:
        return _drawn(molecule, size, _in_colour)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"RDKit cannot draw a molecule ({error})", mend="leave it out of the page") from error


def drawings(
    molecules: Molecules,
    size: int = 64,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    root: Path | None = None,
) -> np.ndarray:
    """All molecules drawn in black on white, from the cache where they were drawn before.

    Args:
      molecules: n of them.
      size: pixels of a side.
      workers: processes, by default one a core.
      progress: called with molecules done and n.
      root: folder of caches; the user's by default.

    Returns:
      [n, size, size] uint8, memory-mapped: 0 is white paper, 255 is ink; the first row is the upper one. What RDKit
      cannot draw is blank, see `n_blank`.

    Raises:
      ConfigError: ``size`` is too small or too large.
    """
    if not _SMALLEST <= size <= _LARGEST:
        mend = f"use {_SMALLEST} to {_LARGEST}"
        raise ConfigError(f"{size} pixels are no size for a drawing", field="size", mend=mend)
    settings = {
        "format": _FORMAT,
        "rdkit": rdBase.rdkitVersion,
        "structures": molecules.structure_sha256,
        "size": size,
    }
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    folder = (cache_folder() if root is None else root) / "drawings" / key

    def write(writer: ArrayFolderWriter) -> dict[str, Any]:
        n, done = len(molecules), 0
        chunks = ([molecules.smiles(i) for i in range(at, min(at + _CHUNK, n))] for at in range(0, n, _CHUNK))
        for drawn in map_chunks(partial(inked, size=size), chunks, workers=workers):
            writer.append(drawings=drawn)
            done += len(drawn)
            if progress is not None:
                progress(done, n)
        return {"settings": settings}

    return open_array(array_folder(folder, write), "drawings")


def n_blank(drawn: np.ndarray) -> int:
    """How many of the ``drawings`` [n, size, size] have no ink, because they could not be drawn."""
    return sum(not drawing.any() for drawing in drawn)


def inked(smiles: list[str], *, size: int) -> np.ndarray:
    """Drawings of molecules given as SMILES, [n, size, size] uint8 with ink as 255; blank what cannot be drawn."""
    drawn = np.zeros((len(smiles), size, size), np.uint8)
    for text, drawing in zip(smiles, drawn, strict=True):
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(text)
        if molecule is None or not molecule.GetNumAtoms():
            continue
        try:
            content = _drawn(molecule, _LARGER * size, _black_and_thick)
        except (RuntimeError, ValueError):
            continue
        grey = np.asarray(Image.open(io.BytesIO(content)).convert("L"), np.float32)
        drawing[:] = np.round(255 - grey.reshape(size, _LARGER, size, _LARGER).mean(axis=(1, 3)))
    return drawn


def _drawn(molecule: Chem.Mol, size: int, options: Callable[[Any], None]) -> bytes:
    with rdBase.BlockLogs():
        canvas = rdMolDraw2D.MolDraw2DCairo(size, size)
        options(canvas.drawOptions())
        canvas.drawOptions().prepareMolsBeforeDrawing = False
        canvas.DrawMolecule(rdMolDraw2D.PrepareMolForDrawing(Chem.RemoveHs(molecule)))
        canvas.FinishDrawing()
        return canvas.GetDrawingText()


def _in_colour(options: Any) -> None:
    options.padding = 0.05


def _black_and_thick(options: Any) -> None:
    options.useBWAtomPalette()
    options.padding = 0.06
    # About one pixel of the reduced drawing, and letters of seven.
    options.bondLineWidth = _LARGER
    options.scaleBondWidth = False
    options.minFontSize = 7 * _LARGER
