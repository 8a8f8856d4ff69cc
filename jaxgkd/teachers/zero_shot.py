"""A language model as a classifier without labels.

A text encoder takes the class whose name lies nearest to the text. A causal model is asked for the class, and how
likely it finds each class name as the answer is read off, so the answer always is one of the classes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgkd import language
from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.teachers.extract import extract
from jaxgkd.teachers.hops import HopFeatures, TextEncoder, hop_prompts
from jaxgkd.teachers.prompts import bare_tokenizer

# Prompts that a causal model scores at once.
_PROMPTS_AT_ONCE = 32


def zero_shot_probabilities(
    graph: TextGraph, features: HopFeatures, encoder: TextEncoder, *, max_tokens: int, temperature: float = 0.05
) -> np.ndarray:
    """What the language model takes each node for, from its own text and the names of the classes.

    Args:
      graph: texts and class names.
      features: of its nodes by the same model; an encoder's hop 0 is compared.
      encoder: the language model.
      max_tokens: of a causal model's prompt.
      temperature: of an encoder's softmax over cosines.

    Returns:
      [n, classes] probabilities.
    """
    if encoder.is_causal:
        return _answered(graph, encoder, max_tokens)
    return _nearest(graph, features, encoder, temperature)


def _answered(graph: TextGraph, encoder: TextEncoder, max_tokens: int) -> np.ndarray:
    """Softmax over classes of the mean log-likelihood of a class name's tokens."""
    prompts = hop_prompts(graph, encoder, hops=0, max_tokens=max_tokens)[0]
    bare = bare_tokenizer(encoder.tokenizer)
    answers = [bare.encode(name, add_special_tokens=False).ids for name in graph.class_names]
    scores = answer_scores(encoder, prompts, answers, max_tokens=max_tokens)
    return np.asarray(jax.nn.softmax(scores / np.array([len(answer) for answer in answers]), axis=1))


def answer_scores(
    encoder: TextEncoder, prompts: Sequence[str], answers: Sequence[Sequence[int]], *, max_tokens: int
) -> np.ndarray:
    """How likely a causal model finds every answer after every prompt.

    Args:
      encoder: the causal model.
      prompts: [n] texts.
      answers: token ids of each.
      max_tokens: of a prompt.

    Returns:
      [n, answers] log-likelihoods, natural logarithm.
    """
    assert isinstance(encoder.model, language.Decoder)
    # All batches are padded to one width and one size, so that the program is compiled once.
    ids, mask = encoder.tokenizer.batch(prompts, max_tokens=max_tokens)
    scores = []
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        rows = np.minimum(np.arange(start, start + _PROMPTS_AT_ONCE), len(prompts) - 1)
        scored = language.score_candidates(encoder.model, jnp.asarray(ids[rows]), jnp.asarray(mask[rows]), answers)
        scores.append(np.asarray(scored)[: len(prompts) - start])
    return np.concatenate(scores)


def _nearest(graph: TextGraph, features: HopFeatures, encoder: TextEncoder, temperature: float) -> np.ndarray:
    """Softmax over classes of the cosine between a node's text and a class name, both as deviations from their mean."""
    names = [name.replace("_", " ").replace("-", " ") for name in graph.class_names]
    store = extract(
        encoder.model,
        encoder.tokenizer,
        names,
        item_ids=list(graph.class_names),
        data_sha256=graph.sha256,
        teacher_id=encoder.name,
        weights_hash=encoder.weights_hash,
        layers=(encoder.model.n_layers,),
        pooling=encoder.pooling,
        max_tokens=min(64, encoder.model.max_tokens),
        progress=False,
    )
    # Features have length 1 before their mean is taken off, so what was read of the names needs it too.
    read = _unit(store.as_array()[:, 0])
    nodes, classes = (_unit(states - states.mean(axis=0)) for states in (features.states[:, 0], read))
    scores = nodes @ classes.T / temperature
    scores -= scores.max(axis=1, keepdims=True)
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
