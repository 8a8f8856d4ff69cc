"""What a teacher store says of itself: the manifest, its identity, and how manifest.json is read and compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd import __version__
from jaxgkd.errors import ConfigError, StoreError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
HIDDEN = "hidden"
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
"""The dtypes a store can round to, and what they are on disk; .npy does not know bfloat16, so its 16 bits are kept."""

AGAIN = "delete the folder and extract again"
_NOT_IDENTITY = ("teacher_id", "n_rows", "created_by")
_CHANGED = {
    "data_sha256": "made from other data",
    "item_ids_hash": "made for other items",
    "weights_hash": "made with other weights",
    "tokenizer_hash": "made with another tokenizer",
    "prompt_hash": "made from other prompts",
}


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_count, value))


def _hashes(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _chunk(value: Any) -> bool:
    """Whether a value of manifest.json says where some rows lie."""
    if not isinstance(value, dict) or not all(_count(value.get(end)) for end in ("start", "stop")):
        return False
    files, seconds = value.get("files"), value.get("seconds")
    if not isinstance(files, dict) or not isinstance(seconds, int | float):
        return False
    named = all(_hashes(each) and {"file", "sha256"} <= set(each) for each in files.values())
    return named and HIDDEN in files and value["start"] < value["stop"]


_TEXTS = ("teacher_id", "weights_hash", "tokenizer_hash", "prompt_hash", "data_sha256", "item_ids_hash", "pooling")
# What every field of manifest.json is, as other programs may write it too.
_KINDS: dict[str, Callable[[Any], bool]] = {
    **{name: lambda value: isinstance(value, str) for name in (*_TEXTS, "created_by")},
    **dict.fromkeys(("n_items", "n_rows", "width", "max_tokens"), _count),
    "layers": _counts,
    "dtype": lambda value: isinstance(value, str) and value in DTYPES,
    "extras": lambda value: isinstance(value, dict) and all(map(_counts, value.values())),
    "files": lambda value: _hashes(value) and {"items.json", "rows.npy"} <= set(value),
    "chunks": lambda value: isinstance(value, list) and all(map(_chunk, value)),
    "report": lambda value: value is None or isinstance(value, dict),
}


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and by which it is found: all fields identify it but the last, `teacher_id` and `n_rows`.

    Attributes:
      teacher_id: name or path of the teacher, for people.
      weights_hash: hash over its weights and configuration.
      tokenizer_hash: hash of its tokenizer.
      prompt_hash: `prompts.prompt_hash` of the prompts, in the items' order.
      data_sha256: hash of the data set the prompts were made from.
      item_ids_hash: `item_ids_hash` of the items.
      n_items: number of items.
      n_rows: number of rows stored, at most `n_items`.
      pooling: how the states of a prompt's tokens become one.
      layers: index of each stored layer in the order of ``hidden_states`` (0 is the embeddings).
      width: size of a state.
      max_tokens: prompts were cut to this many tokens.
      dtype: "float32", "float16" or "bfloat16", as stored.
      extras: shape of one row of every array beside the hidden states, such as {"log_probs": (7,)}.
      created_by: version that made it.
    """

    teacher_id: str
    weights_hash: str
    tokenizer_hash: str
    prompt_hash: str
    data_sha256: str
    item_ids_hash: str
    n_items: int
    n_rows: int
    pooling: str
    layers: tuple[int, ...]
    width: int
    max_tokens: int
    dtype: str = "float16"
    extras: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    created_by: str = f"jaxgkd {__version__}"

    def __post_init__(self):
        """Refuse what could not be written.

        Raises:
          ConfigError: an unknown dtype, or a name of an extra array that is not a plain word.
        """
        if self.dtype not in DTYPES:
            raise ConfigError(f"'{self.dtype}' is not one of {', '.join(DTYPES)}", field="dtype", mend="choose one")
        for name in self.extras:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == HIDDEN:
                raise ConfigError(f"'{name}' cannot name an array", field="extras", mend="use lower-case words")

    def identity(self) -> dict[str, Any]:
        """The fields that identify the content, as plain JSON values."""
        plain = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in plain.items() if name not in _NOT_IDENTITY} | {"format": FORMAT_VERSION}

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape of one row and dtype on disk of the hidden states and of every extra array, by name."""
        on_disk = np.dtype(DTYPES[self.dtype])
        extras = {name: (tuple(shape), np.dtype(np.float32)) for name, shape in self.extras.items()}
        return {HIDDEN: ((len(self.layers), self.width), on_disk), **extras}


def item_ids_hash(item_ids: Sequence[str]) -> str:
    """The sha256 of a list of item ids, order included."""
    return hashlib.sha256(json.dumps(list(item_ids)).encode()).hexdigest()


def read_document(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The content of a folder's manifest.json: the manifest's fields, ``files``, ``chunks`` and ``report``.

    Args:
      folder: of the store; name: of a document of the same kind.

    Raises:
      StoreError: it is missing, cut off, changed by hand or in another format.
    """
    path = folder / name
    if not path.is_file():
        raise StoreError("there is no store", file=folder, mend="run the extraction first")
    try:
        document = json.loads(path.read_bytes())
        version, seal = document["format"], document.pop("seal")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StoreError("is cut off or is no store's manifest", file=path, mend=AGAIN) from None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"has format {version}, this version reads {FORMAT_VERSION}", file=path, field="format", mend=AGAIN
        )
    if seal != seal_of(document):
        raise StoreError("was changed after it was written", file=path, mend=AGAIN)
    for name, is_right in _KINDS.items():
        if name not in document or not is_right(document[name]):
            what = "is no such field" if name in document else "lacks a field"
            raise StoreError(what, file=path, field=name, mend=AGAIN)
    return document


def manifest_of(folder: Path, document: Mapping[str, Any]) -> Manifest:
    """The manifest in a document.

    Args:
      folder: for errors; document: as `read_document` gives it.

    Raises:
      StoreError: an extra array has no plain name.
    """
    values = {each.name: document[each.name] for each in fields(Manifest)}
    extras = {name: tuple(shape) for name, shape in values.pop("extras").items()}
    try:
        return Manifest(**{**values, "layers": tuple(values.pop("layers"))}, extras=extras)
    except ConfigError as error:
        raise StoreError(str(error).rstrip("."), file=folder / MANIFEST, mend=AGAIN) from None


def check_same(folder: Path, wanted: Manifest, document: Mapping[str, Any]) -> None:
    """Compare what a folder holds with what is wanted.

    Raises:
      StoreError: they differ; the message names the first field that does.
    """
    found = manifest_of(folder, document).identity()
    for name, value in wanted.identity().items():
        if found[name] != value:
            what = _CHANGED.get(name, "made with other settings")
            raise StoreError(
                f"{what} ({_short(found[name])} instead of {_short(value)})",
                file=folder,
                field=name,
                mend="choose another folder, or delete this one",
            )


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 24 else str(value)


def seal_of(document: Mapping[str, Any]) -> str:
    """The sha256 of a document without its seal, kept with it so that no changed manifest is taken for a whole one."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
