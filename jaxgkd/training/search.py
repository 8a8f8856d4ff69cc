"""Which numeric settings are tried: random draws or a grid, every row of a table alike, all in one program."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from jaxgkd.errors import ConfigError

Tried = TypeVar("Tried")
_SHORT = {"lr": "learning_rate", "wd": "weight_decay"}


@dataclass(frozen=True)
class Choice:
    """A setting that is drawn from a list of values."""

    values: tuple[float, ...]


def draw_settings(
    space: Mapping[str, Choice], default: Mapping[str, float], tries: int, seed: int = 0
) -> list[dict[str, float]]:
    """Settings to try: the default first, then different random draws.

    Args:
      space: setting → what it is drawn from; settings that are not in it keep their default.
      default: setting → value.
      tries: how many settings in all, the default included; fewer are returned when the space holds fewer.
      seed: of the draws. Draws for a setting do not depend on which other settings are in the space: two rows, one of
        which searches more settings, draw the same values of what they share in turn. The row with fewer leaves out
        what it has tried already, and goes on to values that the other one comes to later.
    """
    streams = {name: np.random.default_rng([seed, *name.encode()]) for name in space}
    settings = [dict(default)]
    for _ in range(50 * tries):
        if len(settings) >= tries:
            break
        drawn = {name: float(streams[name].choice(choice.values)) for name, choice in space.items()}
        candidate = {**default, **drawn}
        if candidate not in settings:
            settings.append(candidate)
    return settings


def as_many_each(tries: Mapping[str, list[Tried]], *, drawn: bool) -> dict[str, list[Tried]]:
    """The same number of settings for every row of a table.

    Args:
      tries: row → settings to try.
      drawn: whether they are random draws, which are cut to as many as the row has that searches the smallest space;
        rows of a grid that have fewer settings try them again, which changes nothing.
    """
    counts = [len(settings) for settings in tries.values()]
    if drawn:
        return {row: settings[: min(counts)] for row, settings in tries.items()}
    return {row: list(itertools.islice(itertools.cycle(settings), max(counts))) for row, settings in tries.items()}


def read_sweep(words: Sequence[str], known: Sequence[str]) -> dict[str, Choice]:
    """What ``--sweep lr=1e-3,1e-2 dropout=0.4,0.6`` says.

    Args:
      words: ``name=value,value…``; lr and wd are short for learning-rate and weight-decay.
      known: the names there are, with underscores; dashes are read as such.

    Raises:
      ConfigError: a word is of another form, a name is unknown or given twice, or a value is no number.
    """
    choices: dict[str, Choice] = {}
    for word in words:
        name, equals, values = word.partition("=")
        setting = _SHORT.get(name, name.replace("-", "_"))
        flags = ", ".join(each.replace("_", "-") for each in known)
        if not equals or setting not in known:
            mend = f"write name=value,value with {flags}"
            raise ConfigError(f"'{word}' names no setting", field="--sweep", mend=mend)
        if setting in choices:
            raise ConfigError(f"'{name}' is given twice", field="--sweep", mend="list all its values after one name")
        try:
            numbers = tuple(float(value) for value in values.split(","))
        except ValueError:
            numbers = (math.nan,)
        if not all(math.isfinite(number) for number in numbers):
            raise ConfigError(f"'{values}' are no numbers", field="--sweep", mend=f"write {name}=1,2,3")
        choices[setting] = Choice(tuple(dict.fromkeys(numbers)))
    return choices


def grid_settings(sweep: Mapping[str, Choice], default: Mapping[str, float]) -> list[dict[str, float]]:
    """Every combination of the swept values; settings that ``default`` does not hold are left out."""
    names = [name for name in sweep if name in default]
    combinations = itertools.product(*(sweep[name].values for name in names))
    return [{**default, **dict(zip(names, values, strict=True))} for values in combinations]


def ranked(scores: np.ndarray) -> np.ndarray:
    """The indices of the settings from best to worst by their mean over seeds; of a tie the earlier one comes first.

    Args:
      scores: [settings, seeds] validation scores, higher is better; a setting with a NaN comes last.
    """
    return np.argsort(-np.nan_to_num(np.mean(scores, axis=1), nan=-np.inf), kind="stable")
