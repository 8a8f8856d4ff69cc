"""Programs that are made once for all functions that do the same.

JAX compiles a function once, and tells functions apart by where they lie in memory: a loss that is put together anew
for every row of a table, every fold and every run in a notebook is traced and lowered anew too, seconds each time. Here
functions are equal where their code and all that they close over is.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial, wraps
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def cached_by_value(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """``functools.lru_cache`` that takes two functions for one where they do the same.

    Functions are the same where these are: their code, their defaults, what they close over and the globals they name.
    Within them, within partial functions, and within tuples, lists, dicts, sets and frozen dataclasses, it goes by what
    is there; any other object is the same as what it equals, or only as itself where it has no hash (arrays). What a
    function closes over is compared as it is at the call.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @lru_cache(maxsize)
        def found(given: "_Given") -> T:
            return function(*given.args, **given.kwargs)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return found(_Given(args, kwargs))

        return call

    return decorate


@cached_by_value(maxsize=64)
def jitted(function: Callable[..., Any]) -> Any:
    """`jax.jit`, with one program for all functions that do the same."""
    return jax.jit(function)


class _Given:
    """Arguments of a call, equal by their content."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.args, self.kwargs = args, kwargs
        self._content = _content((args, kwargs), {})
        self._hash = hash(self._content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Given) and self._hash == other._hash and self._content == other._content


class _Itself:
    """An object that is the same as itself alone; the reference keeps its place in memory from being given away."""

    def __init__(self, value: Any):
        self._value = value

    def __hash__(self) -> int:
        return id(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self._value is other._value


def _content(value: Any, within: Mapping[int, int]) -> Any:
    """What can be hashed and compared in place of a value; ``within`` numbers what it lies in, by place in memory."""
    if id(value) in within:
        return ("again", within[id(value)])
    kind, within = type(value), {**within, id(value): len(within)}

    def all_of(values: Any) -> tuple[Any, ...]:
        return tuple(_content(each, within) for each in values)

    if isinstance(value, FunctionType):
        return kind, value.__code__, all_of(_around(value))
    if isinstance(value, partial):
        return kind, all_of((value.func, value.args, value.keywords))
    if isinstance(value, MethodType):
        return kind, all_of((value.__func__, value.__self__))
    if isinstance(value, tuple | list):
        return kind, all_of(value)
    if isinstance(value, set | frozenset):
        return kind, frozenset(all_of(value))
    if isinstance(value, dict):
        return kind, all_of(value.keys()), all_of(value.values())
    if isinstance(value, float):
        return kind, value.hex()  # tells zeros apart by their signs, and is equal for what is not a number
    if is_dataclass(value) and not isinstance(value, type) and _goes_by_value(kind):
        return kind, all_of(getattr(value, field.name) for field in fields(value))
    try:
        hash(value)
    except TypeError:
        return kind, _Itself(value)
    return kind, value


def _goes_by_value(kind: Any) -> bool:
    return kind.__dataclass_params__.frozen and kind.__dataclass_params__.eq


def _around(function: FunctionType) -> tuple[Any, ...]:
    """What a function reads beside its arguments."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if not _is_empty(cell)]
    named = _names(function.__code__) & function.__globals__.keys()
    # A global is what it is called: what matters is only whether it has been replaced.
    of_module = {name: _Itself(function.__globals__[name]) for name in sorted(named)}
    return cells, function.__defaults__, function.__kwdefaults__, of_module


def _is_empty(cell: CellType) -> bool:
    """Whether a variable has no value (yet)."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _names(code: CodeType) -> set[str]:
    """What the code of a function, and of those that it holds, looks up outside of it."""
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*(_names(each) for each in inner))
