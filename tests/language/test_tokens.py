import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors

from jaxgkd.errors import CheckpointError, ConfigError, DataError
from jaxgkd.language import load, load_tokenizer, pad, tokenizer_hash

BERT = Path(__file__).parent / "goldens" / "bert"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "graph", "learns", "from", "text"]


def write_tokenizer(folder, words=WORDS, **settings):
    backend = Backend(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Some checkpoints carry their training settings along; they must not leak into a batch.
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special, **settings})
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    shutil.copytree(BERT, folder, dirs_exist_ok=True)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_texts_become_ids(tokenizer):
    encoded = tokenizer.encode(["A graph learns", "", "from unseen text", "a a a a a a"], max_tokens=6)
    assert [ids.tolist() for ids in encoded] == [[2, 4, 5, 6, 3], [2, 3], [2, 7, 1, 8, 3], [2, 4, 4, 4, 4, 3]]
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert tokenizer.encode([], max_tokens=6) == []
    assert tokenizer.decode(encoded[0]) == "a graph learns"


@pytest.mark.parametrize(
    ("side", "rows", "masks"),
    [
        ("right", [[2, 5, 6, 3], [2, 4, 3, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]),
        ("left", [[2, 5, 6, 3], [0, 2, 4, 3]], [[1, 1, 1, 1], [0, 1, 1, 1]]),
    ],
)
def test_a_batch_is_padded_on_the_side_asked_for(tokenizer, side, rows, masks):
    batch = tokenizer.batch(["graph learns", "a"], max_tokens=8, side=side)
    np.testing.assert_array_equal(batch.input_ids, rows)
    np.testing.assert_array_equal(batch.attention_mask, masks)
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int32


def test_a_model_reads_what_its_tokenizer_writes(folder, tokenizer):
    model = load(folder)
    texts = ["a graph learns", "text"]
    together = model.pooled_states(*tokenizer.batch(texts, max_tokens=16), layers=(3,), pooling="mean")
    for row, text in enumerate(texts):
        alone = model.pooled_states(*tokenizer.batch([text], max_tokens=16), layers=(3,), pooling="mean")
        np.testing.assert_allclose(together[row], alone[0], atol=2e-6)


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    side=st.sampled_from(["right", "left"]),
    multiple=st.integers(1, 5),
)
@settings(deadline=None, max_examples=40)
def test_padding_keeps_every_id_in_order(lengths, side, multiple):
    encoded = [np.arange(1, length + 1, dtype=np.int32) for length in lengths]
    ids, mask = pad(encoded, padding_id=77, side=side, multiple=multiple)
    assert ids.shape == mask.shape
    assert ids.shape[1] % multiple == 0
    assert ids.shape[1] - max(1, *lengths, 0) < multiple
    for row, expected in enumerate(encoded):
        np.testing.assert_array_equal(ids[row][mask[row] == 1], expected)
        assert (ids[row][mask[row] == 0] == 77).all()
        stop = mask[row] if side == "right" else mask[row][::-1]
        np.testing.assert_array_equal(stop, np.sort(stop)[::-1])


def test_the_width_stays_below_the_limit():
    ids = np.arange(9, dtype=np.int32)
    assert pad([ids], padding_id=0, multiple=8, max_tokens=10).input_ids.shape == (1, 10)
    with pytest.raises(DataError, match="9 tokens does not fit into 8"):
        pad([ids], padding_id=0, multiple=8, max_tokens=8)


def test_misuse_is_refused(tokenizer):
    with pytest.raises(DataError, match="text number 1 is float"):
        tokenizer.encode(["a", float("nan")], max_tokens=6)
    with pytest.raises(ConfigError, match="at least 3"):
        tokenizer.encode(["a"], max_tokens=2)
    with pytest.raises(ConfigError, match="side"):
        tokenizer.batch(["a"], max_tokens=6, side="middle")
    with pytest.raises(DataError, match="at least one text"):
        tokenizer.batch([], max_tokens=6)


def test_a_tokenizer_without_padding_fills_with_its_end(tmp_path):
    shutil.copytree(BERT, tmp_path, dirs_exist_ok=True)
    write_tokenizer(tmp_path, pad_token=None, eos_token="[SEP]")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.padding_id == 3
    np.testing.assert_array_equal(tokenizer.batch(["a a", "a"], max_tokens=8).input_ids[1], [2, 4, 3, 3])


def test_more_ids_than_vectors_are_refused(tmp_path):
    shutil.copytree(BERT, tmp_path, dirs_exist_ok=True)
    write_tokenizer(tmp_path, WORDS + [f"w{i}" for i in range(160 - len(WORDS))])
    assert load_tokenizer(tmp_path).vocabulary_size == 160
    write_tokenizer(tmp_path, WORDS + [f"w{i}" for i in range(161 - len(WORDS))])
    with pytest.raises(CheckpointError, match="161 token ids and the model vectors for 160"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("family", "special", "field"),
    [
        ("llama", {"bos_token": "[CLS]", "eos_token": "[SEP]"}, "bos_token_id"),
        ("llama", {"bos_token": "[UNK]", "eos_token": "[SEP]"}, None),
        ("llama", {"bos_token": "[CLS]"}, None),
        ("roberta", {"pad_token": "[PAD]"}, "pad_token_id"),
        ("roberta", {"pad_token": "[UNK]", "bos_token": "[CLS]"}, None),
    ],
)
def test_a_tokenizer_with_another_models_special_tokens_is_refused(tmp_path, family, special, field):
    shutil.copytree(BERT.parent / family, tmp_path, dirs_exist_ok=True)
    write_tokenizer(tmp_path, **special)
    if field is None:
        assert load_tokenizer(tmp_path).vocabulary_size == len(WORDS)
        return
    with pytest.raises(CheckpointError, match="use the tokenizer that belongs to the model") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.field == field


def test_a_folder_without_tokenizer_is_refused():
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_tokenizer(BERT)


def test_a_damaged_tokenizer_is_refused(tmp_path):
    shutil.copytree(BERT, tmp_path, dirs_exist_ok=True)
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_hash_covers_tokenizer_files_only(tmp_path, folder, tokenizer):
    assert tokenizer.hash == tokenizer_hash(folder)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "README.md").write_text("hello")
    assert tokenizer_hash(tmp_path) == tokenizer.hash
    write_tokenizer(tmp_path, [*WORDS, "more"])
    assert tokenizer_hash(tmp_path) != tokenizer.hash
