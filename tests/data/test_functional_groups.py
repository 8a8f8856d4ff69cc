import pytest
from rdkit import Chem

from jaxgkd.data.functional_groups import GROUPS, RINGS, functional_groups, ring_names, ring_systems


def groups(smiles):
    return dict(functional_groups(Chem.MolFromSmiles(smiles)))


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CCC", {}),
        ("CC(=O)OCC", {"ester": 1}),
        ("CC(=O)NC", {"amide": 1}),
        ("CC(=O)[O-]", {"carboxylate": 1}),
        ("CC(=O)O", {"carboxylic acid": 1}),
        ("O=C1CCCO1", {"lactone": 1}),
        ("O=C1CCCN1", {"lactam": 1}),
        ("O=C1CCN1", {"beta-lactam": 1}),
        ("CNC(=O)NC", {"urea": 1}),
        ("COC(=O)NC", {"carbamate": 1}),
        ("CC(=O)NC(C)=O", {"imide": 1}),
        ("CC(=O)OC(C)=O", {"anhydride": 1}),
        ("CC(=O)C", {"ketone": 1}),
        ("CC=O", {"aldehyde": 1}),
        ("C=CC(C)=O", {"unsaturated ketone": 1}),
        ("CS(=O)(=O)N", {"sulfonamide": 1}),
        ("CS(C)=O", {"sulfoxide": 1}),
        ("CS(=O)(=O)O", {"sulfonic acid": 1}),
        ("CC[N+](=O)[O-]", {"nitro group": 1}),
        ("CCO[N+](=O)[O-]", {"nitrate": 1}),
        ("NC(=N)N", {"guanidine": 1}),
        ("COc1ccccc1OC", {"methoxy group": 2}),
        ("CCOc1ccccc1", {"aryl ether": 1}),
        ("Oc1ccccc1", {"phenol": 1}),
        ("CCO", {"primary alcohol": 1}),
        ("CC(O)C(C)(C)O", {"secondary alcohol": 1, "tertiary alcohol": 1}),
        ("CN(C)C", {"tertiary amine": 1}),
        ("C[NH+](C)C", {"protonated amine": 1}),
        ("C[N+](C)(C)C", {"quaternary ammonium": 1}),
        ("Nc1ccccc1", {"aromatic amine": 1}),
        ("FC(F)(F)C", {"trifluoromethyl group": 1}),
        ("N#CCC#C", {"nitrile": 1, "alkyne": 1}),
        ("C1OC1", {"epoxide": 1}),
        ("O=c1cccc[nH]1", {"ring carbonyl": 1}),
    ],
)
def test_a_group_has_its_most_specific_name_only(smiles, expected):
    assert groups(smiles) == expected


def test_a_ring_system_is_all_rings_that_share_an_atom():
    molecule = Chem.MolFromSmiles("c1ccc2ccccc2c1C1CCC12CC2")
    assert sorted((len(atoms), len(rings)) for atoms, rings in ring_systems(molecule)) == [(6, 2), (10, 2)]
    assert sorted(ring_names(molecule).values()).count("naphthalene") == 1


def test_only_a_whole_system_has_a_name():
    molecule = Chem.MolFromSmiles("c1ccc2[nH]ccc2c1")
    names = ring_names(molecule)
    assert [names.get(frozenset(atoms)) for atoms, _ in ring_systems(molecule)] == ["indole"]


def test_every_pattern_can_be_read():
    for name, pattern in (*GROUPS, *RINGS):
        assert Chem.MolFromSmarts(pattern) is not None, name


def ring(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    names = ring_names(molecule)
    return [names.get(frozenset(atoms)) for atoms, _ in ring_systems(molecule)]


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CC(=O)OCC1=C(N2[C@H](SC1)[C@H](N)C2=O)C(=O)O", "cephalosporin core"),
        ("CC1(C)S[C@@H]2[C@H](N)C(=O)N2[C@H]1C(=O)O", "penicillin core"),
        ("C[C@]12CCC(=O)C=C1CC[C@@H]1[C@@H]2CC[C@]2(C)[C@@H](O)CC[C@@H]12", "steroid core"),
        ("CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc12", "benzodiazepine"),
        ("CN1C2CCC1CC(O)C2", "tropane"),
        ("Cn1c(=O)c2c(ncn2C)n(C)c1=O", "purine"),
        ("CN(C)CCCN1c2ccccc2Sc2ccccc21", "phenothiazine"),
        ("O=c1cc(-c2ccccc2)oc2ccccc12", "chromone or coumarin"),
        ("C1CC1", "cyclopropane ring"),
        ("CC1=NC=CC1", None),
    ],
)
def test_names_of_drugs_cores(smiles, expected):
    assert expected in ring(smiles)
