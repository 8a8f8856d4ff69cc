from pathlib import Path

import pytest

from jaxgkd import errors
from jaxgkd.errors import JaxgkdError

CLASSES = [
    errors.DataError,
    errors.UnsupportedModelError,
    errors.CheckpointError,
    errors.StoreError,
    errors.ConfigError,
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_can_be_caught_as_one(kind):
    with pytest.raises(JaxgkdError):
        raise kind("the text is empty")


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ({}, "the label is missing."),
        ({"mend": "add it"}, "the label is missing; add it."),
        ({"file": "nodes.csv"}, "nodes.csv: the label is missing."),
        ({"row": 3}, "row 3: the label is missing."),
        ({"field": "label", "mend": "add it"}, "field 'label': the label is missing; add it."),
        (
            {"file": Path("data") / "nodes.csv", "row": 3, "field": "label", "mend": "add it"},
            "data/nodes.csv, row 3, field 'label': the label is missing; add it.",
        ),
    ],
)
def test_the_sentence_says_where_what_and_the_mend(places, sentence):
    assert str(JaxgkdError("the label is missing", **places)) == sentence


def test_the_places_can_be_read_back():
    error = errors.DataError("the label is missing", file="nodes.csv", row=3, field="label")
    assert (error.file, error.row, error.field) == ("nodes.csv", 3, "label")
