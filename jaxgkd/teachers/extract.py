"""Runs a language model over prompts and keeps one state a prompt and layer in a store.

The prompts are tokenised once, sorted by length and cut into batches of a few shapes, each with about the same number
of tokens. States are pooled on the device, and two batches are always queued there, so that it computes while the
host fills the next batch and writes the last chunk. Batches depend on the lengths alone: a run that was killed and
continued makes the same ones, and with them the same bytes, as a run that was not.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from jaxgkd.errors import ConfigError, DataError, StoreError
from jaxgkd.language.batches import Pooling
from jaxgkd.teachers.manifest import Manifest, check_same, item_ids_hash, read_document
from jaxgkd.teachers.prompts import bare_tokenizer, prompt_hash
from jaxgkd.teachers.store import Store, StoreWriter, store_path
from jaxgkd.training.devices import DATA, EVERYWHERE, put, put_rows, to_host
from jaxgkd.training.execution import execution
from jaxgkd.training.termination import deferred, leave_if_asked

# Tokens in a batch, and tokens that a small encoder computes in the time that one more shape takes to compile: a
# second or a few on either, but of very unlike speed.
CPU_TOKENS = (4096, 4096)
ACCELERATOR_TOKENS = (32768, 2**20)
MAX_SHAPES = 8
LENGTH_STEP = 8
BATCHES_AHEAD = 2
BATCHES_PER_CHUNK = 16
CHUNK_BYTES = 64 * 2**20
SECONDS_BETWEEN_LINES = 30.0


class PoolingModel(Protocol):
    """A Flax NNX language model that pools its own states."""

    @property
    def width(self) -> int:
        """d, the size of a state."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of layers; hidden states count from 0 (embeddings) to this."""
        ...

    @property
    def max_tokens(self) -> int:
        """The longest prompt it can read."""
        ...

    def pooled_states(
        self, input_ids: jax.Array, attention_mask: jax.Array, *, layers: tuple[int, ...], pooling: Pooling
    ) -> jax.Array:
        """States [b, len(layers), d] of token ids [b, t] whose mask [b, t] is 1 at real tokens, pooled over them."""
        ...


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


def plan_batches(
    lengths: np.ndarray, shapes: Sequence[tuple[int, int]], start: int, stop: int
) -> Iterator[tuple[int, int, tuple[int, int]]]:
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


def tokenizer_hash(tokenizer: Any) -> str:
    """The sha256 of everything a fast tokenizer does to a text, whatever truncation or padding it was left with."""
    return hashlib.sha256(bare_tokenizer(tokenizer).to_str().encode()).hexdigest()


def extract(
    model: PoolingModel,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    item_ids: Sequence[str],
    data_sha256: str,
    teacher_id: str,
    weights_hash: str,
    layers: Sequence[int],
    pooling: Pooling,
    max_tokens: int,
    folder: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    dtype: str = "float16",
    batch_tokens: int | None = None,
    progress: bool = True,
    on_line: Callable[[str], None] | None = None,
) -> Store:
    """Run a model over prompts and return the store of its pooled states, continuing or reusing one that is there.

    ``store.report`` says what it cost: ``seconds`` (tokenising and compiling included, all sittings added up),
    ``n_tokens``, ``n_padded_tokens`` (what they came to with padding), ``tokens_per_second``, ``n_truncated`` and
    ``n_distinct`` prompts, and ``shapes`` (b, t).

    Args:
      model: an NNX module, split once; it is not changed.
      tokenizer: its fast tokenizer.
      prompts: [n] texts; ones with equal tokens are computed once. An empty one is its special tokens.
      item_ids: [n] what each prompt is about.
      data_sha256: hash of the data set the prompts were made from.
      teacher_id: name of the teacher, for people.
      weights_hash: hash over its weights, configuration and the dtype it computes in.
      layers: which hidden states; 0 is the embeddings, n_layers or -1 the last one.
      pooling: over a prompt's real tokens, see ``language.pool``.
      max_tokens: longer prompts are cut; the report counts them.
      folder: where to write, by default the folder below ``root`` that belongs to this content (`store_path`).
      root: folder of stores, by default the user's cache.
      dtype: "float16" (finer than bfloat16, refuses values beyond 65504), "bfloat16" or "float32" on disk.
      batch_tokens: tokens in a batch, 4096 on CPU and 32768 on an accelerator by default. Another value moves the
        last bits of the states, so bytes compare between runs with the same one.
      progress: draw a progress bar where stderr is a terminal.
      on_line: called with a line of progress twice a minute.

    Raises:
      StoreError: the folder holds something else (the message names what differs), is being written, or cannot be.
      ConfigError: a layer, ``max_tokens``, ``dtype`` or the number of ids does not fit.
      DataError: a prompt has no token.
      Terminated: SIGTERM has come; what was computed is kept.
    """
    start_time = time.perf_counter()
    if len(item_ids) != len(prompts) or not prompts:
        raise ConfigError(f"{len(item_ids)} ids for {len(prompts)} prompts", field="item_ids", mend="give one id each")
    if max_tokens > model.max_tokens:
        raise ConfigError(f"the model reads {model.max_tokens} tokens", field="max_tokens", mend="allow fewer")
    item_ids = [str(item) for item in item_ids]
    manifest = Manifest(
        teacher_id=teacher_id,
        weights_hash=weights_hash,
        tokenizer_hash=tokenizer_hash(tokenizer),
        prompt_hash=prompt_hash(prompts),
        data_sha256=data_sha256,
        item_ids_hash=item_ids_hash(item_ids),
        n_items=len(item_ids),
        n_rows=0,
        pooling=pooling,
        layers=_layers(layers, model.n_layers),
        width=model.width,
        max_tokens=max_tokens,
        dtype=dtype,
    )
    folder = store_path(root, manifest) if folder is None else Path(folder)
    if (finished := _finished(folder, manifest)) is not None:
        return finished
    tokens = tokenise(tokenizer, prompts, max_tokens=max_tokens)
    manifest = replace(manifest, n_rows=len(tokens.lengths))
    mesh = execution().mesh
    default_batch, shape_tokens = CPU_TOKENS if jax.default_backend() == "cpu" else ACCELERATOR_TOKENS
    shapes = batch_shapes(
        tokens.lengths,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens or default_batch * (1 if mesh is None else mesh.shape[DATA]),
        shape_tokens=shape_tokens,
    )
    states = _states_function(model, manifest, mesh)

    with StoreWriter(folder, manifest, item_ids, tokens.rows) as writer:
        batches = [batch for gap in writer.missing() for batch in plan_batches(tokens.lengths, shapes, *gap)]
        gap_ends = {stop for _, stop in writer.missing()}
        row_bytes = len(manifest.layers) * manifest.width * np.dtype(jnp.dtype(dtype)).itemsize
        done = int(tokens.offsets[-1]) - sum(int(tokens.offsets[b] - tokens.offsets[a]) for a, b, _ in batches)
        held: list[np.ndarray] = []
        # Whoever asks the process to leave waits for the chunk that is being computed.
        with deferred(), _Reporter(int(tokens.offsets[-1]), done, progress=progress, on_line=on_line) as reporter:
            for first, stop, values in _in_order(states, tokens, batches):
                held.append(values)
                reporter.advance(int(tokens.offsets[stop] - tokens.offsets[first]))
                n_held = sum(map(len, held))
                if len(held) == BATCHES_PER_CHUNK or n_held * row_bytes >= CHUNK_BYTES or stop in gap_ends:
                    now = time.perf_counter()
                    writer.write(stop - n_held, np.concatenate(held), seconds=now - start_time)
                    held, start_time = [], now
                    leave_if_asked()
        planned = plan_batches(tokens.lengths, shapes, 0, manifest.n_rows)
        used = [shape for _, _, shape in planned]
        return writer.finish(
            {
                "seconds": round(writer.seconds, 3),
                "n_tokens": int(tokens.offsets[-1]),
                "n_padded_tokens": sum(b * t for b, t in used),
                "tokens_per_second": round(int(tokens.offsets[-1]) / max(writer.seconds, 1e-9), 1),
                "n_truncated": tokens.n_truncated,
                "n_distinct": manifest.n_rows,
                "shapes": sorted(set(used)),
            }
        )


def _layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    if not layers or not all(-n_layers - 1 <= layer <= n_layers for layer in layers):
        raise ConfigError(f"{tuple(layers)} is not within 0..{n_layers}", field="layers", mend="count embeddings as 0")
    return tuple(layer % (n_layers + 1) for layer in layers)


def _finished(folder: Path, manifest: Manifest) -> Store | None:
    """The complete and undamaged store in a folder, if there is one; anything less is the writer's business."""
    try:
        store = Store.open(folder)
    except StoreError:
        return None
    check_same(folder, manifest, read_document(folder))
    return store


def _states_function(
    model: PoolingModel, manifest: Manifest, mesh: Mesh | None
) -> Callable[[np.ndarray, np.ndarray], jax.Array]:
    graphdef, state = nnx.split(model)
    if mesh is not None:
        # Weights that were loaded onto the mesh stay where they are.
        there = lambda leaf: getattr(leaf.sharding, "mesh", None) == mesh  # noqa: E731
        state = jax.tree.map(lambda leaf: leaf if there(leaf) else put(leaf, mesh, EVERYWHERE), state)
    asked = {"layers": manifest.layers, "pooling": manifest.pooling, "dtype": manifest.dtype}
    return lambda *batch: _pooled(graphdef, state, *put_rows(batch, mesh), **asked)


# Compiled once per model and shape, however often a model is asked: prompts, names of classes, other data.
@partial(jax.jit, static_argnames=("graphdef", "layers", "pooling", "dtype"))
def _pooled(
    graphdef: Any,
    state: nnx.State,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    *,
    layers: tuple[int, ...],
    pooling: Pooling,
    dtype: str,
) -> jax.Array:
    states = nnx.merge(graphdef, state).pooled_states(input_ids, attention_mask, layers=layers, pooling=pooling)
    return states.astype(dtype)


def _in_order(
    states: Callable[[np.ndarray, np.ndarray], jax.Array],
    tokens: TokenRows,
    batches: Sequence[tuple[int, int, tuple[int, int]]],
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The states [stop - first, layers, width] of every batch, while the device is always a few batches ahead."""
    queue: deque[tuple[int, int, jax.Array]] = deque()
    for first, stop, shape in batches:
        values = states(*tokens.batch(first, stop, shape))
        if values.is_fully_addressable:
            values.copy_to_host_async()
        queue.append((first, stop, values))
        if len(queue) > BATCHES_AHEAD:
            first, stop, values = queue.popleft()
            yield first, stop, to_host(values)[: stop - first]
    for first, stop, values in queue:
        yield first, stop, to_host(values)[: stop - first]


class _TokensPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} tokens/s")


class _Reporter:
    """A progress bar on a terminal, and a line every so often for whoever asked for lines."""

    def __init__(self, total: int, done: int, *, progress: bool, on_line: Callable[[str], None] | None):
        self.total, self.done, self.on_line = total, done, on_line
        self.begun = self.last_line = time.perf_counter()
        self.done_before = done
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), _TokensPerSecond(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console) if progress and console.is_terminal else None

    def __enter__(self) -> _Reporter:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("Asking the teacher", total=self.total, completed=self.done)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, n_tokens: int) -> None:
        self.done += n_tokens
        if self.bar is not None:
            self.bar.advance(self.task, n_tokens)
        now = time.perf_counter()
        if self.on_line is not None and now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            speed = (self.done - self.done_before) / (now - self.begun)
            left = (self.total - self.done) / speed
            self.on_line(f"{self.done:,} of {self.total:,} tokens, {speed:,.0f} tokens/s, {left:,.0f} s left")
