"""Prompts as token sequences, sorted by length and cut into batches of a few shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.teachers.prompts import bare_tokenizer

# Tokens in a batch, and tokens that a small encoder computes in the time that one more shape takes to compile: a
# second or a few on either, but of very unlike speed. A CPU has a batch in every thread, and compiles beside others.
CPU_TOKENS = (2048, 2048)
ACCELERATOR_TOKENS = (32768, 2**20)
MAX_SHAPES = 16
LENGTH_STEP = 8

# First row, end, and the shape (b, t) that its rows are padded to.
Batch = tuple[int, int, tuple[int, int]]


@dataclass(frozen=True)
class TokenRows:
    """Distinct token sequences, longest first, and which of them each prompt became.

    Attributes:
      ids: all sequences one after another, int32.
      offsets: [n_rows + 1] where each begins in `ids`.
      rows: [n_items] the sequence of each prompt.
      n_truncated: prompts that were longer than the limit.
    """

    ids: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    n_truncated: int

    @property
    def lengths(self) -> np.ndarray:
        """[n_rows] tokens of each sequence."""
        return np.diff(self.offsets)

    def batch(self, start: int, stop: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of sequences start..stop - 1 in a padded batch [b, t], both int32.

        A row that only pads has one token unmasked: a mean over no token would be 0 / 0.
        """
        ids, mask = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
        for i, (first, last) in enumerate(zip(self.offsets[start:stop], self.offsets[start + 1 :], strict=False)):
            ids[i, : last - first] = self.ids[first:last]
            mask[i, : last - first] = 1
        mask[stop - start :, 0] = 1
        return ids, mask


def tokenise(tokenizer: Any, prompts: Sequence[str], *, max_tokens: int) -> TokenRows:
    """Tokenise prompts with their special tokens, cut each at ``max_tokens``, and keep equal ones once.

    An empty prompt is its special tokens alone (for BERT, [CLS] [SEP]), which an encoder can read.

    Raises:
      DataError: a prompt has no token at all, as empty ones have for decoders without a start token.
      ConfigError: ``max_tokens`` has no room beside the special tokens.
    """
    bare = bare_tokenizer(tokenizer)
    special = bare.num_special_tokens_to_add(is_pair=False)
    if max_tokens <= special:
        raise ConfigError(f"{max_tokens} tokens hold no text", field="max_tokens", mend=f"allow more than {special}")
    bare.enable_truncation(max_tokens)
    known: dict[bytes, int] = {}
    sequences: list[np.ndarray] = []
    first_rows = np.zeros(len(prompts), dtype=np.int64)
    n_truncated = 0
    for start in range(0, len(prompts), 4096):
        for item, encoding in enumerate(bare.encode_batch_fast(list(prompts[start : start + 4096])), start):
            ids = np.array(encoding.ids, dtype=np.int32)
            if not ids.size:
                raise DataError(f"prompt {item} has no token", field="prompts", mend="leave empty texts out")
            n_truncated += bool(encoding.overflowing)
            row = known.setdefault(hashlib.blake2b(ids.tobytes(), digest_size=16).digest(), len(sequences))
            if row == len(sequences):
                sequences.append(ids)
            first_rows[item] = row
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return TokenRows(
        ids=np.concatenate([sequences[i] for i in order.tolist()] or [np.zeros(0, np.int32)]),
        offsets=np.concatenate([[0], np.cumsum(lengths[order])]),
        rows=place[first_rows],
        n_truncated=n_truncated,
    )


def batch_shapes(
    lengths: np.ndarray, *, max_tokens: int, batch_tokens: int, shape_tokens: int, max_shapes: int = MAX_SHAPES
) -> tuple[tuple[int, int], ...]:
    """The batch shapes (b, t), shortest first, that compute the fewest tokens for these lengths.

    Every b is the largest power of two for which b·t stays within ``batch_tokens``, so that a model which cuts batches
    into blocks has no remainder. Exact dynamic programme over the lengths rounded up to a multiple of 8: the
    padded tokens of all sequences, plus ``shape_tokens`` for each shape, since each is compiled once.

    Args:
      lengths: [n] tokens of each sequence.
      max_tokens: no shape is longer; a model may have no position beyond it.
      batch_tokens: tokens in a batch.
      shape_tokens: how many tokens could be computed in the time one more shape takes to compile.
      max_shapes: the most shapes.
    """
    rounded = np.minimum(-(-np.asarray(lengths) // LENGTH_STEP) * LENGTH_STEP, max_tokens)
    candidates, counts = np.unique(rounded, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    # best[j]: fewest tokens for the sequences of the first j candidate lengths; begin[k][j]: where the last of k
    # shapes, the one of length candidates[j - 1], begins.
    best = np.concatenate([[0.0], np.full(len(candidates), np.inf)])
    ends, costs = [], []
    for _ in range(min(max_shapes, len(candidates))):
        total = best[:-1, None] + candidates * (below[1:] - below[:-1, None]) + shape_tokens
        total[np.tril_indices(len(candidates), -1)] = np.inf
        ends.append(np.argmin(total, axis=0))
        best = np.concatenate([[np.inf], np.min(total, axis=0)])
        costs.append(best[-1])
    shapes, j = [], len(candidates)
    for k in range(int(np.argmin(costs)), -1, -1):
        length = int(candidates[j - 1])
        fitting = max(1, min(batch_tokens // length, 2 * len(rounded) - 1))
        shapes.append((1 << (fitting.bit_length() - 1), length))
        j = int(ends[k][j - 1])
    return tuple(reversed(shapes))


def plan_batches(lengths: np.ndarray, shapes: Sequence[tuple[int, int]], start: int, stop: int) -> Iterator[Batch]:
    """Batches (first row, end, shape) over rows start..stop - 1 of sequences sorted longest first.

    Each batch takes the shortest shape that holds its first row and fills it. Where it begins is all that decides what
    it is, which makes a continued run equal to an undisturbed one.
    """
    tops = np.array([length for _, length in shapes])
    while start < stop:
        shape = shapes[int(np.searchsorted(tops, lengths[start]))]
        end = min(start + shape[0], stop)
        yield start, end, shape
        start = end


def share_of(batches: Sequence[Batch], part: int, n_parts: int) -> list[Batch]:
    """The batches of one of several parts, which follow each other and compute about as many tokens each."""
    ends = np.cumsum([rows * length for _, _, (rows, length) in batches]) if batches else np.zeros(0)
    whole = ends[-1] if batches else 0
    # A batch belongs to the part that its middle lies in.
    middles = ends - 0.5 * np.diff(ends, prepend=0)
    inside = np.flatnonzero((middles * n_parts >= whole * part) & (middles * n_parts < whole * (part + 1)))
    return [batches[i] for i in inside.tolist()]


def tokenizer_hash(tokenizer: Any) -> str:
    """The sha256 of everything a fast tokenizer does to a text, whatever truncation or padding it was left with."""
    return hashlib.sha256(bare_tokenizer(tokenizer).to_str().encode()).hexdigest()
