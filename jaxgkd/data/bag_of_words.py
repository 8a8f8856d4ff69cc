"""Texts as TF-IDF vectors: the plain features a student has when its data brings none.

For term t in text d, with n texts of which df(t) hold the term:
``idf(t) = ln((1 + n) / (1 + df(t))) + 1`` and ``x[d, t] = count(t in d) · idf(t)``, rows scaled to length 1.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import scipy.sparse

from jaxgkd.errors import DataError
from jaxgkd.whole_file import write_whole

_TOKEN = re.compile(r"\b\w\w+\b")


@dataclass(frozen=True)
class Vocabulary:
    """The terms of a bag of words, fitted once and reused for new texts.

    Attributes:
      terms: terms in alphabetical order; column i of a transformed text belongs to term i.
      idf: inverse document frequency of every term.
    """

    terms: tuple[str, ...]
    idf: tuple[float, ...]

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {term: i for i, term in enumerate(self.terms)}

    def transform(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        """TF-IDF vectors [n, terms] float32 of length 1; zero where a text holds none of the terms."""
        columns, counts, starts = [], [], [0]
        for text in texts:
            found = Counter(self._column_of[token] for token in _tokens(text) if token in self._column_of)
            columns += sorted(found)
            counts += [found[column] for column in sorted(found)]
            starts.append(len(columns))
        indices = np.array(columns, np.int32)
        values = np.array(counts, np.float64) * np.array(self.idf)[indices]
        rows = np.repeat(np.arange(len(texts)), np.diff(starts))
        norms = np.sqrt(np.bincount(rows, values**2, minlength=len(texts)))
        values /= norms[rows]
        shape = (len(texts), len(self.terms))
        return scipy.sparse.csr_array((values.astype(np.float32), indices, np.array(starts, np.int32)), shape=shape)

    def to_json(self) -> str:
        """Terms and idf as JSON."""
        return json.dumps({"terms": self.terms, "idf": self.idf}, ensure_ascii=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes `to_json`."""
        write_whole(Path(path), self.to_json().encode())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Vocabulary":
        """Reads what ``save`` wrote. Raises DataError when it is missing or damaged."""
        try:
            return cls.from_json(Path(path).read_bytes(), path)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", file=path, mend="check the path") from error

    @classmethod
    def from_json(cls, text: bytes, path: str | PathLike[str]) -> "Vocabulary":
        """What `to_json` gave, in UTF-8. Raises DataError, which names ``path``, when it is damaged."""
        try:
            content = json.loads(text.decode("utf-8"))
            terms, idf = tuple(map(str, content["terms"])), tuple(map(float, content["idf"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("is not a saved vocabulary", file=path, mend="fit it again") from error
        if len(terms) != len(idf) or len(set(terms)) < len(terms) or not terms or not np.isfinite(idf).all():
            raise DataError("is a damaged vocabulary", file=path, mend="fit it again")
        return cls(terms, idf)


def fit(
    texts: Sequence[str],
    *,
    min_documents: int = 2,
    max_document_share: float = 1.0,
    max_features: int | None = None,
) -> Vocabulary:
    """Collects the terms of ``texts``: runs of two or more letters, digits or underscores, in lower case.

    Args:
      texts: the texts; their labels play no part, so unlabelled ones belong here too.
      min_documents: terms in fewer texts are left out.
      max_document_share: terms in a larger share of the texts are left out.
      max_features: keep the terms that occur most often in all texts, the alphabet deciding between equals; None keeps
        all.

    Raises:
      DataError: no term is left.
    """
    occurrences, documents = Counter(), Counter()
    for text in texts:
        counts = Counter(_tokens(text))
        occurrences.update(counts)
        documents.update(counts.keys())
    most = max_document_share * len(texts)
    kept = [term for term, df in documents.items() if min_documents <= df <= most]
    if not kept:
        mend = "lower min_documents, raise max_document_share or check the text columns"
        raise DataError(f"no word is in at least {min_documents} and at most {most:g} of the texts", mend=mend)
    kept = sorted(sorted(kept, key=lambda term: (-occurrences[term], term))[:max_features])
    idf = np.log((1 + len(texts)) / (1 + np.array([documents[term] for term in kept]))) + 1
    return Vocabulary(tuple(kept), tuple(idf.tolist()))


def _tokens(text: str) -> Iterable[str]:
    return _TOKEN.findall(text.lower())
