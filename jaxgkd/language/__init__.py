"""Language models in Flax, read from Hugging Face checkpoints without PyTorch.

``load`` gives a model, ``load_tokenizer`` its tokenizer; what cannot be reproduced exactly is refused.

- ``families``: which models are read, and ``load``
- ``config``: config.json, strictly
- ``bert``: configurations and weight names of BERT, RoBERTa and DistilBERT
- ``encoder``: the post-norm encoder they share
- ``deberta``, ``deberta_network``: DeBERTa-v2 and v3, the same in two parts
- ``t5``, ``t5_network``: the encoder of T5
- ``llama``, ``gpt2``: configurations and weight names of Llama, Mistral, Qwen and Gemma 2, and of GPT-2 and BioGPT
- ``decoder``, ``decoder_network``: the causal transformer they share; ``rope``, ``causal_attention``: its parts
- ``generate``: continue prompts; ``scoring``: how likely continuations are; ``cache``: what both keep of a prompt
- ``stacked_model``: what every model can be asked; ``projection``: the linear maps of its layers
- ``attention``, ``activations``: parts of encoders
- ``batches``: check, pool and cut batches of tokens
- ``weight_plan``: which tensors a model is made of, each accounted for
- ``checkpoint``: weights of a folder to stacked arrays; ``placement``: onto which devices
- ``safetensors_files``, ``flax_files``, ``orbax_files``: the formats they lie in
- ``saving``: models back to folders
- ``random_weights``: models from nothing but a configuration
- ``lora``, ``lora_files``: low-rank adapters, in memory and on disk
- ``quantise``: a frozen base in few bits
- ``instruction``: prompts, responses and the loss of these; ``tuning``: training on them
- ``locate``: where a checkpoint is found
- ``tokens``: text to token ids
"""

from jaxgkd.language.batches import Pooling, pool
from jaxgkd.language.checkpoint import weights_hash
from jaxgkd.language.deberta_network import Deberta, DebertaConfig
from jaxgkd.language.decoder import Decoder
from jaxgkd.language.decoder_network import DecoderConfig
from jaxgkd.language.encoder import Encoder, EncoderConfig
from jaxgkd.language.families import LanguageModel, initialise, load, read_config
from jaxgkd.language.generate import Generation, Sampling, generate
from jaxgkd.language.instruction import InstructionBatch, instruction_batch, response_losses
from jaxgkd.language.locate import is_local, resolve
from jaxgkd.language.lora import Adapters, LoraConfig, adapt, adapted_weights, initial_adapters, merge
from jaxgkd.language.lora_files import load_adapters, save_adapters
from jaxgkd.language.placement import Placement
from jaxgkd.language.quantise import quantise
from jaxgkd.language.saving import save, save_orbax
from jaxgkd.language.scoring import score_candidates
from jaxgkd.language.t5_network import T5Config, T5Encoder
from jaxgkd.language.tokens import TokenBatch, Tokenizer, load_tokenizer, pad, tokenizer_hash
from jaxgkd.language.tuning import TuningSettings, tune_adapters, tune_model

__all__ = [
    "Adapters",
    "Deberta",
    "DebertaConfig",
    "Decoder",
    "DecoderConfig",
    "Encoder",
    "EncoderConfig",
    "Generation",
    "InstructionBatch",
    "LanguageModel",
    "LoraConfig",
    "Placement",
    "Pooling",
    "Sampling",
    "T5Config",
    "T5Encoder",
    "TokenBatch",
    "Tokenizer",
    "TuningSettings",
    "adapt",
    "adapted_weights",
    "generate",
    "initial_adapters",
    "initialise",
    "instruction_batch",
    "is_local",
    "load",
    "load_adapters",
    "load_tokenizer",
    "merge",
    "pad",
    "pool",
    "quantise",
    "read_config",
    "resolve",
    "response_losses",
    "save",
    "save_adapters",
    "save_orbax",
    "score_candidates",
    "tokenizer_hash",
    "tune_adapters",
    "tune_model",
    "weights_hash",
]
