import io

import pytest
from rich.console import Console

from jaxgkd.errors import DataError
from jaxgkd.predict.outcome import Outcome


def test_the_first_reasons_are_shown_and_the_others_counted():
    outcome = Outcome("nodes")
    outcome.add(list(range(2, 12)), {i: "no id" for i in (9, 0, 4)})
    outcome.add(list(range(12, 32)), {i: "no word" for i in range(9)})
    outcome.check()
    console = Console(file=io.StringIO(), record=True, width=200)
    outcome.print(console)
    lines = console.export_text().splitlines()
    assert lines[:4] == ["18 of 30 nodes predicted", "row 2: no id", "row 6: no id", "row 11: no id"]
    assert lines[-1] == "… and 2 more; the column problem has all reasons" and len(lines) == 12


def test_nothing_predicted_is_an_error_with_the_first_reason():
    outcome = Outcome("nodes")
    outcome.add([2, 3], {0: "no word", 1: "no id"})
    with pytest.raises(DataError, match=r"none of the 2 nodes can be predicted \(no word\)"):
        outcome.check()
    with pytest.raises(DataError, match="there is none"):
        Outcome("molecules").check()
