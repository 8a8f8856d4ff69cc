"""Which molecules of a set are there twice, by canonical SMILES, found without writing the SMILES of most of them.

Equal molecules share a key that is computed with their fields (see ``featurise``); only those whose key is shared are
looked at more closely.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from jaxgkd.data.flat_arrays import ArrayFolderWriter, open_array
from jaxgkd.data.workers import map_chunks

_CHUNK = 2048


def write_repeats(folder: Path, writer: ArrayFolderWriter, *, workers: int | None = None) -> dict[str, Any]:
    """Writes ``repeats`` [n] int64: the first molecule that is the same, or -1 where a molecule is the first.

    Args:
      folder: with the arrays of n molecules.
      writer: of an empty folder.
      workers: processes.
    """
    keys, smiles, start = (open_array(folder, name) for name in ("keys", "smiles", "smiles_start"))
    _, group, size = np.unique(keys, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(size[group] > 1)
    chunks = (
        [smiles[start[i] : start[i + 1]].tobytes().decode() for i in candidates[at : at + _CHUNK]]
        for at in range(0, len(candidates), _CHUNK)
    )
    repeats = np.full(len(keys), -1, np.int64)
    first: dict[bytes, int] = {}
    at = 0
    for identities in map_chunks(canonical_hashes, chunks, workers=workers):
        for i, identity in zip(candidates[at : at + len(identities)].tolist(), identities, strict=True):
            if (earlier := first.setdefault(identity, i)) != i:
                repeats[i] = earlier
        at += len(identities)
    writer.append(repeats=repeats)
    return {"n_candidate": len(candidates)}


def canonical_hashes(smiles: list[str]) -> list[bytes]:
    """For every SMILES 16 bytes, a hash of the canonical one; hydrogens do not count as atoms."""
    with rdBase.BlockLogs():
        canonical = [Chem.MolToSmiles(Chem.MolFromSmiles(text)) for text in smiles]
    return [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in canonical]
