import json
import shutil
from pathlib import Path

import pytest

from jaxgkd.errors import CheckpointError
from jaxgkd.language import load, save_orbax, weights_hash
from jaxgkd.language.orbax_files import CHECKSUMS, orbax_files

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orbax") / "bert"
    save_orbax(load(GOLDENS / "bert"), folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "bert")


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_every_file_is_checked(folder):
    for file in orbax_files(folder):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"?" if content else b"?")
        refused(folder, f"{file.name}: the file is missing, unexpected or damaged")
        file.write_bytes(content)
    load(folder)


def test_a_missing_file_is_named(folder):
    largest = max(orbax_files(folder), key=lambda file: file.stat().st_size)
    largest.unlink()
    refused(folder, f"{largest.name}: the file is missing")


def test_missing_checksums_are_refused(folder):
    (folder / CHECKSUMS).unlink()
    refused(folder, "the file is missing")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_hidden_layers", 4, r"\[3, 64, 64\] where config\.json asks for \[4, 64, 64\]"),
        ("vocab_size", 150, r"embeddings/token has shape \[160, 64\] where config\.json asks for \[150, 64\]"),
    ],
)
def test_arrays_that_do_not_fit_the_configuration_are_refused(folder, field, value, message):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, field: value}))
    refused(folder, message)


def test_arrays_of_another_family_are_refused(folder):
    shutil.copy(GOLDENS / "distilbert" / "config.json", folder)
    refused(folder, r"layers|embeddings/token_type is not part")


def test_the_hash_is_of_the_weights_and_the_configuration(folder, tmp_path):
    before = weights_hash(folder)
    config = (folder / "config.json").read_text()
    shutil.copy(GOLDENS / "roberta" / "config.json", folder)
    assert weights_hash(folder) != before
    (folder / "config.json").write_text(config)
    assert weights_hash(folder) == before
    save_orbax(load(GOLDENS / "bert", dtype="bfloat16"), tmp_path / "other")
    assert weights_hash(tmp_path / "other") != before
