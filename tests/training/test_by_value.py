from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.training.by_value import cached_by_value, jitted

GLOBAL, TRACED = 3.0, []


def counted():
    """A function that is cached, and what it was really called with."""
    calls = []

    @cached_by_value(maxsize=8)
    def called(*args, **kwargs):
        calls.append((args, kwargs))
        return object()

    return called, calls


def scaled(by, plus=0.0):
    def inner(x):
        return by * x + plus

    return lambda x: inner(x) + GLOBAL


@dataclass(frozen=True)
class Setting:
    name: str
    weights: dict


def times(x, y):
    return x * y


@pytest.mark.parametrize(
    "make",
    [
        lambda: scaled(2),
        lambda: scaled({"a": [1, (2.0, "b")], "c": {3, 4}}),
        lambda: partial(times, 3, y=scaled(5)),
        lambda: Setting("one", {"a": 0.5}),
        lambda: scaled(Setting("one", {"a": float("nan")})),
        lambda: [scaled(1), scaled(2)],
    ],
)
def test_what_does_the_same_is_found_again(make):
    called, calls = counted()
    assert called(make()) is called(make()) and len(calls) == 1
    assert called(make(), flag=True) is not called(make()) and len(calls) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scaled(2), scaled(3)),
        (scaled(2), scaled(2.0)),
        (scaled(True), scaled(1)),
        (scaled(0.0), scaled(-0.0)),
        (scaled((1, 2)), scaled([1, 2])),
        (scaled(2), scaled(2, plus=1.0)),
        (partial(times, 3), partial(times, 4)),
        (partial(times, y=3), partial(times, x=3)),
        (Setting("one", {"a": 1}), Setting("one", {"a": 2})),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x=1: x, lambda x=2: x),
    ],
)
def test_what_does_something_else_is_told_apart(one, other):
    called, calls = counted()
    assert called(one) is not called(other) and len(calls) == 2
    assert called(one) is called(one) and len(calls) == 2


def test_arrays_are_told_apart_by_which_they_are():
    array, same = np.arange(3), np.arange(3)
    called, calls = counted()
    assert called(scaled(array)) is called(scaled(array)) and len(calls) == 1
    assert called(scaled(same)) is not called(scaled(array)) and len(calls) == 2
    assert called(scaled(jnp.arange(3))) is not called(scaled(jnp.arange(3)))


def test_a_function_that_holds_itself_ends():
    def recursive(n):
        def down(x):
            return 0 if x < n else 1 + down(x - 1)

        return down

    called, calls = counted()
    assert called(recursive(1)) is called(recursive(1)) and len(calls) == 1
    assert called(recursive(2)) is not called(recursive(1)) and len(calls) == 2


def test_a_global_that_is_replaced_is_another(monkeypatch):
    called, _ = counted()
    before = called(scaled(2))
    monkeypatch.setitem(globals(), "GLOBAL", 4.0)
    assert called(scaled(2)) is not before
    monkeypatch.undo()
    assert called(scaled(2)) is before


def test_what_changed_since_is_another():
    called, given = counted()[0], [1]
    before = called(scaled(given))
    given.append(2)
    assert called(scaled(given)) is not before
    assert called(scaled([1])) is before


def test_a_variable_without_a_value_is_no_fault():
    def outer():
        def inner():
            return later

        found = called(inner)
        later = 1
        return found, later

    called, _ = counted()
    assert outer()[0] is not None


def test_a_program_is_traced_once():
    def program(by):
        def run(x):
            TRACED.append(by)
            return by * x

        return jitted(run)

    assert float(program(2.0)(jnp.ones(()))) == 2.0 and float(program(2.0)(jnp.ones(()))) == 2.0
    assert float(program(3.0)(jnp.ones(()))) == 3.0
    assert TRACED == [2.0, 3.0]
