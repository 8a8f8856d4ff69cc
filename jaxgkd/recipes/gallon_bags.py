"""What students see of molecules, as bags: of atoms, of atoms with what they are bonded to, or of fingerprint bits."""

from typing import Literal

import numpy as np

from jaxgkd.data.atom_fields import ATOM_FIELDS
from jaxgkd.data.bond_counts import NEIGHBOUR_SIZES, neighbour_fields
from jaxgkd.data.molecules import Molecules
from jaxgkd.nn.molecule_bags import Bags, bags_of, bags_of_bits
from jaxgkd.recipes.molecule_baselines import ecfp4

Kind = Literal["atoms", "neighbours", "fingerprint"]


def bags_for(molecules: Molecules, kind: Kind) -> Bags:
    """Molecules as students of a kind see them."""
    if kind == "fingerprint":
        return bags_of_bits(ecfp4(molecules))
    fields = np.asarray(molecules.atoms)
    if kind == "neighbours":
        fields = np.concatenate([fields, neighbour_fields(molecules.graphs())], axis=1)
    return bags_of(fields, np.asarray(molecules.atom_start))


def atom_sizes(kind: Kind) -> tuple[int, ...]:
    """Categories of every field of an atom, as `bags_for` gives them."""
    return (*ATOM_FIELDS.values(), *(NEIGHBOUR_SIZES if kind == "neighbours" else ()))
