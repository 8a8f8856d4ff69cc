"""Runs a language model over prompts and keeps one state a prompt and layer in a store.

The prompts are tokenised once, sorted by length and cut into batches of a few shapes, each with about the same number
of tokens (`token_batches`). States are pooled on the device, which is always a few batches ahead (`ahead`) while the
host writes the last chunk. Batches depend on the lengths alone: a run that was killed and continued makes the same
ones, and with them the same bytes, as a run that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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

from jaxgkd import processes
from jaxgkd.errors import ConfigError, StoreError
from jaxgkd.language.batches import Pooling
from jaxgkd.teachers.ahead import computed
from jaxgkd.teachers.manifest import Manifest, check_same, item_ids_hash, read_document
from jaxgkd.teachers.prompts import prompt_hash
from jaxgkd.teachers.shared_store import SharedStoreWriter
from jaxgkd.teachers.store import Store, StoreWriter, store_path
from jaxgkd.teachers.token_batches import (
    ACCELERATOR_TOKENS,
    CPU_TOKENS,
    batch_shapes,
    plan_batches,
    share_of,
    tokenise,
    tokenizer_hash,
)
from jaxgkd.training.devices import DATA, EVERYWHERE, put, put_rows
from jaxgkd.training.execution import execution
from jaxgkd.training.termination import deferred, leave_if_asked

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
      batch_tokens: tokens in a batch, 2048 on CPU and 32768 on an accelerator by default. Another value moves the
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
    finished = _finished(folder, manifest) if processes.leading() else None
    if processes.decided(finished is not None, "extract"):
        return finished or Store.open(folder)
    tokens = tokenise(tokenizer, prompts, max_tokens=max_tokens)
    manifest = replace(manifest, n_rows=len(tokens.lengths))
    mesh = execution().language_mesh
    default_batch, shape_tokens = CPU_TOKENS if jax.default_backend() == "cpu" else ACCELERATOR_TOKENS
    shapes = batch_shapes(
        tokens.lengths,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens or default_batch * (1 if mesh is None else mesh.shape[DATA]),
        shape_tokens=shape_tokens,
    )
    states = _states_function(model, manifest, mesh)

    writer_of = StoreWriter if processes.count() == 1 else SharedStoreWriter
    with writer_of(folder, manifest, item_ids, tokens.rows) as writer:
        batches = [batch for gap in writer.missing() for batch in plan_batches(tokens.lengths, shapes, *gap)]
        batches = share_of(batches, processes.number(), processes.count())
        ends = {stop for _, stop in [*writer.missing(), *(batch[:2] for batch in batches[-1:])]}
        row_bytes = len(manifest.layers) * manifest.width * np.dtype(jnp.dtype(dtype)).itemsize
        total = int(tokens.offsets[-1])
        asked = sum(int(tokens.offsets[b] - tokens.offsets[a]) for a, b, _ in batches)
        held: list[np.ndarray] = []
        # Whoever asks the process to leave waits for the chunk that is being computed.
        with deferred(), _Reporter(total, total - asked, progress=progress, on_line=on_line) as reporter:
            for first, stop, values in computed(states, tokens, batches, on_mesh=mesh is not None):
                held.append(values)
                reporter.advance(int(tokens.offsets[stop] - tokens.offsets[first]))
                n_held = sum(map(len, held))
                if len(held) == BATCHES_PER_CHUNK or n_held * row_bytes >= CHUNK_BYTES or stop in ends:
                    now = time.perf_counter()
                    writer.write(stop - n_held, np.concatenate(held), seconds=now - start_time)
                    held, start_time = [], now
                    leave_if_asked()
        writer.collect()
        planned = plan_batches(tokens.lengths, shapes, 0, manifest.n_rows)
        used = [shape for _, _, shape in planned]
        return writer.finish(
            {
                "seconds": round(writer.seconds, 3),
                "n_tokens": total,
                "n_padded_tokens": sum(b * t for b, t in used),
                "tokens_per_second": round(total / max(writer.seconds, 1e-9), 1),
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
