import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from jaxgkd.data.molecule_splits import (
    _balanced,
    _largest_first,
    label_rates,
    make_molecule_split,
    read_splits_file,
    save_molecule_split,
    scaffold_groups,
    scaffolds,
)
from jaxgkd.data.molecules import Task, load_molecules
from jaxgkd.errors import ConfigError, DataError

# Ten molecules: four with benzene, three with pyridine, two without a ring, one with cyclohexane.
RINGS = [
    *("c1ccccc1O", "c1ccccc1N", "Cc1ccccc1", "CCc1ccccc1"),
    *("c1ccncc1O", "c1ccncc1C", "c1ccncc1N"),
    *("CCO", "CCN", "C1CCCCC1C"),
]


def molecules_of(tmp_path, smiles, labels=None, **options):
    lines = ["smiles" + ("" if labels is None else ",y")]
    lines += list(smiles) if labels is None else [f"{text},{label}" for text, label in zip(smiles, labels, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    return load_molecules(tmp_path / "a.csv", root=tmp_path / "cache", workers=1, **options)


def labelled(labels, kind="classification", names=("y",)):
    labels = np.asarray(labels, float).reshape(len(labels), -1)
    tasks = tuple(Task(name, kind) for name in names)
    return _Labelled(labels, tasks)


class _Labelled:
    """As much of ``Molecules`` as drawing from labels needs."""

    def __init__(self, labels, tasks):
        self.labels, self.tasks, self.repeats = labels, tasks, np.full(len(labels), -1)

    def __len__(self):
        return len(self.labels)


def parts(split):
    return [split.train.tolist(), split.valid.tolist(), split.test.tolist()]


def everything(split):
    return sorted(i for part in parts(split) for i in part)


def test_scaffolds_go_from_the_largest_to_the_smallest(tmp_path):
    molecules = molecules_of(tmp_path, RINGS)
    split = make_molecule_split(molecules, "scaffold", fractions=(0.7, 0.1, 0.2))
    # 4 + 3 fill training; then the pair without rings is too large for the one place of validation.
    assert parts(split) == [[0, 1, 2, 3, 4, 5, 6], [9], [7, 8]]
    assert (split.name, split.seed) == ("scaffold", None)
    # Of groups of the same size, that with the later first molecule comes first.
    assert _largest_first([[0, 1], [2, 3], [4]], 5, (0.4, 0.2, 0.4)) == [[2, 3], [4], [0, 1]]


def test_chirality_tells_scaffolds_apart_only_where_asked(tmp_path):
    molecules = molecules_of(tmp_path, ["C[C@H]1CCC[C@@H]1c1ccccc1", "C[C@H]1CCC[C@H]1c1ccccc1", "CC1CCCC1c1ccccc1"])
    assert set(scaffolds(molecules, chirality=False)) == {"c1ccc(C2CCCC2)cc1"}
    spiro = molecules_of(tmp_path, ["O=C1C[C@@]2(CCNC2)C(=O)N1", "O=C1C[C@]2(CCNC2)C(=O)N1"])
    assert len(scaffold_groups(scaffolds(spiro, chirality=True))) == 2
    assert len(scaffold_groups(scaffolds(spiro, chirality=False))) == 1
    assert scaffolds(molecules_of(tmp_path, ["CCO"]), chirality=True) == [""]


def test_no_scaffold_is_in_two_parts(tmp_path):
    molecules = molecules_of(tmp_path, RINGS * 3)
    names = np.array(scaffolds(molecules, chirality=False))
    for kind in ("scaffold", "scaffold-chiral", "scaffold-balanced"):
        for seed in range(3):
            split = make_molecule_split(molecules, kind, seed=seed, fractions=(0.5, 0.2, 0.3))
            of_part = [set(names[rows]) for rows in parts(split)]
            assert sum(map(len, of_part)) == len(set(names))


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 12), min_size=3, max_size=40), seed=st.integers(0, 99))
def test_balanced_parts_take_large_groups_first_and_stay_within_their_room(sizes, seed):
    ends = np.cumsum(sizes).tolist()
    groups = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    n = ends[-1]
    found = _balanced(groups, n, (0.8, 0.1, 0.1), seed)
    assert sorted(i for part in found for i in part) == list(range(n))
    assert len(found[0]) <= 0.8 * n and len(found[1]) <= 0.1 * n
    owner = {i: number for number, part in enumerate(found) for i in part}
    assert all(len({owner[i] for i in group}) == 1 for group in groups)
    place = {i: at for part in found for at, i in enumerate(part)}
    for part in range(3):
        inside = [group for group in groups if owner[group[0]] == part]
        large = [place[group[0]] for group in inside if len(group) > 0.05 * n]
        small = [place[group[0]] for group in inside if len(group) <= 0.05 * n]
        assert not large or not small or max(large) < min(small)


@pytest.mark.parametrize("kind", ["random", "stratified"])
def test_copies_of_a_molecule_are_in_one_part(tmp_path, kind):
    smiles = [f"{'C' * n}{end}" for n in range(1, 11) for end in "ON"]
    twice = molecules_of(tmp_path, smiles + [Chem.MolToSmiles(Chem.MolFromSmiles(each)) for each in smiles], range(40))
    for seed in range(5):
        split = make_molecule_split(twice, kind, seed=seed)
        part = np.zeros(40, int)
        for number, rows in enumerate(parts(split)):
            part[rows] = number
        np.testing.assert_array_equal(part[:20], part[20:])
        assert sorted(row for rows in parts(split) for row in rows) == list(range(40))


def test_random_splits_come_from_the_seed():
    molecules = labelled(np.zeros(97))
    one, same, other = (make_molecule_split(molecules, "random", seed=seed) for seed in (3, 3, 4))
    assert parts(one) == parts(same) != parts(other)
    assert [len(part) for part in parts(one)] == [77, 10, 10] and (one.name, one.seed) == ("random", 3)
    assert everything(one) == list(range(97))


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(60, 300),
    positive=st.floats(0.05, 0.95),
    missing=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_stratified_parts_have_the_same_share_of_positives(n, positive, missing, seed):
    random = np.random.default_rng(seed)
    labels = (random.random(n) < positive).astype(float)
    labels[random.random(n) < missing] = np.nan
    split = make_molecule_split(labelled(labels), "stratified", seed=seed)
    assert everything(split) == list(range(n))
    for fraction, part in zip((0.8, 0.1, 0.1), parts(split), strict=True):
        for group in (labels == 0, labels == 1, np.isnan(labels)):
            assert abs(group[part].sum() - fraction * group.sum()) <= 2


def test_stratified_parts_have_the_same_spread_of_a_target():
    labels = np.random.default_rng(0).gamma(2, size=500)
    split = make_molecule_split(labelled(labels, "regression"), "stratified", seed=1)
    for part in parts(split):
        for quantile in (0.1, 0.5, 0.9):
            assert abs(np.quantile(labels[part], quantile) - np.quantile(labels, quantile)) < 0.25
    other = make_molecule_split(labelled(labels, "regression"), "stratified", seed=2)
    assert parts(split) != parts(other)


def test_settings_are_checked():
    several = labelled(np.zeros((20, 2)), names=("a", "b"))
    with pytest.raises(ConfigError, match="2 labels cannot all stratify a split; name one of a, b"):
        make_molecule_split(several, "stratified")
    with pytest.raises(ConfigError, match="no label 'c'"):
        make_molecule_split(several, "stratified", task="c")
    assert make_molecule_split(several, "stratified", task="b").name == "stratified"
    with pytest.raises(ConfigError, match="no split 'odd'"):
        make_molecule_split(several, "odd")
    with pytest.raises(ConfigError, match="do not divide"):
        make_molecule_split(several, "random", fractions=(0.8, 0.1, 0.2))
    with pytest.raises(ConfigError, match="seed -1"):
        make_molecule_split(several, "random", seed=-1)
    with pytest.raises(DataError, match="the valid part of the split is empty"):
        make_molecule_split(labelled(np.zeros(3)), "random")


def test_saved_and_read_again(tmp_path):
    molecules = molecules_of(tmp_path, [*RINGS, "bad"], [0, 1, 0, 1, 1, 1, 0, 0, "", 1, 1])
    split = make_molecule_split(molecules, "random", seed=5, fractions=(0.6, 0.2, 0.2))
    save_molecule_split(split, molecules, tmp_path / "split.json")
    (again,) = read_splits_file(tmp_path / "split.json", molecules)
    assert parts(again) == parts(split) and (again.name, again.seed, again.sha256) == ("random", 5, split.sha256)
    content = json.loads((tmp_path / "split.json").read_text())
    assert content["rdkit"] == rdBase.rdkitVersion and content["data"]["molecules"] == 10
    known = [molecules.labels[rows, 0] for rows in parts(split)]
    for name, labels in zip(("train", "valid", "test"), known, strict=True):
        expected = {"labelled": int(np.isfinite(labels).sum()), "positive": np.nanmean(labels)}
        assert content["label_rates"][name]["y"] == expected
    for change, what in (
        ({"train": content["train"][:-1]}, "does not match its hash"),
        ({"data": {"sha256": "0"}}, "was made for other data"),
        ({"valid": content["train"]}, "is not a saved split"),
        ({"test": ["a"]}, "is not a saved split"),
    ):
        (tmp_path / "odd.json").write_text(json.dumps(content | change))
        with pytest.raises(DataError, match=what):
            read_splits_file(tmp_path / "odd.json", molecules)


def test_rates_of_targets():
    labels = np.array([[1.0], [3.0], [np.nan], [5.0]])
    split = SimpleNamespace(train=np.array([0, 1]), valid=np.array([2]), test=np.array([3]))
    rates = label_rates(split, labelled(labels, "regression"))
    assert rates["train"]["y"] == {"labelled": 2, "mean": 2.0, "std": 1.0}
    assert rates["valid"]["y"] == {"labelled": 0} and rates["test"]["y"]["mean"] == 5


def test_given_records_are_counted_before_any_is_left_out(tmp_path):
    molecules = molecules_of(tmp_path, ["C", "bad", "CC", "CCC", "CCCC", "CO"])
    given_twice = [
        {"train": [0, 1, 2], "val": [3], "test": [4, 5]},
        {"train": "0, 2-3", "valid": "4", "test": "1,5"},
    ]
    (tmp_path / "s.json").write_text(json.dumps(given_twice))
    first, second = read_splits_file(tmp_path / "s.json", molecules)
    assert parts(first) == [[0, 1], [2], [3, 4]] and parts(second) == [[0, 1, 2], [3], [4]]
    assert (first.name, second.name) == ("given 0", "given 1")
    (tmp_path / "s.json").write_text(json.dumps(given_twice[0]))
    assert parts(read_splits_file(tmp_path / "s.json", molecules)[0]) == parts(first)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "not readable as JSON"),
        ("[]", "holds no split"),
        ("[3]", "holds no split"),
        ('{"train": [0], "val": [2]}', "split 0 has no part 'test'"),
        ('{"train": [0], "val": [2], "test": [6]}', r"field 'test': split 0 names record 6, but a has 6; count"),
        ('{"train": [0], "val": [-1], "test": [4]}', "names record -1"),
        ('{"train": [0, 3], "val": [3], "test": [4]}', "field 'val': record 3 of split 0 is in two parts"),
        ('{"train": [0], "val": [1], "test": [4]}', "field 'val': split 0 has an empty part"),
        ('{"train": [0.5], "val": [1], "test": [4]}', "field 'train': split 0 holds no records"),
        (
            '{"train": "9-5, 1", "val": [2], "test": [4]}',
            "field 'train': split 0 has the range '9-5', which ends before",
        ),
        ('{"train": "x", "val": [1], "test": [4]}', "field 'train': split 0 holds no records"),
        ('{"train": null, "val": [1], "test": [4]}', "field 'train': split 0 holds no records"),
    ],
)
def test_files_of_splits_that_are_refused(tmp_path, content, what):
    molecules = molecules_of(tmp_path, ["C", "bad", "CC", "CCC", "CCCC", "CO"])
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match=what) as caught:
        read_splits_file(tmp_path / "s.json", molecules)
    assert caught.value.file == tmp_path / "s.json"


def test_a_missing_file_of_splits(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_splits_file(tmp_path / "none.json", None)


@pytest.mark.skipif("JAXGKD_DATA" not in os.environ, reason="JAXGKD_DATA is not set")
def test_sizes_on_real_data(tmp_path):
    folder = Path(os.environ["JAXGKD_DATA"]) / "molecules"
    molecules = load_molecules(folder / "bbbp.csv", root=tmp_path)
    split = make_molecule_split(molecules, "scaffold")
    assert [len(part) for part in parts(split)] == [1631, 204, 204]
    chiral = make_molecule_split(molecules, "scaffold-chiral")
    assert [len(part) for part in parts(chiral)] == [1631, 204, 204] and chiral.sha256 != split.sha256
