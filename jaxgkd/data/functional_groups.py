"""Functional groups, ring systems and counter-ions by the names chemists give them: the tables, and how they are read.

A pattern lists only the atoms that make up the group; what has to stand beside them is a condition inside brackets.
Patterns are tried in order, and an atom belongs to one group only: what is an ester is no ketone and no ether.
"""

from collections import Counter
from functools import cache

from rdkit import Chem

# Most specific first.
GROUPS = (
    ("sulfonylurea", "[#16X4](=O)(=O)[#7][CX3](=[OX1])[#7]"),
    ("anhydride", "[CX3](=[OX1])[OX2][CX3]=[OX1]"),
    ("imide", "[CX3](=[OX1])[#7X3,#7X2-][CX3]=[OX1]"),
    ("hydroxamic acid", "[CX3](=[OX1])[NX3][OX2H,OX1-]"),
    ("hydrazide", "[CX3](=[OX1])[NX3][NX3]"),
    ("carbamate", "[OX2][CX3](=[OX1])[NX3]"),
    ("carbonate", "[OX2][CX3](=[OX1])[OX2]"),
    ("urea", "[NX3][CX3](=[OX1])[NX3]"),
    ("thiourea", "[NX3][CX3](=[SX1])[NX3]"),
    ("guanidine", "[NX3][CX3](=[NX2,NX3+])[NX3]"),
    ("amidine", "[CX3](=[NX2,NX3+])[NX3]"),
    ("beta-lactam", "[CX3;r4](=[OX1])[NX3;r4]"),
    ("lactam", "[CX3](=[OX1])@[NX3]"),
    ("amide", "[CX3](=[OX1])[NX3,NX2-]"),
    ("thioamide", "[CX3](=[SX1])[NX3]"),
    ("carboxylate", "[CX3](=[OX1])[OX1-]"),
    ("carboxylic acid", "[CX3](=[OX1])[OX2H]"),
    ("lactone", "[CX3](=[OX1])@[OX2]"),
    ("ester", "[CX3](=[OX1])[OX2]"),
    ("thioester", "[CX3](=[OX1])[SX2]"),
    ("acyl halide", "[CX3](=[OX1])[F,Cl,Br,I]"),
    ("sulfonamide", "[#16X4](=O)(=O)[#7]"),
    ("sulfate", "[#16X4](=O)(=O)([OX2,OX1-])[OX2,OX1-]"),
    ("sulfonic acid", "[#16X4](=O)(=O)[OX2H,OX1-]"),
    ("sulfonate", "[#16X4](=O)(=O)[OX2]"),
    ("sulfone", "[#16X4](=O)=O"),
    ("sulfoxide", "[#16X3;$([#16]([#6])[#6])]=,-[OX1]"),
    ("phosphate", "[PX4](=O)([OX2,OX1-])([OX2,OX1-])[OX2,OX1-]"),
    ("phosphonate", "[PX4](=O)([OX2,OX1-])[OX2,OX1-]"),
    ("nitrate", "[OX2][NX3+](=O)[O-]"),
    ("nitro group", "[NX3+](=O)[O-]"),
    ("nitrosamine", "[NX3][NX2]=[OX1]"),
    ("azide", "[NX2]=[NX2+]=[NX1-]"),
    ("N-oxide", "[#7+][OX1-]"),
    ("isothiocyanate", "[NX2]=[CX2]=[SX1]"),
    ("isocyanate", "[NX2]=[CX2]=[OX1]"),
    ("unsaturated ketone", "[CX3;$(C([#6])[#6])](=[OX1])[CX3]=[CX3]"),
    ("aldehyde", "[CX3;!H0;$(C[#6,#1])](=[OX1])"),
    ("ketone", "[CX3;$(C([#6])[#6])]=[OX1]"),
    ("ring carbonyl", "[c]=[OX1]"),
    ("thiocarbonyl", "[#6]=[SX1]"),
    ("nitrile", "[CX2]#[NX1]"),
    ("oxime", "[CX3]=[NX2][OX2]"),
    ("hydrazone", "[CX3]=[NX2][NX3]"),
    ("azo group", "[NX2]=[NX2]"),
    ("imine", "[CX3]=[NX2,NX3+]"),
    ("hydrazine", "[NX3][NX3]"),
    ("boronic acid", "[#5]([OX2H])[OX2H]"),
    ("peroxide", "[OX2][OX2]"),
    ("epoxide", "[OX2;r3]"),
    ("acetal", "[OX2H0;!a][CX4;!$(C[#7,#16])][OX2H0]"),
    ("phenol", "[OX2H,OX1-;$(Oc)]"),
    ("primary alcohol", "[OX2H;$(O[CX4;H2,H3])]"),
    ("secondary alcohol", "[OX2H;$(O[CX4;H1])]"),
    ("tertiary alcohol", "[OX2H;$(O[CX4;H0])]"),
    ("enol", "[OX2H,OX1-;$(OC=C)]"),
    ("methoxy group", "[OX2;$(O([CH3])[#6])]"),
    ("aryl ether", "[OX2;$(O(c)[#6])]"),
    ("ether", "[OX2;$(O([#6])[#6])]"),
    ("disulfide", "[SX2][SX2]"),
    ("thiol", "[SX2H,SX1-;$(S[#6])]"),
    ("thioether", "[SX2;$(S([#6])[#6])]"),
    ("quaternary ammonium", "[NX4+;H0]"),
    ("protonated amine", "[NX4+]"),
    ("aromatic amine", "[NX3;$(Nc)]"),
    ("primary amine", "[NX3;H2;$(N[#6])]"),
    ("secondary amine", "[NX3;H1;$(N([#6])[#6])]"),
    ("tertiary amine", "[NX3;H0;$(N([#6])([#6])[#6])]"),
    ("trifluoromethyl group", "[CX4;$(C[!F])](F)(F)F"),
    ("tert-butyl group", "[CX4]([CH3])([CH3])[CH3]"),
    ("alkyne", "[CX2]#[CX2]"),
    ("alkene", "[CX3]=[CX3]"),
)

# A ring system has the name when the pattern covers all of it. ``~`` is any bond: the name says nothing of them then.
RINGS = (
    ("benzene ring", "c1ccccc1"),
    ("pyridine ring", "c1ccncc1"),
    ("pyrimidine ring", "c1cncnc1"),
    ("pyrazine ring", "c1cnccn1"),
    ("pyridazine ring", "c1ccnnc1"),
    ("triazine ring", "c1ncncn1"),
    ("pyrrole ring", "c1ccnc1"),
    ("furan ring", "c1ccoc1"),
    ("thiophene ring", "c1ccsc1"),
    ("imidazole ring", "c1cncn1"),
    ("pyrazole ring", "c1ccnn1"),
    ("oxazole ring", "c1cnco1"),
    ("isoxazole ring", "c1cnoc1"),
    ("thiazole ring", "c1cncs1"),
    ("thiadiazole ring", "[c,n]1[c,n][c,n][c,n]s1"),
    ("oxadiazole ring", "[c,n]1[c,n][c,n][c,n]o1"),
    ("triazole ring", "[c,n]1n[c,n]n[c,n]1"),
    ("triazole ring", "c1cnnn1"),
    ("tetrazole ring", "c1nnnn1"),
    ("naphthalene", "c1ccc2ccccc2c1"),
    ("anthracene", "c1ccc2cc3ccccc3cc2c1"),
    ("indole", "c1ccc2nccc2c1"),
    ("benzimidazole", "c1ccc2ncnc2c1"),
    ("indazole", "c1ccc2nncc2c1"),
    ("benzofuran", "c1ccc2occc2c1"),
    ("benzothiophene", "c1ccc2sccc2c1"),
    ("benzothiazole", "c1ccc2scnc2c1"),
    ("benzoxazole", "c1ccc2ocnc2c1"),
    ("quinoline", "c1ccc2ncccc2c1"),
    ("isoquinoline", "c1ccc2cnccc2c1"),
    ("quinazoline", "c1ccc2ncncc2c1"),
    ("quinoxaline", "c1ccc2nccnc2c1"),
    ("purine", "c1ncc2ncnc2n1"),
    ("pteridine", "c1cnc2ncncc2n1"),
    ("carbazole", "c1ccc2c(c1)nc1ccccc12"),
    ("acridine", "c1ccc2nc3ccccc3cc2c1"),
    ("chromone or coumarin", "c1ccc2occcc2c1"),
    ("benzodioxole", "c1ccc2OCOc2c1"),
    ("phenothiazine", "c1ccc2c(c1)Nc1ccccc1S2"),
    ("benzodiazepine", "c1ccc2~[#6,#7]~[#6,#7]~[#6,#7]~[#6,#7]~[#7]~c2c1"),
    ("tetrahydroisoquinoline", "c1ccc2CNCCc2c1"),
    ("piperidine ring", "N1CCCCC1"),
    ("piperazine ring", "N1CCNCC1"),
    ("morpholine ring", "N1CCOCC1"),
    ("pyrrolidine ring", "N1CCCC1"),
    ("azetidine ring", "N1CCC1"),
    ("tetrahydrofuran ring", "O1CCCC1"),
    ("tetrahydropyran ring", "O1CCCCC1"),
    ("cyclohexane ring", "C1CCCCC1"),
    ("cyclopentane ring", "C1CCCC1"),
    ("cyclobutane ring", "C1CCC1"),
    ("cyclopropane ring", "C1CC1"),
    ("cyclohexene ring", "C1=CCCCC1"),
    ("tropane", "N1C2CCCC1CC2"),
    ("adamantane", "C1C2CC3CC1CC(C2)C3"),
    ("penicillin core", "N12C(~C)CSC1CC2"),
    ("penicillin core", "N12CCSC1CC2"),
    ("cephalosporin core", "N12C~C~CSC1CC2"),
    (
        "steroid core",
        "[#6]1~[#6]~[#6]~[#6]2~[#6](~[#6]~1)~[#6]~[#6]~[#6]1~[#6]~2~[#6]~[#6]~[#6]2~[#6]~[#6]~[#6]~[#6]~1~2",
    ),
    (
        "tetracycline core",
        "[#6]1~[#6]~[#6]~[#6]2~[#6](~[#6]~1)~[#6]~[#6]1~[#6](~[#6]~2)~[#6]~[#6]2~[#6](~[#6]~1)~[#6]~[#6]~[#6]~[#6]~2",
    ),
)

COUNTER_IONS = {
    "[Na+]": "sodium",
    "[K+]": "potassium",
    "[Li+]": "lithium",
    "[Ca+2]": "calcium",
    "[Mg+2]": "magnesium",
    "[Cl-]": "chloride",
    "[Br-]": "bromide",
    "[I-]": "iodide",
    "Cl": "hydrogen chloride",
    "Br": "hydrogen bromide",
    "O": "water",
}


def functional_groups(molecule: Chem.Mol) -> Counter[str]:
    """How often every group occurs, in the order of `GROUPS`; no atom is part of two of them."""
    counts: Counter[str] = Counter()
    taken: set[int] = set()
    for name, pattern in _compiled(GROUPS):
        for match in molecule.GetSubstructMatches(pattern):
            if taken.isdisjoint(match):
                counts[name] += 1
                taken.update(match)
    return counts


def ring_systems(molecule: Chem.Mol) -> list[tuple[set[int], list[tuple[int, ...]]]]:
    """Rings that share atoms, together: the atoms of every system, and its rings."""
    systems: list[tuple[set[int], list[tuple[int, ...]]]] = []
    for ring in molecule.GetRingInfo().AtomRings():
        atoms, rings = set(ring), [ring]
        apart = []
        for system in systems:
            if atoms.isdisjoint(system[0]):
                apart.append(system)
            else:
                atoms |= system[0]
                rings += system[1]
        systems = [*apart, (atoms, rings)]
    return systems


def ring_names(molecule: Chem.Mol) -> dict[frozenset[int], str]:
    """The names of all sets of atoms that are a ring system of `RINGS`."""
    names: dict[frozenset[int], str] = {}
    for name, pattern in _compiled(RINGS):
        for match in molecule.GetSubstructMatches(pattern):
            names.setdefault(frozenset(match), name)
    return names


@cache
def _compiled(table: tuple[tuple[str, str], ...]) -> list[tuple[str, Chem.Mol]]:
    return [(name, Chem.MolFromSmarts(pattern)) for name, pattern in table]
