"""Language models in Flax, read from Hugging Face checkpoints without PyTorch.

``load`` gives a model, ``load_tokenizer`` its tokenizer; what cannot be reproduced exactly is refused.

- ``families``: which models are read, and ``load``
- ``config``: config.json, strictly
- ``bert``: configurations and weight names of BERT, RoBERTa and DistilBERT
- ``encoder``: the post-norm encoder they share
- ``attention``, ``activations``: its parts
- ``batches``: check, pool and cut batches of tokens
- ``checkpoint``: safetensors to stacked arrays
- ``locate``: where a checkpoint is found
- ``tokens``: text to token ids
"""

from jaxgkd.language.batches import Pooling, pool
from jaxgkd.language.checkpoint import weights_hash
from jaxgkd.language.encoder import Encoder, EncoderConfig
from jaxgkd.language.families import LanguageModel, load, read_config
from jaxgkd.language.locate import resolve
from jaxgkd.language.tokens import TokenBatch, Tokenizer, load_tokenizer, pad, tokenizer_hash

__all__ = [
    "Encoder",
    "EncoderConfig",
    "LanguageModel",
    "Pooling",
    "TokenBatch",
    "Tokenizer",
    "load",
    "load_tokenizer",
    "pad",
    "pool",
    "read_config",
    "resolve",
    "tokenizer_hash",
    "weights_hash",
]
