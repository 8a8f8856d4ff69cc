"""Small language models of random weights, and their tokenizers."""

import json

import jax
import numpy as np
import pytest
import tokenizers
import transformers
from safetensors.numpy import save_file
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from jaxgkd import language

WORDS = ["graph", "neural", "network", "teacher", "student", "learns", "from", "text", "papers", "molecules", "links"]


@pytest.fixture(scope="session")
def wordpiece():
    """A WordPiece tokenizer with BERT's special tokens over a few words and all letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    marks = list(".,;:#()0123456789")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters, *(f"##{letter}" for letter in letters), *marks]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    return tokenizer


@pytest.fixture(scope="session")
def byte_bpe():
    """A byte-level BPE tokenizer without special tokens, whose merges reach across punctuation and line ends."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    corpus = [" ".join(WORDS), "; ".join(WORDS), "\nLinked directly: ".join(WORDS), ".\n\n### Response:\n".join(WORDS)]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def bert_folder(wordpiece, tmp_path_factory):
    """A checkpoint folder of a random two-layer BERT with the WordPiece tokenizer."""
    folder, d = tmp_path_factory.mktemp("bert"), 16
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": wordpiece.get_vocab_size(),
        "hidden_size": d,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * d,
        "hidden_act": "gelu",
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {f"embeddings.{name}_embeddings": (rows, d) for name, rows in (("position", 40), ("token_type", 2))}
    shapes |= {"embeddings.word_embeddings": (config["vocab_size"], d), "embeddings.LayerNorm": (d,)}
    for layer in (f"encoder.layer.{i}." for i in range(2)):
        shapes |= {f"{layer}attention.self.{name}": (d, d) for name in ("query", "key", "value")}
        shapes |= {f"{layer}attention.output.dense": (d, d), f"{layer}intermediate.dense": (2 * d, d)}
        shapes |= {f"{layer}output.dense": (d, 2 * d)}
        shapes |= {f"{layer}attention.output.LayerNorm": (d,), f"{layer}output.LayerNorm": (d,)}
    rng = np.random.default_rng(0)
    tensors = {f"{name}.weight": rng.normal(size=shape) / 2 for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": rng.normal(size=s[:1]) / 2 for name, s in shapes.items() if "_embeddings" not in name}
    save_file({name: values.astype(np.float32) for name, values in tensors.items()}, folder / "model.safetensors")
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    copy = tokenizers.Tokenizer.from_str(wordpiece.to_str())
    transformers.PreTrainedTokenizerFast(tokenizer_object=copy, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def causal_folder(byte_bpe, tmp_path_factory):
    """A checkpoint folder of a random two-layer Llama with the byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("parent") / "causal"
    values = {
        "model_type": "llama",
        "vocab_size": byte_bpe.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 256,
        "initializer_range": 0.5,
    }
    language.save(language.initialise(values, key=jax.random.key(0)), folder)
    copy = tokenizers.Tokenizer.from_str(byte_bpe.to_str())
    # The last of its tokens fills up batches, where the mask says that it does not count.
    last = byte_bpe.id_to_token(byte_bpe.get_vocab_size() - 1)
    transformers.PreTrainedTokenizerFast(tokenizer_object=copy, pad_token=last).save_pretrained(folder)
    return folder


# Words of each class of the text graph below, and words that all share.
