"""Instruction-tuning a causal model on the training labels, such that no node is answered for by its own label.

1. The distinct training texts are dealt out to K folds without looking at their labels. For each fold, low-rank
   adapters beside the frozen model learn to answer the prompts of the others, at every hop, with the class's name.
2. A training node is described by the adapters of its own fold, which saw neither its label nor another node with the
   same text; every other node by the mean over all K. What describes it are the states at the last token of its
   prompts, one a hop, and how likely the model finds every class name as the answer, averaged over hops.

LinguGKD's teacher is tuned so (Hu et al., AAAI 2025), but on the nodes it describes.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jaxgkd import language
from jaxgkd.errors import ConfigError, UnsupportedModelError
from jaxgkd.teachers.extract import extract, tokenizer_hash
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.prompts import bare_tokenizer, prompt_hash
from jaxgkd.teachers.tune import Progress, TunedOutput, deal_folds, described, kept_on_splits
from jaxgkd.teachers.zero_shot import answer_scores


@dataclass(frozen=True)
class InstructSettings:
    """How a causal model is tuned.

    Fields:
      max_tokens: of a prompt.
      folds: K; 1 tunes one set of adapters, which describes the nodes whose labels it saw (the published protocol).
      tuning, lora: of the adapters.
      base_bits: of the frozen model they learn beside and are asked with, see `language.quantise`; 0 leaves it as it
        is.
    """

    max_tokens: int
    folds: int = 2
    tuning: language.TuningSettings = field(default_factory=language.TuningSettings)
    lora: language.LoraConfig = field(default_factory=language.LoraConfig)
    base_bits: Literal[0, 8, 4] = 0


def instruct_on_splits(
    encoder: TextEncoder,
    prompts: Sequence[Sequence[str]],
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    class_names: Sequence[str],
    settings: InstructSettings,
    seeds: Sequence[int],
    *,
    root: Path | None = None,
    on_progress: Progress | None = None,
    on_line: Callable[[str], None] | None = None,
) -> list[TunedOutput]:
    """Tune adapters on every seed's split, cross-fitted; kept in the cache's ``tuned`` and read from there next time.

    Args:
      encoder: the causal model; it is not changed.
      prompts: [hops + 1][n] texts, as from `hops.hop_prompts`.
      labels: [seeds, n] class of every node, anything where it is in neither part.
      train, valid: [seeds, n] bool; validation nodes are only scored, for the report.
      class_names: what is answered.
      settings: of the tuning.
      seeds: one per row; of the folds, the adapters' beginning and the order of the pairs.
      root: folder of caches, the user's by default.
      on_progress: called with the number of epochs done, folds and splits added up, and the last mean loss.
      on_line: called with a line a fold.

    Returns:
      One output per seed: ``features`` [n, hops + 1, d], ``log_probs`` [n, classes] and a report with ``train_loss``
      (of epochs 1, 2, …), ``valid_accuracy`` and ``n_labels`` of each fold, ``tuned_parameters`` and
      ``train_seconds``.

    Raises:
      ConfigError: prompt and answer do not fit into the model.
      DataError: a mask or label does not fit, or there are fewer distinct training texts than folds.
      UnsupportedModelError: the model is not causal.
      CheckpointError: what is kept is damaged, or cannot be written.
    """
    if not isinstance(encoder.model, language.Decoder):
        raise UnsupportedModelError("only a causal model can be instructed", mend="tune an encoder's upper layers")
    answers = class_answers(encoder, class_names)
    room = encoder.model.max_tokens - max(map(len, answers))
    if settings.max_tokens > room:
        raise ConfigError(
            f"a prompt of {settings.max_tokens} tokens leaves no room for the answer in the model's "
            f"{encoder.model.max_tokens}",
            field="max_tokens",
            mend=f"allow at most {room}",
        )
    return kept_on_splits(
        lambda known, train, valid, seed, tick: _instruct(
            encoder, prompts, answers, known, train, valid, settings, seed, tick, on_line
        ),
        (
            "instructed",
            encoder.weights_hash,
            tokenizer_hash(encoder.tokenizer),
            [prompt_hash(of_hop) for of_hop in prompts],
            answers,
            asdict(settings),
        ),
        labels,
        train,
        valid,
        len(class_names),
        seeds,
        passes=settings.folds * settings.tuning.epochs,
        root=root,
        on_progress=on_progress,
    )


def class_answers(encoder: TextEncoder, class_names: Sequence[str]) -> list[list[int]]:
    """Token ids of each class name and, where the tokenizer has one, the end token: no name begins another then."""
    bare, end = bare_tokenizer(encoder.tokenizer), encoder.tokenizer.end_id
    ending = [] if end is None else [end]
    return [[*bare.encode(name, add_special_tokens=False).ids, *ending] for name in class_names]


def _instruct(
    encoder: TextEncoder,
    prompts: Sequence[Sequence[str]],
    answers: list[list[int]],
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    settings: InstructSettings,
    seed: int,
    on_progress: Progress,
    on_line: Callable[[str], None] | None,
) -> TunedOutput:
    model = encoder.model
    assert isinstance(model, language.Decoder)
    begun = time.perf_counter()
    if settings.base_bits:
        model = language.quantise(model, settings.base_bits)
    encoded = [encoder.tokenizer.encode(of_hop, max_tokens=settings.max_tokens) for of_hop in prompts]
    texts = np.unique(np.array(prompts[0]), return_inverse=True)[1]
    folds = deal_folds(texts, train, settings.folds, seed)
    states, probabilities, losses, accuracies, counts, n_tuned = [], [], [], [], [], 0
    for k in range(settings.folds):
        seen = np.flatnonzero(train & (folds != k))
        if on_line is not None:
            on_line(f"tuning adapters on {len(seen):,} nodes, fold {k + 1} of {settings.folds}")
        pairs = [(of_hop[node], answers[labels[node]]) for of_hop in encoded for node in seen.tolist()]
        of_fold: list[float] = []

        def after(epoch: int, loss: float, k: int = k, of_fold: list[float] = of_fold) -> None:
            of_fold.append(loss)
            on_progress(k * settings.tuning.epochs + epoch, loss)

        key = jax.random.fold_in(jax.random.key(seed), k)
        adapters = language.tune_adapters(model, pairs, settings.tuning, settings.lora, key=key, on_epoch=after)
        tuned = replace(encoder, model=language.adapt(model, adapters, settings.lora))
        states.append(_last_states(tuned, prompts, settings.max_tokens))
        scores = [answer_scores(tuned, of_hop, answers, max_tokens=settings.max_tokens) for of_hop in prompts]
        probabilities.append(np.mean([np.asarray(jax.nn.softmax(of_hop, axis=1)) for of_hop in scores], axis=0))
        losses.append(of_fold)
        accuracies.append(float((probabilities[-1].argmax(axis=1) == labels)[valid].mean()))
        counts.append(len(seen))
        n_tuned = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    return TunedOutput(
        features=described(np.stack(states), folds),
        log_probs=np.log(np.maximum(described(np.stack(probabilities), folds), 1e-9)),
        report={
            "train_loss": losses,
            "valid_accuracy": accuracies,
            "n_labels": counts,
            "tuned_parameters": n_tuned,
            "train_seconds": round(time.perf_counter() - begun, 3),
        },
    )


def _last_states(encoder: TextEncoder, prompts: Sequence[Sequence[str]], max_tokens: int) -> np.ndarray:
    """[n, hops + 1, d] float32, the last layer at the last token of every prompt."""
    everything = [text for of_hop in prompts for text in of_hop]
    with tempfile.TemporaryDirectory() as folder:
        store = extract(
            encoder.model,
            encoder.tokenizer,
            everything,
            item_ids=[str(i) for i in range(len(everything))],
            data_sha256="",
            teacher_id=encoder.name,
            weights_hash="",
            layers=(encoder.model.n_layers,),
            pooling="last",
            max_tokens=max_tokens,
            folder=Path(folder) / "states",
            dtype="float32",
            progress=False,
        )
        states = store.as_array()[:, 0]
    return states.reshape(len(prompts), -1, encoder.model.width).swapaxes(0, 1)
