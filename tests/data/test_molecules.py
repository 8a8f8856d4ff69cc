import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from jaxgkd.data.molecules import Task, load_molecules
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.graphs.batching import assemble
from jaxgkd.graphs.budgets import Budget


@pytest.fixture
def load(tmp_path):
    """Writes files and loads the first of them with a cache of its own."""

    def write_and_load(files, sdf=None, **options):
        for name, content in files.items():
            content = content.encode()
            (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        first = tmp_path / next(iter(files))
        options = {"root": tmp_path / "cache", "workers": 1} | options
        return load_molecules(first, sdf=None if sdf is None else tmp_path / sdf, **options)

    return write_and_load


def with_hydrogens(smiles, seed=7):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=seed)
    # In an order of its own, as files of quantum chemistry have.
    order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
    return Chem.RenumberAtoms(molecule, order)


def sdf_of(*entries, fields=""):
    blocks = []
    for title, molecule in entries:
        molecule.SetProp("_Name", title)
        blocks.append(Chem.MolToMolBlock(molecule) + fields + "$$$$\n")
    return "".join(blocks)


def test_a_table_of_smiles(load):
    molecules = load({"a.csv": "smiles,y\nCCO,0.5\nbad,1\nO,\nOCC,0.5\nC1=CC=CC=C1,-2e3\n"})
    assert len(molecules) == 4 and molecules.name == "a" and molecules.tasks == (Task("y", "regression"),)
    assert [molecules.smiles(i) for i in range(4)] == ["CCO", "O", "OCC", "C1=CC=CC=C1"]
    assert molecules.canonical_smiles(3) == "c1ccccc1"
    assert molecules.rows.tolist() == [2, 4, 5, 6] and molecules.record.tolist() == [0, 2, 3, 4]
    np.testing.assert_array_equal(molecules.labels[:, 0], [0.5, np.nan, 0.5, -2000])
    assert molecules.problems == ((3, "the SMILES cannot be parsed", False),)
    assert molecules.repeats.tolist() == [-1, -1, 0, -1]
    assert molecules.notes == (
        "1 of 5 records left out",
        "1 molecule repeats an earlier one",
        "1 of 4 labels missing",
    )
    assert molecules.n_atom.tolist() == [3, 1, 3, 6] and molecules.n_edge.tolist() == [4, 0, 4, 12]
    start, end = molecules.edge_start[2:4]
    assert molecules.senders[start:end].tolist() == [0, 1, 1, 2]
    assert molecules.receivers[start:end].tolist() == [1, 0, 2, 1]
    assert molecules.coordinates is None and not molecules.placed.any()


def test_kinds_are_inferred_or_given(load):
    table = "smiles,a,b\nC,1,0.0\nCC,,1\nCCC,0,3\n"
    molecules = load({"a.csv": table}, labels=["all"])
    assert molecules.tasks == (Task("a", "classification"), Task("b", "regression"))
    given = load({"a.csv": table}, labels=["a"], kinds=["regression"])
    assert given.tasks == (Task("a", "regression"),)
    assert given.sha256 != load({"a.csv": table}, labels=["a"]).sha256
    with pytest.raises(DataError, match=r"row 4, field 'b': the label 3 is neither 0 nor 1"):
        load({"a.csv": table}, labels=["b"], kinds=["classification"])
    with pytest.raises(ConfigError, match="2 kinds are given for 1 labels"):
        load({"a.csv": table}, labels=["b"], kinds=["regression"] * 2)


def test_repeats_are_told_apart_from_stereoisomers_and_compared_by_label(load):
    molecules = load({"a.csv": "smiles,y\nF[C@H](Cl)Br,1\nF[C@@H](Cl)Br,1\nBr[C@H](F)Cl,0\nFC(Cl)Br,1\nN,\nN,1\n"})
    assert molecules.repeats.tolist() == [-1, -1, 0, -1, -1, 4]
    assert "2 molecules repeat an earlier one, 1 of them with another label" in molecules.notes


@pytest.mark.parametrize("cell", ["x", "inf", "1;2"])
def test_labels_that_are_no_numbers(load, cell):
    with pytest.raises(DataError, match=r"a\.csv, row 3, field 'y': the label") as caught:
        load({"a.csv": f"smiles,y\nC,1\nCC,{cell}\n"})
    assert caught.value.row == 3


def test_labels_written_as_nan_are_missing(load):
    assert np.isnan(load({"a.csv": "smiles,y\nC,NaN\nCC,\nCCC,1\n"}).labels[:2]).all()
    with pytest.raises(DataError, match="field 'y': has no label at all"):
        load({"b.csv": "smiles,y\nC,NaN\nCC,\n"})


def test_nothing_to_read(load, tmp_path):
    with pytest.raises(DataError, match=r"none of the 2 records is a molecule \(the SMILES cannot be parsed\)"):
        load({"a.csv": "smiles,y\nq,1\nw,2\n"})
    with pytest.raises(DataError, match="none of the 0 records"):
        load({"a.csv": "smiles,y\n"})
    with pytest.raises(DataError, match="does not exist"):
        load_molecules(tmp_path / "none.csv", root=tmp_path)
    with pytest.raises(ConfigError, match="max_atoms = 0"):
        load({"a.csv": "smiles\nC\n"}, max_atoms=0)
    with pytest.raises(ConfigError, match="two SD files"):
        load({"a.sdf": sdf_of(("a", with_hydrogens("C")))}, sdf="a.sdf")


def test_large_molecules_come_in_unless_a_limit_is_named(load):
    table = f"smiles\n{'C' * 492}\nCC\n"
    assert load({"a.csv": table}).n_atom.tolist() == [492, 2]
    assert load({"b.csv": f"smiles\n{'C' * 32768}\nC\n"}).problems[0].reason.startswith("has 32,768 atoms, more than")
    limited = load({"a.csv": table}, max_atoms=491)
    assert limited.n_atom.tolist() == [2] and limited.tasks == () and limited.labels.shape == (1, 0)
    assert limited.problems == ((2, "has 492 atoms, more than max_atoms = 491", False),)


def test_read_once_and_again_when_anything_changes(load, tmp_path, monkeypatch):
    table = "smiles,y\nC,1\nCC,2\n"
    first = load({"a.csv": table})
    calls = []
    monkeypatch.setattr("jaxgkd.data.molecules.featurise", lambda *a, **k: calls.append(a) or 1 / 0)
    # The same content under another name is the same set.
    again = load({"b.csv": table})
    assert again.sha256 == first.sha256 and again.name == "b" and not calls
    for files, options in (({"a.csv": table + "CCC,1\n"}, {}), ({"a.csv": table}, {"hydrogens": "explicit"})):
        with pytest.raises(ZeroDivisionError):
            load(files, **options)


def test_arrays_are_mapped_not_loaded(load):
    molecules = load({"a.csv": "smiles,y\nC,1\nCC,2\n"})
    for array in (molecules.atoms, molecules.senders, molecules.edges, molecules.labels, molecules.atom_start):
        assert isinstance(array, np.memmap) and not array.flags.writeable


@pytest.mark.parametrize("hydrogens", ["implicit", "explicit"])
def test_structures_of_an_sd_file_keep_their_order_and_coordinates(load, hydrogens):
    smiles = ["CC(=O)N", "F[C@H](Cl)Br", "[H][H]", "c1cc[nH]c1"]
    given = [with_hydrogens(text) for text in smiles]
    table = "id,smiles,y\n" + "".join(f"m{i},{text},{i}\n" for i, text in enumerate(smiles))
    sdf = sdf_of(*((f"m{i}", molecule) for i, molecule in enumerate(given)))
    molecules = load({"a.csv": table, "a.sdf.gz": sdf}, sdf="a.sdf.gz", hydrogens=hydrogens)
    assert molecules.placed.all() and molecules.coordinates is not None and not molecules.problems
    for i, molecule in enumerate(given):
        expected = molecule if hydrogens == "explicit" else Chem.RemoveHs(molecule)
        start, end = molecules.atom_start[i : i + 2]
        np.testing.assert_allclose(molecules.coordinates[start:end], expected.GetConformer().GetPositions(), atol=1e-3)
        numbers = [atom.GetAtomicNum() - 1 for atom in expected.GetAtoms()]
        assert molecules.atoms[start:end, 0].tolist() == numbers
        rebuilt = molecules.rdkit_molecule(i)
        assert [atom.GetAtomicNum() - 1 for atom in rebuilt.GetAtoms()] == numbers
        bonds = {frozenset((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in rebuilt.GetBonds()}
        edges = slice(*molecules.edge_start[i : i + 2])
        ends = zip(molecules.senders[edges].tolist(), molecules.receivers[edges].tolist(), strict=True)
        assert {frozenset(pair) for pair in ends} == bonds
        assert molecules.canonical_smiles(i) == Chem.CanonSmiles(smiles[i])


def test_hydrogens_of_a_table_become_atoms_when_asked(load):
    molecules = load({"a.csv": "smiles\nCO\n[H]C([H])([H])[H]\n"}, hydrogens="explicit")
    assert molecules.n_atom.tolist() == [6, 5]
    assert molecules.atoms[:, 0].tolist() == [5, 7, 0, 0, 0, 0, 5, 0, 0, 0, 0]
    for i in range(2):
        start, end = molecules.atom_start[i : i + 2]
        numbers = [atom.GetAtomicNum() - 1 for atom in molecules.rdkit_molecule(i).GetAtoms()]
        assert numbers == molecules.atoms[start:end, 0].tolist()
    assert molecules.canonical_smiles(1) == "C"


def flat(molecule):
    flattened = Chem.Mol(molecule)
    flattened.RemoveAllConformers()
    AllChem.Compute2DCoords(flattened)
    return flattened


def test_records_without_three_dimensions_are_listed_and_kept(load):
    good, planar = with_hydrogens("CCO"), flat(with_hydrogens("CCN"))
    broken = sdf_of(("c", with_hydrogens("CO"))).replace(" C   0", " Qq  0")
    files = {"a.csv": "smiles,y\nCCO,1\nCCN,2\nCO,3\nCC,4\nCCCC,5\n"}
    sdf = sdf_of(("a", good), ("b", planar)) + broken + sdf_of(("d", with_hydrogens("CCC")))
    molecules = load(files | {"a.sdf": sdf}, sdf="a.sdf")
    assert [tuple(problem) for problem in molecules.problems] == [
        (3, "the SD record has no coordinates in three dimensions", True),
        (4, "the SD record cannot be parsed", True),
        (5, "the SD record is C3H8, the SMILES C2H6", False),
    ]
    assert molecules.rows.tolist() == [2, 3, 4, 6] and molecules.placed.tolist() == [True, False, False, False]
    assert molecules.notes == ("1 of 5 records left out", "3 of 4 molecules without coordinates")
    assert not molecules.coordinates[3:].any() and molecules.coordinates[:3].all()


def test_an_sd_file_alone(load):
    sdf = sdf_of(("a", with_hydrogens("CCO")), fields="> <gap>\n1.5\n\n") + sdf_of(("b", flat(with_hydrogens("C"))))
    molecules = load({"a.sdf": sdf}, labels=["gap"])
    assert molecules.tasks == (Task("gap", "regression"),) and molecules.rows.tolist() == [1, 2]
    np.testing.assert_array_equal(molecules.labels, [[1.5], [np.nan]])
    assert molecules.placed.tolist() == [True, False] and len(molecules.problems) == 1
    assert load({"a.sdf": sdf}).tasks == ()


def test_graphs_for_batches(load):
    molecules = load({"a.csv": "smiles,y\nCCO,\nC1CC1,0.5\n"})
    graphs = molecules.graphs()
    assert graphs.nodes.keys() == {"fields"} and len(graphs) == 2
    assert np.shares_memory(graphs.nodes["fields"], molecules.atoms)
    batch = assemble(graphs, np.array([1, 0]), Budget(8, 16, 3, 3))
    np.testing.assert_array_equal(batch.graph.globals["labels"], [[0.5], [0], [0]])
    assert batch.graph.globals["label_mask"][:, 0].tolist() == [True, False, False]
    assert np.asarray(batch.graph.senders)[:6].tolist() == [1, 2, 0, 2, 0, 1]
    assert np.asarray(batch.graph.edges["fields"])[:6].tolist() == [[0, 0, 0]] * 6
    other = molecules.graphs(labels=np.array([[1.0], [np.nan]]), coordinates=np.ones((6, 3), np.float32))
    batch = assemble(other, np.array([0]), Budget(8, 16, 3, 3))
    assert batch.graph.globals["labels"][0] == 1 and batch.graph.nodes["coordinates"].sum() == 9


def test_progress_ends_with_every_record_and_the_whole_file(load):
    told = []
    load({"a.csv": "smiles\n" + "C\n" * 1000}, progress=lambda count, share: told.append((count, share)))
    assert [count for count, _ in told] == [512, 1000] and told[-1][1] == 1


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="JAXGKD_DATA is not set")
def test_real_data(tmp_path):
    folder = Path(os.environ["JAXGKD_DATA"]) / "molecules"
    counts = {"bbbp": (2039, 64), "esol": (1128, 11), "clintox": (1478, 19), "lipo": (4200, 0), "tox21": (7823, 0)}
    for name, (n, repeated) in counts.items():
        molecules = load_molecules(folder / f"{name}.csv", labels=["all"], root=tmp_path)
        assert (len(molecules), int((molecules.repeats >= 0).sum())) == (n, repeated), name
    assert len(molecules.tasks) == 12 and molecules.notes[0] == "8 of 7,831 records left out"
    qm7 = load_molecules(
        folder / "qm7.csv", sdf=folder / "qm7.sdf.gz", labels=["hof_kcal_mol"], hydrogens="explicit", root=tmp_path
    )
    assert len(qm7) == 7074 and qm7.placed.all() and not qm7.problems
    assert (qm7.n_atom.min(), qm7.n_atom.max()) == (4, 23)
