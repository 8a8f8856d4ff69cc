import json

import pytest

from jaxgkd.data.brain_descriptions import read_subject_descriptions
from jaxgkd.data.brain_texts import Description
from jaxgkd.data.simulated_brains import simulate_brains
from jaxgkd.errors import DataError

BRAINS = simulate_brains(40, 14, n_time=20)


def write(tmp_path, *lines):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_both_forms(tmp_path):
    path = write(
        tmp_path,
        {"subject": "simulated-0002", "text": " weak "},
        "",
        {"subject": "simulated-0001", "key_features": ["a", "b"], "conclusion": "c", "model": "x"},
        {"subject": "simulated-0003", "text": ""},
        {"subject": "someone", "text": "else"},
        {"subject": "simulated-0004", "text": "a Simulated patient, surely"},
    )
    found = read_subject_descriptions(path, BRAINS)
    assert found.descriptions[:3] == (Description(("a", "b"), "c"), Description((), "weak"), None)
    assert found.descriptions[0].text == "c a b"
    assert found.missing[0] == 2
    assert len(found.missing) == 37
    assert found.notes == (
        "1 description empty, taken as missing",
        "1 description of subjects that are not in simulated",
        "37 of 40 subjects without a description "
        "(simulated-0003, simulated-0005, simulated-0006, simulated-0007, simulated-0008, …)",
        "1 of the descriptions hold the name of a class and may give the label away",
    )


GOOD = {"subject": "simulated-0001", "text": "x"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, "{"], "row 2: is not JSON"),
        ([[1]], "row 1: is not an object"),
        ([{"text": "x"}], "row 1, field 'subject': there is no subject"),
        ([{"subject": " ", "text": "x"}], "there is no subject"),
        ([GOOD, GOOD], "row 2, field 'subject': subject 'simulated-0001' is also in row 1"),
        ([{"subject": "a"}], "neither text nor key_features"),
        ([{"subject": "a", "key_features": "x", "conclusion": "y"}], "field 'key_features': is not a list"),
        ([{"subject": "a", "key_features": [1], "conclusion": "y"}], "field 'key_features': is not text"),
        ([{"subject": "a", "text": 3}], "field 'text': is not text"),
        (['{"subject": "a", "text": "\\ud800"}'], "half of a character"),
        ([{"subject": "a", "text": "x"}], "none of its 1 lines describes a subject of simulated"),
        ([""], "holds no description"),
    ],
)
def test_bad_files(tmp_path, lines, said):
    with pytest.raises(DataError, match=said):
        read_subject_descriptions(write(tmp_path, *lines), BRAINS)


def test_bad_encoding(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{"subject": "\xff"}\n')
    with pytest.raises(DataError, match="row 1: is not UTF-8"):
        read_subject_descriptions(path, BRAINS)
