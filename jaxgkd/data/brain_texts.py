"""Brains in words, by template: what is unusual about one subject's connectivity, against the training subjects.

Every sentence is about one subject and a reference that was fitted on training subjects; neither labels nor any other
subject take part. Readers cut texts off, so what tells most comes first: networks, connections, then the graph.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxgkd.data.brain_measures import MEASURES, Profiles
from jaxgkd.data.brain_words import region_words
from jaxgkd.data.brains import Brains
from jaxgkd.errors import DataError

# Below it a deviation is not worth a word.
USUAL = 0.7
_DEGREES = ((1.3, "slightly "), (2.0, ""), (3.0, "much "), (np.inf, "extremely "))
# A connection that hardly varies in training would look extreme for nothing.
_SMALLEST_STD = 1e-3
_FEWEST = 3


@dataclass(frozen=True)
class Description:
    """What is said of one subject.

    Fields:
      key_features: short statements, the most telling first.
      conclusion: a sentence that sums them up.
    """

    key_features: tuple[str, ...]
    conclusion: str

    @property
    def text(self) -> str:
        """Conclusion and features as one text."""
        return " ".join([self.conclusion, *self.key_features])

    def as_dict(self) -> dict[str, list[str] | str]:
        """As in a JSON file of descriptions."""
        return {"key_features": list(self.key_features), "conclusion": self.conclusion}


@dataclass(frozen=True)
class Length:
    """How many things of each kind are named."""

    networks: int = 3
    atypical: int = 1
    strongest: int = 1


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and standard deviation [p] over training subjects."""

    mean: np.ndarray
    std: np.ndarray

    def z(self, values: np.ndarray) -> np.ndarray:
        """Deviations of values [..., p] in standard deviations."""
        return (values - self.mean) / self.std


def spread(values: np.ndarray) -> Spread:
    """Of values [n, p] of training subjects."""
    values = np.asarray(values, np.float64)
    return Spread(values.mean(axis=0), np.maximum(values.std(axis=0), _SMALLEST_STD))


@dataclass(frozen=True, eq=False)
class TextReference:
    """What is usual among training subjects.

    Fields:
      regions: [r] names, to which other brains must agree.
      connections: [r (r − 1) / 2] of every connection.
      averages: [q] of the averages of network pairs.
      measures: [6] of `brain_measures.MEASURES`.
    """

    regions: tuple[str, ...]
    connections: Spread
    averages: Spread
    measures: Spread

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Regions that the connections join."""
        return np.triu_indices(len(self.regions), 1)

    def connection(self, number: int) -> str:
        """The regions a connection joins, in words."""
        return " – ".join(region_words(self.regions[int(end[number])]) for end in self.ends)


def fit_text_reference(brains: Brains, profiles: Profiles, train: np.ndarray) -> TextReference:
    """What is usual among training subjects.

    Args:
      brains: the cohort; profiles: of all its subjects.
      train: rows of the training subjects.

    Raises:
      DataError: there are fewer than three of them.
    """
    if len(train) < _FEWEST:
        raise DataError(f"{len(train)} training subjects tell nothing of what is usual", mend=f"give {_FEWEST} or more")
    averages, measures = profiles.averages.values[train], profiles.measures[train]
    return TextReference(brains.regions, spread(brains.upper[train]), spread(averages), spread(measures))


def describe_subjects(
    brains: Brains,
    profiles: Profiles,
    reference: TextReference,
    rows: Sequence[int] | np.ndarray,
    length: Length | None = None,
) -> list[Description]:
    """Descriptions of some subjects, about 100 tokens of a WordPiece tokenizer at the default length.

    Args:
      brains: the cohort; profiles: of all its subjects.
      reference: of its training subjects.
      rows: whom to describe; what is said of one does not depend on the others.
      length: how much is named.

    Raises:
      DataError: the reference is of other regions.
    """
    if brains.regions != reference.regions:
        what = f"{brains.name} has other regions than the training subjects of the reference"
        raise DataError(what, mend="fit the reference again")
    words = profiles.averages.words()
    return [_describe(brains, profiles, reference, row, words, length or Length()) for row in rows]


def _describe(
    brains: Brains, profiles: Profiles, reference: TextReference, row: int, words: Sequence[str], length: Length
) -> Description:
    upper = brains.upper[row].astype(np.float64)
    z = reference.connections.z(upper)
    z_averages = reference.averages.z(profiles.averages.values[row])
    z_measures = reference.measures.z(profiles.measures[row])
    unusual = [j for j in most(z_averages, length.networks) if abs(z_averages[j]) >= USUAL]
    networks = [f"{words[j]} {comparative(z_averages[j])}" for j in unusual]
    atypical = [
        f"{reference.connection(j)} {comparative(z[j])} ({upper[j]:.2f} for {reference.connections.mean[j]:.2f})"
        for j in most(z, length.atypical)
    ]
    strongest = [f"{reference.connection(j)} ({upper[j]:.2f})" for j in first(-upper, length.strongest)]
    features = (
        _sentence("Networks", networks or ["all as usual"]),
        _sentence("Most atypical", atypical),
        _sentence("Graph", _unusual_measures(z_measures) or ["all measures as usual"]),
        _sentence("Strongest", strongest),
    )
    return Description(tuple(filter(None, features)), _conclusion(z_averages, z_measures, words))


def comparative(z: float) -> str:
    """How a value compares, in words.

    >>> [comparative(z) for z in (0.2, 1.0, -1.5, -2.5, 4.0)]
    ['usual', 'slightly stronger', 'weaker', 'much weaker', 'extremely stronger']
    """
    if abs(z) < USUAL:
        return "usual"
    return next(word for limit, word in _DEGREES if abs(z) < limit) + ("stronger" if z > 0 else "weaker")


def most(values: np.ndarray, count: int) -> list[int]:
    """Positions of the ``count`` values furthest from 0; of equal ones the first."""
    return first(-np.abs(values), count)


def first(values: np.ndarray, count: int) -> list[int]:
    """Positions of the ``count`` smallest values in their order; of equal ones the first."""
    count = min(count, len(values))
    if not count:
        return []
    limit = np.partition(values, count - 1)[count - 1]
    near = np.flatnonzero(values <= limit)
    return near[np.argsort(values[near], kind="stable")][:count].tolist()


def _unusual_measures(z: np.ndarray) -> list[str]:
    order = [j for j in most(z, len(z)) if abs(z[j]) >= USUAL][:3]
    return [f"{MEASURES[j]} {_height(z[j])}" for j in order]


def _height(z: float) -> str:
    return next(word for limit, word in _DEGREES if abs(z) < limit) + ("high" if z > 0 else "low")


def _conclusion(z_averages: np.ndarray, z_measures: np.ndarray, words: Sequence[str]) -> str:
    overall = comparative(z_measures[0])
    opening = f"Overall connectivity is {overall if overall == 'usual' else overall + ' than usual'}"
    rest = z_averages - np.median(z_averages)
    leading = most(rest, 1)[0]
    if len(z_averages) < 2 or abs(rest[leading]) < USUAL:
        return f"{opening}."
    return f"{opening}; beside that, connectivity {words[leading]} is {comparative(rest[leading])}."


def _sentence(title: str, parts: Iterable[str]) -> str:
    joined = "; ".join(parts)
    return f"{title}: {joined}." if joined else ""
