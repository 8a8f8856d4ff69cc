"""What an atom is bonded to, as categorical fields beside its own: a count for every element and kind of bond."""

import numpy as np

from jaxgkd.data.atom_fields import ATOM_FIELDS, BOND_FIELDS
from jaxgkd.graphs import ManyGraphs

#: Elements that are told apart, by atomic number; all others are one group more.
ELEMENTS = (6, 7, 8, 16, 9, 17, 35)
#: Kinds of bonds that are told apart: single, double, triple, aromatic; all others are counted as single.
N_KIND = 4
#: Neighbours of one element and bond that are told apart: 0, 1, 2, 3 or more.
MOST = 3
#: Categories of every field that `neighbour_fields` adds.
NEIGHBOUR_SIZES = (MOST + 1,) * ((len(ELEMENTS) + 1) * N_KIND)


def neighbour_fields(graphs: ManyGraphs) -> np.ndarray:
    """How many neighbours of every element an atom has at every kind of bond, [N, elements × kinds] uint8 up to 3.

    Fields of one element stand side by side, elements in the order of `ELEMENTS` with the others last. Where hydrogens
    are atoms of the graphs they are among the others. Nodes and edges of ``graphs`` hold ``fields``, as those of
    ``Molecules.graphs`` do.
    """
    atoms, edges = graphs.nodes["fields"], graphs.edges["fields"]
    names = list(ATOM_FIELDS), list(BOND_FIELDS)
    number = np.asarray(atoms)[:, names[0].index("atomic_number")].astype(np.int64) + 1
    group_of = np.full(ATOM_FIELDS["atomic_number"] + 1, len(ELEMENTS))
    group_of[list(ELEMENTS)] = np.arange(len(ELEMENTS))
    first = np.repeat(np.asarray(graphs.node_start)[:-1], graphs.n_edge)
    senders, receivers = (first + np.asarray(ends) for ends in (graphs.senders, graphs.receivers))
    bond = np.asarray(edges)[:, names[1].index("bond_type")].astype(np.int64)
    kind = np.where(bond < N_KIND, bond, 0)
    n_field = len(NEIGHBOUR_SIZES)
    place = receivers * n_field + group_of[number[senders]] * N_KIND + kind
    counts = np.bincount(place, minlength=len(number) * n_field).reshape(-1, n_field)
    return np.minimum(counts, MOST).astype(np.uint8)
