"""What a language-model teacher is asked about a node: its own text, then its neighbourhood, one hop further at a time.

Hop 0 is the node's own text alone; hop h adds the titles of the nodes at distance 1..h. One template is for text
encoders, whose states are averaged over the prompt, and one for instruction-following decoders (LinguGKD, AAAI 2025).
Both cut by tokens, never by characters, so that no prompt loses its end to the model's length limit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tokenizers

from jaxgkd.errors import ConfigError
from jaxgkd.teachers.rings import Rings

INSTRUCTIONS = (
    "Read the item below and the titles of the items it is linked to, then name the one class it belongs to.",
    "The input describes one item of a network and what surrounds it. Which class does this item fall into?",
    "Decide to which of the candidate classes the item in the input belongs, using its own text and its neighbours.",
)
"""Phrasings of the task for `instruction_prompts`; features averaged over several depend less on any one wording."""

OWN_TEXT_SHARE = 2 / 3
"""Share of a prompt's free tokens that the node's own text may always fill before a neighbour's title is added."""

MAX_TITLE_TOKENS = 32
MIN_FREE_TOKENS = 8
SEPARATOR = "; "


class TitledTexts(Protocol):
    """The part of a text graph that prompts are made from: one text and one title a node."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What each node says of itself."""
        ...

    @property
    def titles(self) -> tuple[str, ...]:
        """The short form of each text, under which its neighbours mention it."""
        ...


class ClassifiedTexts(TitledTexts, Protocol):
    """Titled texts whose candidate classes are known."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the candidate classes."""
        ...


@dataclass(frozen=True)
class HopPrompts:
    """Prompts of one hop and what had to be left out to fit them.

    Attributes:
      texts: one prompt a node.
      n_tokens: [n] tokens of each, special tokens included; never above the limit they were made for.
      n_truncated: prompts that lost a part of the own text, a part of a title or a sampled neighbour.
      n_own_text_cut: prompts among them whose own text was cut.
      n_titles_dropped: neighbour titles left out, over all prompts.
    """

    texts: tuple[str, ...]
    n_tokens: np.ndarray
    n_truncated: int
    n_own_text_cut: int
    n_titles_dropped: int


def prompt_hash(prompts: Iterable[str]) -> str:
    """The sha256 of a sequence of prompts, order included, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for prompt in prompts:
        encoded = prompt.encode("utf-8", "surrogatepass")
        # The length goes first: without it ("ab", "c") and ("a", "bc") would be the same.
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def bare_tokenizer(tokenizer: Any) -> tokenizers.Tokenizer:
    """A private copy of a fast tokenizer without truncation or padding, so that the caller's own is left as it was.

    Args:
      tokenizer: one from `load_tokenizer`, a Hugging Face fast tokenizer, or a `tokenizers.Tokenizer`.

    Raises:
      ConfigError: the tokenizer has no fast implementation.
    """
    # Asked by attribute, not by type: whoever reads stores imports this package, and need not import language models.
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    backend = getattr(inner, "backend_tokenizer", inner)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise ConfigError(
            f"{type(tokenizer).__name__} is not a fast tokenizer",
            field="tokenizer",
            mend="use a model whose folder has a tokenizer.json",
        )
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def encoder_prompts(
    graph: TitledTexts,
    tokenizer: Any,
    *,
    hop: int = 0,
    rings: Rings | None = None,
    max_tokens: int = 256,
) -> HopPrompts:
    """Prompts for a text encoder: the own text, then one list of neighbour titles a distance.

    There is no instruction and no list of classes: the encoder's states are averaged over the prompt, and words that
    every prompt shares would only pull all nodes together.

    Args:
      graph: texts and titles.
      tokenizer: the encoder's fast tokenizer.
      hop: largest distance mentioned; 0 gives the own text.
      rings: neighbourhoods from `distance_rings`; their centres are the nodes asked about (all nodes without rings).
      max_tokens: limit, special tokens included.

    Raises:
      ConfigError: ``hop`` goes beyond the rings, or ``max_tokens`` leaves no room for text.
    """
    template = _Template("", "", "\nRelated: ", "\nRelated at distance {distance}: ")
    return _fit(graph, tokenizer, template, hop=hop, rings=rings, max_tokens=max_tokens)


def instruction_prompts(
    graph: ClassifiedTexts,
    tokenizer: Any,
    *,
    hop: int = 0,
    rings: Rings | None = None,
    max_tokens: int = 512,
    instruction: str = INSTRUCTIONS[0],
) -> HopPrompts:
    """Prompts for a decoder: instruction and candidate classes, the node and its neighbours, and an open response.

    The instruction, the classes and the response slot are never cut; the answer is what the model writes next.

    Args:
      graph: texts, titles and class names.
      tokenizer: the decoder's fast tokenizer.
      hop: largest distance mentioned; 0 gives the own text.
      rings: neighbourhoods from `distance_rings`; their centres are the nodes asked about (all nodes without rings).
      max_tokens: limit, special tokens included; leave room beside it for the answer.
      instruction: the task in words, by default the first of `INSTRUCTIONS`.

    Raises:
      ConfigError: ``hop`` goes beyond the rings, or instruction and classes leave no room for text.
    """
    classes = "; ".join(graph.class_names)
    template = _Template(
        f"### Instruction:\n{instruction}\nCandidate classes: {classes}.\n\n### Input:\n",
        "\n\n### Response:\n",
        "\nLinked directly: ",
        "\nLinked at distance {distance}: ",
    )
    return _fit(graph, tokenizer, template, hop=hop, rings=rings, max_tokens=max_tokens)


@dataclass(frozen=True)
class _Template:
    before: str
    after: str
    first_heading: str
    further_heading: str

    def heading(self, distance: int) -> str:
        return self.first_heading if distance == 1 else self.further_heading.format(distance=distance)


@dataclass(frozen=True)
class _Mentions:
    """Every neighbour that could be mentioned, centre by centre and nearest first, and what mentioning it costs.

    Centre i owns the slice offsets[i]:offsets[i + 1]; `cost` counts the tokens from its first neighbour up to here.
    """

    offsets: np.ndarray
    member: np.ndarray
    distance: np.ndarray
    cost: np.ndarray


def _fit(
    graph: TitledTexts, tokenizer: Any, template: _Template, *, hop: int, rings: Rings | None, max_tokens: int
) -> HopPrompts:
    if rings is None:
        rings = Rings(np.arange(len(graph.texts)), (), ())
    if not 0 <= hop <= rings.hops:
        raise ConfigError(f"hop {hop} is not within 0..{rings.hops} of the rings", field="hop", mend="make more rings")
    bare = bare_tokenizer(tokenizer)
    frame = len(bare.encode(template.before + template.after))
    free = max_tokens - frame
    if free < MIN_FREE_TOKENS:
        raise ConfigError(
            f"{max_tokens} tokens leave no room for text beside the {frame} of the fixed part",
            field="max_tokens",
            mend=f"allow at least {frame + MIN_FREE_TOKENS}",
        )
    share = math.ceil(OWN_TEXT_SHARE * free)
    texts = [graph.texts[i].strip() for i in rings.nodes.tolist()]
    own_tokens, own_ends = _token_ends(bare, texts, keep_above=share)
    used = np.unique(np.concatenate([np.zeros(0, np.int64), *rings.members[:hop]]))
    titles, title_tokens, shortened = _titles(bare, graph.titles, used)
    mentions = _mentions(bare, template, rings, hop, title_tokens)

    def assemble(i: int, budget: int) -> tuple[str, bool, int]:
        """The prompt of centre i with `budget` free tokens, whether its own text was cut, and titles kept."""
        first, last = mentions.offsets[i], mentions.offsets[i + 1]
        reserved = min(own_tokens[i], share, budget)
        kept = int(np.searchsorted(mentions.cost[first:last], budget - reserved, side="right"))
        own_budget = budget - (int(mentions.cost[first + kept - 1]) if kept else 0)
        cut = bool(own_tokens[i] > own_budget)
        parts = [template.before, _cut(texts[i], own_ends[i], own_budget) if cut else texts[i]]
        previous = 0
        for k in range(first, first + kept):
            distance = mentions.distance[k]
            parts += [SEPARATOR if distance == previous else template.heading(distance), titles[mentions.member[k]]]
            previous = distance
        return "".join([*parts, template.after]), cut, kept

    built = [assemble(i, free) for i in range(len(texts))]
    n_tokens = _token_counts(bare, [prompt for prompt, _, _ in built])
    budgets = np.full(len(texts), free)
    # Sub-words may merge or split at the seams, so a joined prompt can be a few tokens longer than its parts: those
    # that came out too long are put together again with that much less, neighbours going first.
    while (over := np.flatnonzero(n_tokens > max_tokens)).size:
        budgets[over] = np.maximum(budgets[over] - (n_tokens[over] - max_tokens), 0)
        for i in over.tolist():
            built[i] = assemble(i, int(budgets[i]))
        n_tokens[over] = _token_counts(bare, [built[i][0] for i in over])
    own_cut = np.array([cut for _, cut, _ in built], dtype=bool)
    kept = np.array([kept for _, _, kept in built], dtype=np.int64)
    dropped = np.diff(mentions.offsets) - kept
    title_cut = [shortened[mentions.member[a : a + k]].any() for a, k in zip(mentions.offsets, kept, strict=False)]
    return HopPrompts(
        texts=tuple(prompt for prompt, _, _ in built),
        n_tokens=n_tokens,
        n_truncated=int(np.sum(own_cut | (dropped > 0) | np.array(title_cut, dtype=bool))),
        n_own_text_cut=int(own_cut.sum()),
        n_titles_dropped=int(dropped.sum()),
    )


def _mentions(bare: tokenizers.Tokenizer, template: _Template, rings: Rings, hop: int, title_tokens: np.ndarray):
    centre = np.concatenate([np.repeat(np.arange(len(rings.nodes)), np.diff(o)) for o in rings.offsets[:hop]] or [[]])
    distance = np.repeat(np.arange(1, hop + 1), [len(members) for members in rings.members[:hop]])
    member = np.concatenate([np.zeros(0, np.int64), *rings.members[:hop]])
    named = title_tokens[member] > 0
    centre, distance, member = centre[named].astype(np.int64), distance[named], member[named]
    order = np.argsort(centre, kind="stable")
    centre, distance, member = centre[order], distance[order], member[order]
    headings = [template.heading(d) for d in range(1, hop + 1)]
    joint = np.array([0, *(len(bare.encode(text, add_special_tokens=False)) for text in [SEPARATOR, *headings])])
    opens = np.ones(len(member), dtype=bool)
    opens[1:] = (centre[1:] != centre[:-1]) | (distance[1:] != distance[:-1])
    total = np.cumsum(title_tokens[member] + np.where(opens, joint[distance + 1], joint[1]))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(centre, minlength=len(rings.nodes)))])
    before = np.concatenate([[0], total])[offsets[:-1]]
    return _Mentions(offsets, member, distance, total - np.repeat(before, np.diff(offsets)))


def _titles(
    bare: tokenizers.Tokenizer, titles: Sequence[str], used: np.ndarray
) -> tuple[dict[int, str], np.ndarray, np.ndarray]:
    """One-line titles of the used nodes, at most MAX_TITLE_TOKENS long; tokens of each node's, and which were cut."""
    lines = [" ".join(titles[i].split()) for i in map(int, used)]
    counts, ends = _token_ends(bare, lines, keep_above=MAX_TITLE_TOKENS)
    tokens, shortened = np.zeros(len(titles), dtype=np.int64), np.zeros(len(titles), dtype=bool)
    tokens[used], shortened[used] = np.minimum(counts, MAX_TITLE_TOKENS), counts > MAX_TITLE_TOKENS
    cut = [_cut(line, ends[k], MAX_TITLE_TOKENS) if k in ends else line for k, line in enumerate(lines)]
    return dict(zip(used.tolist(), cut, strict=True)), tokens, shortened


def _cut(text: str, ends: np.ndarray, n_tokens: int) -> str:
    return text[: ends[n_tokens - 1]].rstrip() if n_tokens > 0 else ""


def _token_counts(bare: tokenizers.Tokenizer, texts: Sequence[str]) -> np.ndarray:
    counts = [len(e) for part in _blocks(texts) for e in bare.encode_batch_fast(part)]
    return np.array(counts, dtype=np.int64)


def _token_ends(
    bare: tokenizers.Tokenizer, texts: Sequence[str], *, keep_above: int
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Token counts [n] without special tokens, and for the texts longer than `keep_above` where each token ends."""
    counts, ends = np.zeros(len(texts), dtype=np.int64), {}
    row = 0
    for part in _blocks(texts):
        for encoding in bare.encode_batch(part, add_special_tokens=False):
            counts[row] = len(encoding)
            if len(encoding) > keep_above:
                ends[row] = np.array([end for _, end in encoding.offsets], dtype=np.int32)
            row += 1
    return counts, ends


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    # An encoding holds every token as a string: whole corpora at once would take gigabytes.
    for start in range(0, len(texts), 4096):
        yield list(texts[start : start + 4096])
