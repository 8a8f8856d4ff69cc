import io
import re

import pytest
from rich.console import Console

from jaxgkd.training.progress import progress_bar


def console_of(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def test_elsewhere_than_on_a_terminal_one_line_says_how_long_it_took():
    console = console_of(False)
    with progress_bar(console, "student_alone", 20) as tick:
        tick(10, 0.5)
        tick(20, float("nan"))
    assert re.fullmatch(r"\s*student_alone: \d+\.\d s\n", console.file.getvalue())


def test_a_terminal_shows_the_epoch_and_the_score():
    console = console_of(True)
    with progress_bar(console, "student_alone", 20) as tick:
        tick(10, 0.51239)
        shown = console.file.getvalue
        tick(20, 0.75)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown())
    assert "20/20 epochs" in text
    assert "0.7500" in text


def test_a_step_that_fails_does_not_say_that_it_ended():
    console = console_of(False)
    with pytest.raises(RuntimeError), progress_bar(console, "teacher", 5):
        raise RuntimeError
    assert "teacher:" not in console.file.getvalue()
