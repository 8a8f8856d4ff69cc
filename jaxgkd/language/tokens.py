"""Text to token ids with the checkpoint's own tokenizer, padded into batches.

The tokenizer is Hugging Face's; no PyTorch is needed and transformers is imported only when one is loaded. Its files
are read from a folder on disk and no code of the checkpoint is run.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxgkd.errors import CheckpointError, ConfigError, DataError
from jaxgkd.language.checkpoint import file_hash
from jaxgkd.language.config import read_json
from jaxgkd.language.locate import resolve

Side = Literal["right", "left"]

# Everything a tokenizer's behaviour can depend on.
TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


class TokenBatch(NamedTuple):
    """Token ids and mask of a batch, both [b, t] int32; the mask is 1 at real tokens and 0 at padding."""

    input_ids: np.ndarray
    attention_mask: np.ndarray


class Tokenizer:
    """A checkpoint's tokenizer.

    Attributes:
      folder: where its files are.
      vocabulary_size: one above its largest token id.
      padding_id: the id that fills a batch; where the tokenizer has no padding token, its end token or 0, which the
        mask hides from the model.
      end_id: the id that ends a text, or None where the tokenizer has no end token.
      hash: SHA-256 over its files, in hexadecimal.
    """

    def __init__(self, folder: Path, tokenizer: Any):
        self.folder = folder
        self.vocabulary_size = 1 + max(tokenizer.get_vocab().values())
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.padding_id: int = next(number for number in candidates if number is not None)
        self.end_id: int | None = tokenizer.eos_token_id
        self.hash = tokenizer_hash(folder)
        self._tokenizer = tokenizer

    @property
    def backend_tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` that does the work; not to be changed."""
        return self._tokenizer.backend_tokenizer

    def encode(self, texts: Iterable[str], *, max_tokens: int) -> list[np.ndarray]:
        """Token ids of each text, special tokens included, cut off at the end after ``max_tokens``.

        Args:
          texts: the texts.
          max_tokens: how many ids to keep of each, special tokens counted.

        Returns:
          One int32 array [tokens] for each text.

        Raises:
          DataError: something in ``texts`` is not a string.
          ConfigError: ``max_tokens`` leaves no room for the text beside the special tokens.
        """
        texts = list(texts)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"text number {number} is {type(text).__name__}, not a string", mend="pass empty texts as ''"
                )
        special = self._tokenizer.num_special_tokens_to_add()
        if max_tokens <= special:
            raise ConfigError(
                f"{max_tokens} tokens hold nothing beside the {special} special ones",
                field="max_tokens",
                mend=f"allow at least {special + 1}",
            )
        if not texts:
            return []
        encoded = self._tokenizer(
            texts,
            truncation=True,
            max_length=max_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [np.asarray(ids, np.int32) for ids in encoded["input_ids"]]

    def batch(self, texts: Iterable[str], *, max_tokens: int, side: Side = "right", multiple: int = 1) -> TokenBatch:
        """Encode texts and pad them to one width; see ``encode`` and ``pad``."""
        return pad(
            self.encode(texts, max_tokens=max_tokens),
            padding_id=self.padding_id,
            side=side,
            multiple=multiple,
            max_tokens=max_tokens,
        )

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that token ids [tokens] stand for, without special tokens."""
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=True)


def pad(
    encoded: Sequence[np.ndarray],
    *,
    padding_id: int,
    side: Side = "right",
    multiple: int = 1,
    max_tokens: int | None = None,
) -> TokenBatch:
    """Put texts of different lengths into one batch.

    Args:
      encoded: ids [tokens] of each text.
      padding_id: what fills the rest.
      side: where the padding stands.
      multiple: the width is rounded up to a multiple of this, so that few different widths are compiled.
      max_tokens: the width never exceeds this.

    Returns:
      A ``TokenBatch`` [b, t], t at least 1.

    Raises:
      ConfigError: ``side`` is neither "right" nor "left".
      DataError: there are no texts, or one is longer than ``max_tokens``.
    """
    if side not in ("right", "left"):
        raise ConfigError(f"there is no side '{side}'", field="side", mend="choose right or left")
    if not encoded:
        raise DataError("a batch needs at least one text", mend="leave empty batches out")
    lengths = np.array([len(ids) for ids in encoded])
    width = -(-max(1, lengths.max()) // multiple) * multiple
    if max_tokens is not None:
        width = min(width, max_tokens)
    if lengths.max() > width:
        raise DataError(f"a text of {lengths.max()} tokens does not fit into {width}", mend="truncate when encoding")
    columns = np.arange(width)
    real = columns < lengths[:, None] if side == "right" else columns >= width - lengths[:, None]
    input_ids = np.full((len(encoded), width), padding_id, np.int32)
    input_ids[real] = np.concatenate(encoded)
    return TokenBatch(input_ids, real.astype(np.int32))


def tokenizer_hash(folder: str | PathLike[str]) -> str:
    """SHA-256, in hexadecimal, over the names and contents of a folder's tokenizer files."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        file = Path(folder) / name
        if file.is_file():
            digest.update(f"{name} {file_hash(file)}\n".encode())
    return digest.hexdigest()


def load_tokenizer(path_or_id: str | PathLike[str]) -> Tokenizer:
    """Load the tokenizer of a checkpoint.

    Args:
      path_or_id: as in ``load``.

    Returns:
      The tokenizer.

    Raises:
      CheckpointError: the checkpoint or its tokenizer files cannot be found or read, or the tokenizer is another
        model's: it has token ids that the model has no vector for, or other special tokens than config.json says. One
        of another model with the same special tokens and no more ids cannot be told apart.
    """
    folder = resolve(path_or_id)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError("the folder holds no tokenizer", file=folder, mend="download the tokenizer files too")
    tokenizer = Tokenizer(folder, _auto_tokenizer(folder))
    config = read_json(folder / "config.json")
    _check_vocabulary(tokenizer, config)
    _check_special_tokens(tokenizer, config)
    return tokenizer


def _auto_tokenizer(folder: Path) -> Any:
    if "transformers" not in sys.modules:
        # On import it advises to install PyTorch, which is not needed here.
        before = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
        try:
            import transformers
        finally:
            if before is None:
                del os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"]
            else:
                os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = before
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"the tokenizer cannot be read ({reason[:160]})", file=folder, mend="download the tokenizer files again"
        ) from None


def _check_vocabulary(tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    rows = config.get("vocab_size")
    if isinstance(rows, int) and tokenizer.vocabulary_size > rows:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocabulary_size} token ids and the model vectors for {rows}",
            file=tokenizer.folder,
            field="vocab_size",
            mend="use the tokenizer that belongs to the model",
        )


def _check_special_tokens(tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that neither begins nor ends texts with the model's ids, or pads a RoBERTa with another id.

    Checkpoints often disagree with themselves about one of the two ends, so it takes both. Padding is hidden by the
    mask, except where positions are counted from its id on.
    """

    def differs(field: str, default: int | None = None) -> bool:
        said, found = config.get(field, default), getattr(tokenizer._tokenizer, field)
        return said is not None and found is not None and found not in (said if isinstance(said, list) else [said])

    if config.get("model_type") == "roberta":
        wrong = "pad_token_id" if differs("pad_token_id", 1) else None
    else:
        wrong = "bos_token_id" if differs("bos_token_id") and differs("eos_token_id") else None
    if wrong is not None:
        raise CheckpointError(
            f"the tokenizer's id is {getattr(tokenizer._tokenizer, wrong)} and the model's {config.get(wrong, 1)}",
            file=tokenizer.folder,
            field=wrong,
            mend="use the tokenizer that belongs to the model",
        )
