"""What the lower layers of an encoder say about every token, kept on disk: fine-tuning the layers above starts there.

Lower layers that stay as they are say the same about a prompt in every epoch, fold and seed. They are run once; the
state of every token is a row of a store (`jaxgkd.teachers.store`), in float16, 2·d bytes a token: 230 MB for 300,000
tokens of a model of width 384. A store is memory-mapped, so that training holds one batch of it in memory, not all.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgkd import processes
from jaxgkd.errors import ConfigError, StoreError, UnsupportedModelError
from jaxgkd.language import Encoder
from jaxgkd.teachers.ahead import computed
from jaxgkd.teachers.extract import CHUNK_BYTES
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.manifest import Manifest, item_ids_hash
from jaxgkd.teachers.prompts import prompt_hash
from jaxgkd.teachers.store import Store, StoreWriter, store_path
from jaxgkd.teachers.token_batches import (
    ACCELERATOR_TOKENS,
    CPU_TOKENS,
    TokenRows,
    batch_shapes,
    plan_batches,
    tokenise,
    tokenizer_hash,
)
from jaxgkd.training.by_value import jitted

# Each shape is compiled for the lower layers, for training and for reading out.
MAX_SHAPES = 4


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Token states of distinct prompts, longest first, and which of them each prompt is.

    Fields:
      tokens: the distinct token sequences and the one of each prompt.
      shapes: batch shapes (b, t) that fit their lengths, shortest first.
      store: one item a token, in the order of the sequences.
      width: d, the size of a state.
    """

    tokens: TokenRows
    shapes: tuple[tuple[int, int], ...]
    store: Store
    width: int

    @property
    def n_bytes(self) -> int:
        """What the states take on disk."""
        return 2 * self.width * int(self.tokens.offsets[-1])

    def batch(self, rows: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """States [b, t, d] float32 and mask [b, t] int32 of sequences; what is over is zeros, with one token unmasked.

        Args:
          rows: [at most b] numbers of sequences, none of more than t tokens.
          shape: (b, t).
        """
        states, mask = np.zeros((*shape, self.width), np.float32), np.zeros(shape, np.int32)
        lengths = self.tokens.lengths[rows]
        mask[: len(rows)] = np.arange(shape[1]) < lengths[:, None]
        # The padding is filled in below: until then the mask says where the states belong.
        firsts = np.repeat(self.tokens.offsets[rows] - np.cumsum(lengths) + lengths, lengths)
        states[mask > 0] = self.store.read(firsts + np.arange(lengths.sum()))[:, 0]
        mask[len(rows) :, 0] = 1
        return states, mask

    def batches(self, rows: np.ndarray) -> Iterator[tuple[int, int, tuple[np.ndarray, np.ndarray]]]:
        """(first, end, batch) over all of ``rows``, which must be sorted, in the fewest padded tokens."""
        for first, end, shape in plan_batches(self.tokens.lengths[rows], self.shapes, 0, len(rows)):
            yield first, end, self.batch(rows[first:end], shape)


def lower_part(model: object, layer: int) -> Encoder:
    """The embeddings and the first ``layer`` layers of an encoder; its last hidden state is number ``layer``.

    Raises:
      UnsupportedModelError: the model is no post-norm encoder.
    """
    model = _encoder(model)
    weights = model.weights()
    layers = {name: stack[:layer] for name, stack in weights["layers"].items()}
    return Encoder(replace(model.config, n_layers=layer), {"embeddings": weights["embeddings"], "layers": layers})


def upper_part(model: object, layer: int) -> Encoder:
    """The layers above hidden state ``layer``, in float32 and without embeddings: only ``states_from`` can be asked.

    Raises:
      UnsupportedModelError: the model is no post-norm encoder.
    """
    model = _encoder(model)
    layers = {name: stack[layer:].astype(jnp.float32) for name, stack in model.weights()["layers"].items()}
    return Encoder(replace(model.config, n_layers=model.n_layers - layer), {"embeddings": {}, "layers": layers})


def _encoder(model: object) -> Encoder:
    if not isinstance(model, Encoder):
        raise UnsupportedModelError(
            f"a model of type {type(model).__name__} cannot be tuned", mend="choose a BERT, RoBERTa or DistilBERT"
        )
    return model


def token_states(
    encoder: TextEncoder,
    prompts: Sequence[str],
    *,
    layer: int,
    max_tokens: int,
    root: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> TokenStates:
    """Run the lower layers of an encoder over prompts, or read what they said before.

    Args:
      encoder: the language model; it is not changed.
      prompts: [n] texts.
      layer: which hidden state, 0 (embeddings) to n_layers.
      max_tokens: longer prompts are cut.
      root: folder of stores; the user's cache by default.
      on_line: called with a line before the model is run.

    Raises:
      StoreError: the store cannot be written or is damaged, or a state is beyond float16.
      ConfigError: ``max_tokens`` or ``layer`` does not fit the model.
      UnsupportedModelError: the model is no post-norm encoder.
    """
    model = encoder.model
    if max_tokens > model.max_tokens:
        raise ConfigError(f"the model reads {model.max_tokens} tokens", field="max_tokens", mend="allow fewer")
    if not 0 <= layer <= model.n_layers:
        raise ConfigError(f"there is no hidden state {layer}", field="layer", mend=f"count from 0 to {model.n_layers}")
    tokens = tokenise(encoder.tokenizer, prompts, max_tokens=max_tokens)
    batch_tokens, shape_tokens = CPU_TOKENS if jax.default_backend() == "cpu" else ACCELERATOR_TOKENS
    shapes = batch_shapes(
        tokens.lengths,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        shape_tokens=shape_tokens,
        max_shapes=MAX_SHAPES,
    )
    items = [f"{row}.{i}" for row, length in enumerate(tokens.lengths.tolist()) for i in range(length)]
    text_hash = prompt_hash(prompts)
    manifest = Manifest(
        teacher_id=encoder.name,
        weights_hash=encoder.weights_hash,
        tokenizer_hash=tokenizer_hash(encoder.tokenizer),
        prompt_hash=text_hash,
        data_sha256=text_hash,
        item_ids_hash=item_ids_hash(items),
        n_items=len(items),
        n_rows=len(items),
        pooling="every token",
        layers=(layer,),
        width=model.width,
        max_tokens=max_tokens,
    )
    folder = store_path(root, manifest)
    with processes.leader_first("token-states"):
        try:
            store = Store.open(folder)
        except StoreError:
            with StoreWriter(folder, manifest, items) as writer:
                if on_line is not None:
                    on_line(f"running {layer} of {model.n_layers} layers over {len(items):,} tokens, once")
                for start, stop in writer.missing():
                    _fill(writer, lower_part(model, layer), tokens, shapes, start, stop)
                store = writer.finish({"seconds": round(writer.seconds, 3), "n_tokens": len(items)})
    return TokenStates(tokens, shapes, store, model.width)


def _fill(writer: StoreWriter, lower: Encoder, tokens: TokenRows, shapes, start: int, stop: int) -> None:
    """Write the missing tokens start..stop - 1; chunks end where sequences do, and so do gaps."""
    begun = time.perf_counter()
    graphdef, state = nnx.split(lower)

    @jitted
    def last_state(state: nnx.State, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state).hidden_states(ids, mask)[-1].astype(jnp.float16)

    states = partial(last_state, state)
    first_row, last_row = np.searchsorted(tokens.offsets, (start, stop)).tolist()
    held: list[np.ndarray] = []
    batches = plan_batches(tokens.lengths, shapes, first_row, last_row)
    for first, end, values in computed(states, tokens, batches, on_mesh=False):
        real = np.arange(values.shape[1]) < tokens.lengths[first:end, None]
        held.append(values[real])
        if end == last_row or sum(each.nbytes for each in held) >= CHUNK_BYTES:
            chunk = np.concatenate(held)[:, None]
            now = time.perf_counter()
            writer.write(int(tokens.offsets[end]) - len(chunk), chunk, seconds=now - begun)
            held, begun = [], now
