"""Molecules in words, from RDKit alone: what a chemist would say of one without knowing anything measured.

The same molecule always gives the same text, however its atoms are numbered. Readers cut texts off, so what tells most
comes first: the kind of molecule, its groups and rings, then numbers, then its scaffold.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Descriptors import MolWt  # type: ignore[attr-defined]
from rdkit.Chem.rdMolDescriptors import (
    CalcCrippenDescriptors,
    CalcFractionCSP3,
    CalcMolFormula,
    CalcNumHBA,
    CalcNumHBD,
    CalcNumRotatableBonds,
    CalcTPSA,
)
from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

from jaxgkd.data.flat_arrays import ArrayFolderWriter, array_folder, open_array
from jaxgkd.data.functional_groups import COUNTER_IONS, functional_groups, ring_names, ring_systems
from jaxgkd.data.molecules import Molecules
from jaxgkd.data.workers import map_chunks
from jaxgkd.training.compilation import cache_folder

Value = TypeVar("Value")
# Counts up when the texts change.
_FORMAT = 2
_CHUNK = 128
# Of larger ring systems only the number of rings is said.
_LISTED = 6
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_HALOGENS = {9: "fluorine", 17: "chlorine", 35: "bromine", 53: "iodine"}
# Elements of organic molecules that need no mention, and the dummy atom, which has a sentence of its own.
_USUAL = {0, 1, 6, 7, 8, 16, *_HALOGENS}


def template_description(molecule: Chem.Mol) -> str:
    """A description of about 60 to 110 words for a molecule of the size of a drug.

    Whatever RDKit cannot compute is left out, so that there is a text for single atoms, metals and dummies as well.
    """
    with rdBase.BlockLogs():
        molecule = _without_hydrogens(molecule)
        makers = (_opening, _parts, _groups, _rings, _elements, _measures, _stereo, _scaffold)
        sentences = [_known(make, molecule) for make in makers]
    return " ".join(sentence for sentence in sentences if sentence)


def structure_sentences(molecule: Chem.Mol) -> str:
    """One sentence for every bond: which atoms it joins, its kind, and the rings it is part of.

    Atoms are their element and their number, counted from 1 in the order of the molecule without its hydrogens; an atom
    without bonds has a sentence too.
    """
    with rdBase.BlockLogs():
        molecule = _without_hydrogens(molecule)
    rings = _known(_bond_rings, molecule) or {}
    sentences = []
    for bond in molecule.GetBonds():
        kind = str(bond.GetBondType()).lower()
        sizes = rings.get(bond.GetIdx(), [])
        where = f" in a ring of {_joined([str(size) for size in sizes])}" if sizes else ""
        ends = f"{_label(bond.GetBeginAtom())} and {_label(bond.GetEndAtom())}"
        sentences.append(f"{ends}: {kind} bond{where}.")
    sentences += [f"{_label(atom)}: no bond." for atom in molecule.GetAtoms() if not atom.GetDegree()]
    return " ".join(sentences)


def all_templates(molecules: Molecules, *, workers: int | None = None, root: Path | None = None) -> list[str]:
    """`template_description` of every molecule, from the cache where they were made before.

    Args:
      molecules: n of them.
      workers: processes, by default one a core.
      root: folder of caches; the user's by default.

    Returns:
      n texts.
    """
    settings = {"format": _FORMAT, "rdkit": rdBase.rdkitVersion, "structures": molecules.structure_sha256}
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    folder = (cache_folder() if root is None else root) / "molecule_texts" / key

    def write(writer: ArrayFolderWriter) -> dict[str, Any]:
        end = 0
        writer.append(start=np.zeros(1, np.int64))
        n = len(molecules)
        chunks = ([molecules.smiles(i) for i in range(at, min(at + _CHUNK, n))] for at in range(0, n, _CHUNK))
        for made in map_chunks(templates, chunks, workers=workers):
            encoded = [text.encode() for text in made]
            ends = end + np.cumsum([len(text) for text in encoded], dtype=np.int64)
            writer.append(texts=np.frombuffer(b"".join(encoded), np.uint8), start=ends)
            end = int(ends[-1])
        return {"settings": settings}

    array_folder(folder, write)
    content, start = open_array(folder, "texts").tobytes(), open_array(folder, "start").tolist()
    return [content[a:b].decode() for a, b in pairwise(start)]


def templates(smiles: list[str]) -> list[str]:
    """`template_description` of every SMILES; "" of one that cannot be parsed."""
    with rdBase.BlockLogs():
        parsed = [Chem.MolFromSmiles(text) for text in smiles]
    return ["" if molecule is None else template_description(molecule) for molecule in parsed]


def _opening(molecule: Chem.Mol) -> str:
    atoms = list(molecule.GetAtoms())
    if not atoms:
        return "A molecule without atoms."
    # Charges that a bond cancels, as in a nitro group, are only a way of writing.
    charges = [atom.GetFormalCharge() for atom in atoms if not _cancelled(atom)]
    both = any(charge > 0 for charge in charges) and any(charge < 0 for charge in charges)
    charge, several = Chem.GetFormalCharge(molecule), len(Chem.GetMolFrags(molecule)) > 1
    words = [f"{'positively' if charge > 0 else 'negatively'} charged ({charge:+d})"] if charge else []
    if len(atoms) == 1 and not atoms[0].GetTotalNumHs():
        kind = "single atom"
    else:
        kind = "salt" if several and both else "mixture" if several else "molecule"
        words += ["zwitterionic"] if both and not several else []
        words += [_known(_character, molecule) or ""]
        organic = any(atom.GetAtomicNum() == 6 for atom in atoms)
        aromatic = any(atom.GetIsAromatic() for atom in atoms)
        cyclic = molecule.GetRingInfo().NumRings() > 0
        words += ["aromatic" if aromatic else "cyclic" if cyclic else "acyclic" if organic else "inorganic"]
    described = " ".join(word for word in (*words, kind) if word)
    weight, formula = _known(_weight, molecule), _known(CalcMolFormula, molecule)
    facts = [f"formula {formula}"] if formula else []
    facts += [f"molecular weight {weight:.0f}"] if weight else []
    article = "An" if described[0] in "aeiou" else "A"
    return f"{article} {described} of {_joined(facts)}." if facts else f"{article} {described}."


def _character(molecule: Chem.Mol) -> str:
    """How the molecule divides itself between fat and water, by Crippen's logP and by polar surface."""
    log_p, surface = _log_p(molecule), _surface(molecule)
    return "lipophilic" if log_p >= 3 else "polar" if log_p < 0 or surface > 100 else ""


def _parts(molecule: Chem.Mol) -> str:
    """The smaller parts of a salt or mixture."""
    parts = sorted(Chem.GetMolFrags(molecule, asMols=True, sanitizeFrags=False), key=_size)
    if len(parts) < 2:
        return ""
    names = Counter(map(_part_name, parts[:-1]))
    return f"Beside its largest part: {_counted(names)}."


def _part_name(part: Chem.Mol) -> str:
    smiles = Chem.MolToSmiles(part)
    if smiles not in COUNTER_IONS and part.GetNumAtoms() == 1:
        return _element(part.GetAtomWithIdx(0))
    return COUNTER_IONS.get(smiles, f"molecule with SMILES {smiles}")


def _size(part: Chem.Mol) -> tuple[int, str]:
    return part.GetNumAtoms(), Chem.MolToSmiles(part)


def _groups(molecule: Chem.Mol) -> str:
    groups = functional_groups(molecule)
    return f"Functional groups: {_counted(groups)}." if groups else ""


def _rings(molecule: Chem.Mol) -> str:
    names, systems = ring_names(molecule), ring_systems(molecule)
    found = [
        (-len(atoms), names.get(frozenset(atoms)) or _ring_words(molecule, atoms, rings)) for atoms, rings in systems
    ]
    # The largest first.
    counts = Counter(name for _, name in sorted(found))
    single = [ring for _, rings in systems for ring in rings]
    if len(single) < 2:
        return f"Rings: {_counted(counts)}." if single else ""
    aromatic = sum(all(molecule.GetAtomWithIdx(i).GetIsAromatic() for i in ring) for ring in single)
    return f"Rings: {_counted(counts)}; {_plural(len(single), 'ring')} in all, {_some(aromatic)} aromatic."


def _ring_words(molecule: Chem.Mol, atoms: set[int], rings: list[tuple[int, ...]]) -> str:
    """What can be said of rings without a name: whether they are aromatic, their sizes, what is not carbon."""
    members = [molecule.GetAtomWithIdx(i) for i in atoms]
    aromatic = [atom.GetIsAromatic() for atom in members]
    character = "aromatic" if all(aromatic) else "partly aromatic" if any(aromatic) else "aliphatic"
    sizes = sorted(len(ring) for ring in rings)
    listed = "-".join(str(size) for size in sizes) + " ring" if len(sizes) <= _LISTED else f"{len(sizes)}-ring"
    body = f"{sizes[0]}-membered ring" if len(sizes) == 1 else f"{listed} system"
    hetero = Counter(_element(atom) for atom in sorted(members, key=Chem.Atom.GetAtomicNum) if atom.GetSymbol() != "C")
    return f"{character} {body}" + (f" with {_counted(hetero)}" if hetero else "")


def _elements(molecule: Chem.Mol) -> str:
    atoms = sorted(molecule.GetAtoms(), key=Chem.Atom.GetAtomicNum)
    halogens = Counter(_HALOGENS[atom.GetAtomicNum()] for atom in atoms if atom.GetAtomicNum() in _HALOGENS)
    others = Counter(_element(atom) for atom in atoms if atom.GetAtomicNum() not in _USUAL)
    dummies = sum(atom.GetAtomicNum() == 0 for atom in atoms)
    sentences = [f"Halogens: {_counted(halogens)}."] if halogens else []
    sentences += [f"Other elements: {_counted(others)}."] if others else []
    sentences += [f"Open ends: {_plural(dummies, 'attachment point')}."] if dummies else []
    return " ".join(sentences)


def _measures(molecule: Chem.Mol) -> str:
    """Descriptors with numbers; of those that cannot be computed nothing is said."""
    if molecule.GetNumAtoms() < 2:
        return ""
    phrases = (
        lambda m: f"logP {_log_p(m):z.1f} ({_reading(_log_p(m), (0, 3), ('hydrophilic', 'balanced', 'lipophilic'))})",
        lambda m: f"polar surface {_surface(m):.0f} ({_reading(_surface(m), (60, 120), ('low', 'moderate', 'high'))})",
        lambda m: _plural(CalcNumHBD(m), "hydrogen-bond donor"),
        lambda m: _plural(CalcNumHBA(m), "hydrogen-bond acceptor"),
        lambda m: _plural(CalcNumRotatableBonds(m), "rotatable bond") + f" ({_flexibility(m)})",
        lambda m: f"{100 * CalcFractionCSP3(m):.0f}% of its carbons sp3",
    )
    facts = [fact for phrase in phrases if (fact := _known(phrase, molecule))]
    broken = _known(_broken_rules, molecule)
    rules = f" It breaks {_some(broken)} of Lipinski's four rules." if broken is not None else ""
    return f"It has {_joined(facts)}.{rules}" if facts else ""


def _weight(molecule: Chem.Mol) -> float:
    """Rounded, so that the order in which atoms are summed up does not show."""
    return round(MolWt(molecule), 3)


def _log_p(molecule: Chem.Mol) -> float:
    """Crippen's, rounded likewise."""
    return round(CalcCrippenDescriptors(molecule)[0], 4)


def _surface(molecule: Chem.Mol) -> float:
    """Polar surface in Å², rounded likewise."""
    return round(CalcTPSA(molecule), 3)


def _flexibility(molecule: Chem.Mol) -> str:
    return _reading(CalcNumRotatableBonds(molecule), (3, 8), ("rigid", "somewhat flexible", "flexible"))


def _broken_rules(molecule: Chem.Mol) -> int:
    """Of Lipinski's rule of five, which asks how likely a drug is taken up when it is swallowed."""
    too_much = (_weight(molecule) > 500, _log_p(molecule) > 5, CalcNumHBD(molecule) > 5, CalcNumHBA(molecule) > 10)
    return sum(too_much)


def _reading(value: float, bounds: tuple[float, float], words: tuple[str, str, str]) -> str:
    """The word for a value: below both bounds, between them, or above."""
    return words[sum(value >= bound for bound in bounds)]


def _stereo(molecule: Chem.Mol) -> str:
    found = [str(each.type) for each in Chem.FindPotentialStereo(molecule) if str(each.specified) != "Unspecified"]
    names = Counter("stereocentre" if "Atom" in kind else "fixed double bond" for kind in sorted(found))
    return f"Stereochemistry: {_counted(names)}." if names else ""


def _scaffold(molecule: Chem.Mol) -> str:
    scaffold = GetScaffoldForMol(molecule)
    Chem.RemoveStereochemistry(scaffold)
    smiles = Chem.MolToSmiles(scaffold)
    return f"Scaffold: {smiles}." if smiles else ""


def _bond_rings(molecule: Chem.Mol) -> dict[int, list[int]]:
    """For every bond in a ring the sizes of its rings."""
    sizes: dict[int, list[int]] = {}
    for ring in molecule.GetRingInfo().BondRings():
        for bond in ring:
            sizes.setdefault(bond, []).append(len(ring))
    return {bond: sorted(found) for bond, found in sizes.items()}


def _without_hydrogens(molecule: Chem.Mol) -> Chem.Mol:
    """The molecule with its hydrogens implied, as it is where RDKit cannot make sense of it."""
    without = _known(Chem.RemoveHs, molecule)
    if without is None:
        # Rings and valences are asked for later, of molecules that were never checked as well.
        without = Chem.Mol(molecule)
        without.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(without)
    return without


def _known(make: Callable[[Chem.Mol], Value], molecule: Chem.Mol) -> Value | None:
    """What ``make`` says of the molecule, or None where RDKit cannot compute it."""
    try:
        return make(molecule)
    except (RuntimeError, ValueError):
        return None


def _cancelled(atom: Chem.Atom) -> bool:
    return any(atom.GetFormalCharge() * other.GetFormalCharge() < 0 for other in atom.GetNeighbors())


def _label(atom: Chem.Atom) -> str:
    charge = atom.GetFormalCharge()
    sign = "+" if charge > 0 else "-" if charge else ""
    return f"{atom.GetSymbol()}{atom.GetIdx() + 1}" + (f" ({sign}{abs(charge)})" if charge else "")


def _element(atom: Chem.Atom) -> str:
    return Chem.GetPeriodicTable().GetElementName(atom.GetAtomicNum()).lower()


def _counted(names: Counter[str]) -> str:
    """Such as "two ethers, one ketone and two rings with oxygen"."""
    return _joined([_plural(count, name) for name, count in names.items()])


def _plural(count: int, name: str) -> str:
    noun, preposition, rest = name.partition(" with ")
    ending = "" if count == 1 or noun.endswith("s") else "s"
    return f"{_number(count)} {noun}{ending}{preposition}{rest}"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _some(count: int) -> str:
    return _number(count) if count else "none"


def _joined(parts: list[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
