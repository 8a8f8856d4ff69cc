"""What students see of molecules, as bags: of atoms, of atoms with what they are bonded to, or of fragments."""

from typing import Literal

import numpy as np

from jaxgkd.data.atom_fields import ATOM_FIELDS
from jaxgkd.data.bond_counts import NEIGHBOUR_SIZES, neighbour_fields
from jaxgkd.data.molecules import Molecules
from jaxgkd.nn.molecule_bags import Bags, bags_of, bags_of_fragments
from jaxgkd.recipes.molecule_baselines import fingerprints, fragment_counts

Kind = Literal["atoms", "neighbours", "fingerprint", "fragments"]
#: Kinds that read the fragments of ECFP4: which there are, and how often.
OF_FRAGMENTS = ("fingerprint", "fragments")


def bags_for(molecules: Molecules, kind: Kind, rows: range) -> Bags:
    """Some molecules as students of a kind see them."""
    if kind == "fingerprint":
        return bags_of_fragments(fingerprints(molecules, rows))
    if kind == "fragments":
        return bags_of_fragments(fragment_counts(molecules, rows))
    start = np.asarray(molecules.atom_start[rows.start : rows.stop + 1])
    fields = np.asarray(molecules.atoms[start[0] : start[-1]])
    if kind == "neighbours":
        fields = np.concatenate([fields, neighbour_fields(molecules.graphs().part(rows.start, rows.stop))], axis=1)
    return bags_of(fields, start - start[0])


def atom_sizes(kind: Kind) -> tuple[int, ...]:
    """Categories of every field of an atom, as `bags_for` gives them."""
    return (*ATOM_FIELDS.values(), *(NEIGHBOUR_SIZES if kind == "neighbours" else ()))
