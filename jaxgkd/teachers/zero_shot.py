"""A text encoder as a classifier without labels: the class whose name lies nearest to the text."""

import numpy as np

from jaxgkd.data.text_graphs import TextGraph
from jaxgkd.teachers.extract import extract
from jaxgkd.teachers.hops import HopFeatures, TextEncoder


def zero_shot_probabilities(
    graph: TextGraph, features: HopFeatures, encoder: TextEncoder, *, temperature: float = 0.05
) -> np.ndarray:
    """Softmax over classes of the cosine between a node's text and a class name, both as deviations from their mean.

    Args:
      graph: class names.
      features: of its nodes; hop 0 is compared.
      encoder: the same language model.
      temperature: of the softmax.

    Returns:
      [n, classes] probabilities.
    """
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
        pooling="mean",
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
