import json

import numpy as np
import pytest

from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.data.splits import Split
from jaxgkd.errors import ConfigError, DataError
from jaxgkd.recipes.bleg_texts import check_texts, fold_texts, profiles_for, read_texts, shuffled

N = 48
ROWS = np.arange(N, dtype=np.int32)
SPLIT = Split(ROWS[:30], ROWS[30:38], ROWS[38:], "given", None)


@pytest.fixture(scope="module")
def brains():
    return simulate_brains(N, 14, n_time=30)


@pytest.mark.parametrize("kind", ["reference", "contrast", "conclusion"])
def test_labels_outside_training_play_no_part(brains, kind):
    profiles = profiles_for(brains, kind)
    texts = fold_texts(brains, profiles, kind, SPLIT, SPLIT.train, 0)
    assert len(texts) == N and all(texts)
    labels = np.where(np.isin(ROWS, SPLIT.train), brains.labels, 1 - brains.labels).astype(np.int32)
    other = simulate_brains(N, 14, n_time=30)
    object.__setattr__(other, "labels", labels)
    assert fold_texts(other, profiles, kind, SPLIT, SPLIT.train, 0) == texts
    for name in brains.class_names:
        assert not any(name in text for text in texts)


def test_shuffled_texts_stay_in_their_part():
    texts = [str(i) for i in range(N)]
    given = shuffled(texts, SPLIT, 0)
    assert sorted(given) == sorted(texts) and given != texts
    for rows in (SPLIT.train, SPLIT.valid, SPLIT.test):
        assert {given[i] for i in rows.tolist()} == {texts[i] for i in rows.tolist()}
    assert shuffled(texts, SPLIT, 0) == given


def test_texts_from_a_file(tmp_path):
    file = tmp_path / "texts.jsonl"
    lines = [{"subject": "b", "key_features": ["one.", "two."], "conclusion": "All."}, {"subject": "a", "text": "A."}]
    file.write_text("\n".join(map(json.dumps, [*lines, {"subject": "z", "text": "other"}])) + "\n")
    assert read_texts(file, ["a", "b"]) == ["A.", "All. one. two."]
    check_texts(str(file))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "row 2: is no description"),
        ('{"subject": "b"}', "row 2: is no description"),
        ('{"subject": "a", "text": "again"}', "subject 'a' again"),
        ('{"subject": "b", "text": " "}', "nothing of subject 'b'"),
        ("", "nothing of 1 subjects, such as 'b'"),
    ],
)
def test_bad_files_are_refused(tmp_path, line, what):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"subject": "a", "text": "A."}\n' + line + "\n")
    with pytest.raises(DataError, match=what):
        read_texts(file, ["a", "b"])


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="'others'"):
        check_texts("others")
