"""How likely a causal language model finds each of several continuations, such as the names of classes.

A prompt is run once and its cache is shared by all candidates: many of them stand side by side as one stretch of new
tokens, each seeing the prompt and itself only, at the positions it would have alone.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxgkd.errors import DataError
from jaxgkd.language.cache import check_prompts, extend, prefill, to_the_front
from jaxgkd.language.decoder import Decoder
from jaxgkd.language.decoder_network import DecoderConfig, head_logits
from jaxgkd.language.stacked_model import Weights

# So many candidates' tokens stand side by side; each of them looks at all, and most of that is masked.
TOKENS_AT_ONCE = 256

# So many tokens' logits over the whole vocabulary are in memory at once.
LOGITS_AT_ONCE = 512


def score_candidates(
    model: Decoder,
    input_ids: Array,
    attention_mask: Array,
    candidates: Sequence[Sequence[int] | np.ndarray],
    *,
    per_token: bool = False,
) -> Array:
    """Log-likelihood of each candidate as the continuation of each prompt, ``Σ_i log p(candidate_i | prompt, before)``.

    On which side the prompts are padded does not matter.

    Args:
      model: a causal language model.
      input_ids: [b, t] token ids of the prompts.
      attention_mask: [b, t]; above 0 at real tokens.
      candidates: token ids of each candidate, the same for all prompts; of any lengths.
      per_token: divide by the candidate's number of tokens, so that long ones are not put at a disadvantage.

    Returns:
      [b, candidates], float32, natural logarithm.

    Raises:
      DataError: the arrays are no [b, t] pair or hold an id outside the vocabulary, a prompt or candidate is empty, or
        there are no candidates.
      ConfigError: prompt and candidate do not fit into the model, or the checkpoint was saved without its output head.
    """
    ids, lengths = _pad(candidates, model.vocabulary_size)
    check_prompts(
        input_ids,
        attention_mask,
        vocabulary_size=model.vocabulary_size,
        max_tokens=model.max_tokens,
        new_tokens=ids.shape[1],
    )
    scores = _score(
        model.config, model.weights(), jnp.asarray(input_ids), jnp.asarray(attention_mask), ids, jnp.asarray(lengths)
    )
    return scores / lengths if per_token else scores


def target_log_probabilities(config: DecoderConfig, weights: Weights, states: Array, targets: Array) -> Array:
    """Log-probability of one token each, without the logits of all states in memory at once.

    Args:
      config: the model's shape.
      weights: the model's weights.
      states: [n, d], last hidden states.
      targets: [n], the token that each is asked for.

    Returns:
      [n], float32.
    """
    n = states.shape[0]
    at_once = min(n, LOGITS_AT_ONCE)
    padding = -n % at_once

    def run(chunk: tuple[Array, Array]) -> Array:
        logits = head_logits(config, weights, chunk[0])
        wanted = jnp.take_along_axis(logits, chunk[1][:, None], axis=-1)[:, 0]
        return wanted - jax.nn.logsumexp(logits, axis=-1)

    chunks = jnp.pad(states, ((0, padding), (0, 0))).reshape(-1, at_once, states.shape[1])
    return lax.map(run, (chunks, jnp.pad(targets, (0, padding)).reshape(-1, at_once))).reshape(-1)[:n]


def _pad(candidates: Sequence[Sequence[int] | np.ndarray], vocabulary_size: int) -> tuple[Array, np.ndarray]:
    """Ids [candidates, longest] and lengths [candidates]."""
    if not len(candidates):
        raise DataError("there are no candidates", mend="give at least one")
    arrays = [np.asarray(candidate) for candidate in candidates]
    for number, array in enumerate(arrays):
        if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"candidate number {number} is no list of token ids", mend="give at least one id for each")
        if array.min() < 0 or array.max() >= vocabulary_size:
            raise DataError(
                f"candidate number {number} has a token id outside the model's vocabulary of {vocabulary_size}",
                mend="use the tokenizer that belongs to the model",
            )
    lengths = np.array([len(array) for array in arrays])
    ids = np.zeros((len(arrays), lengths.max()), np.int32)
    ids[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(arrays)
    return jnp.asarray(ids), lengths


@partial(jax.jit, static_argnames="config")
def _score(
    config: DecoderConfig,
    weights: Weights,
    input_ids: Array,
    attention_mask: Array,
    candidates: Array,
    lengths: Array,
) -> Array:
    prompts, seen = to_the_front(input_ids, attention_mask)
    states, cache = prefill(config, weights, prompts, seen, 0)
    b, (n, longest) = prompts.shape[0], candidates.shape
    logits = head_logits(config, weights, states)
    scores = (logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True))[:, candidates[:, 0]]
    if longest == 1:
        return scores

    # Every token but a candidate's last one is read, every one but its first is asked for.
    t = longest - 1
    at_once = max(1, min(n, TOKENS_AT_ONCE // t))
    groups = -(-n // at_once)
    candidates = jnp.pad(candidates, ((0, groups * at_once - n), (0, 0)))
    lengths = jnp.pad(lengths, (0, groups * at_once - n))
    steps = jnp.tile(jnp.arange(t, dtype=jnp.int32), at_once)
    own = jnp.repeat(jnp.arange(at_once), t)
    position = seen.sum(axis=1, dtype=jnp.int32)[:, None] + steps
    together = jnp.broadcast_to(own[:, None] == own, (b, at_once * t, at_once * t))

    def run(group: tuple[Array, Array]) -> Array:
        ids, length = group
        read = jnp.broadcast_to(ids[:, :-1].reshape(-1), (b, at_once * t))
        states, _ = extend(config, weights, cache, read, position, together)
        asked = jnp.tile(ids[:, 1:].reshape(-1), b)
        found = target_log_probabilities(config, weights, states.reshape(-1, config.width), asked)
        real = jnp.arange(1, longest) < length[:, None]
        return jnp.where(real, found.reshape(b, at_once, t), 0.0).sum(axis=-1)

    groups_first = lax.map(run, (candidates.reshape(groups, at_once, longest), lengths.reshape(groups, at_once)))
    return scores + jnp.moveaxis(groups_first, 0, 1).reshape(b, -1)[:, :n]
