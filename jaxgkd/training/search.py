"""Random search over numeric settings: every row of a table gets the same number of tries, all in one program."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


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
      seed: of the draws. Draws for a setting do not depend on which other settings are in the space: of two rows, one
        of which searches more settings, both try the same values of what they share, in the same order.
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


def best_setting(scores: np.ndarray) -> int:
    """The index of the best setting by its mean over seeds; ties go to the earlier one.

    Args:
      scores: [settings, seeds] validation scores, higher is better.
    """
    return int(np.argmax(np.nan_to_num(np.mean(scores, axis=1), nan=-np.inf)))
