import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

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
