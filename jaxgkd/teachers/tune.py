"""Tuning the upper layers of a text encoder on the training labels, such that no node is described by its own label.

1. The lower layers are run once; the states of all tokens are kept (see `token_states`).
2. The distinct training texts are dealt out to K folds without looking at their labels. For each fold an encoder is
   tuned on the others, and the epoch with the best validation accuracy is kept (see `text_classifier`).
3. A training node is described by the encoder of its own fold, which saw neither its label nor another node with the
   same text; every other node by the mean over all K encoders.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import Encoder
from jaxgkd.teachers.extract import tokenizer_hash
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.prompts import prompt_hash
from jaxgkd.teachers.text_classifier import fit_classifier
from jaxgkd.teachers.text_tuning import TuneSettings, untouched_features
from jaxgkd.teachers.token_states import TokenStates, token_states, upper_part
from jaxgkd.training.compilation import cache_folder
from jaxgkd.training.stage import once

_FORMAT = 2

#: Told how far a tuning is and how well it does.
Progress = Callable[[int, float], None]


@dataclass(frozen=True, eq=False)
class TunedOutput:
    """What tuned language models say of every node.

    Fields:
      features: float32; of an encoder [n, d], the mean over the tokens of the last layer; of a causal model
        [n, hops + 1, d], the last layer at the last token of every hop's prompt.
      log_probs: [n, classes] float32.
      report: plain JSON values; of a causal model see `instruct`. Of an encoder, for each fold: ``best_epoch``,
        ``valid_accuracy`` and ``valid_loss`` (after epochs 0, 1, …), ``train_loss`` (of epochs 1, 2, …), ``n_labels``
        it was tuned on and ``n_absent_classes`` without any.
        For all: ``cosine_between_folds`` (of the features of nodes that are not trained on, 1 with a single fold),
        ``tuned_parameters`` (without heads), ``n_tokens``, ``n_truncated``, ``state_bytes`` (on disk) and
        ``train_seconds``.
    """

    features: np.ndarray
    log_probs: np.ndarray
    report: dict[str, Any]


class _Texts(NamedTuple):
    """What all folds and splits start from; ``features`` [rows, d] are those of the untouched encoder."""

    states: TokenStates
    upper: Encoder
    features: np.ndarray
    settings: TuneSettings


def tune_encoder(
    encoder: TextEncoder,
    prompts: Sequence[str],
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
    settings: TuneSettings,
    seed: int,
    *,
    root: Path | None = None,
    on_progress: Progress | None = None,
    on_line: Callable[[str], None] | None = None,
) -> TunedOutput:
    """Tune the upper layers of an encoder on one split, cross-fitted; the same arguments give the same values.

    Args:
      encoder: the language model; it is not changed.
      prompts: [n] texts.
      labels: [n] class of every node, anything where it is in neither part.
      train, valid: [n] bool; validation nodes choose each fold's epoch.
      n_classes: number of classes.
      settings: of the tuning.
      seed: of the folds and of the order of the training nodes.
      root: folder of caches, the user's by default; the token states go into its ``stores``.
      on_progress: called with the number of epochs done, folds added up, and the last validation accuracy.
      on_line: called with a line before the lower layers are run.

    Raises:
      ConfigError: a setting does not fit the model, or training with it diverged.
      DataError: a mask or label does not fit, or there are fewer distinct training texts than folds.
      StoreError: the token states cannot be kept.
      UnsupportedModelError: the model's layers cannot be tuned.
    """
    labels = _checked(labels, train, valid, len(prompts), n_classes)
    texts = _prepare(encoder, prompts, settings, root, on_line)
    return _tune(texts, labels, train, valid, n_classes, seed, on_progress or (lambda epoch, score: None))


def tune_on_splits(
    encoder: TextEncoder,
    prompts: Sequence[str],
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
    settings: TuneSettings,
    seeds: Sequence[int],
    *,
    root: Path | None = None,
    on_progress: Progress | None = None,
    on_line: Callable[[str], None] | None = None,
) -> list[TunedOutput]:
    """`tune_encoder` for every seed's split, kept in the cache's ``tuned`` and read from there the next time.

    Seeds with the same split (as the data gives it) share what the first of them was tuned with.

    Args:
      encoder, prompts, n_classes, settings, root, on_line: see `tune_encoder`.
      labels, train, valid: [seeds, n].
      seeds: one per row.
      on_progress: as there, counted over folds × epochs × distinct splits, those that are read included.

    Returns:
      One output per seed.

    Raises:
      CheckpointError: what is kept is damaged, or cannot be written; and what `tune_encoder` raises.
    """
    prepared: list[_Texts] = []

    def tuned(known: np.ndarray, train: np.ndarray, valid: np.ndarray, seed: int, tick: Progress) -> TunedOutput:
        if not prepared:
            prepared.append(_prepare(encoder, prompts, settings, root, on_line))
        return _tune(prepared[0], known, train, valid, n_classes, seed, tick)

    return kept_on_splits(
        tuned,
        (encoder.weights_hash, tokenizer_hash(encoder.tokenizer), prompt_hash(prompts), n_classes, asdict(settings)),
        labels,
        train,
        valid,
        n_classes,
        seeds,
        passes=settings.folds * settings.epochs,
        root=root,
        on_progress=on_progress,
    )


def kept_on_splits(
    tuned: Callable[[np.ndarray, np.ndarray, np.ndarray, int, Progress], TunedOutput],
    depends_on: tuple[Any, ...],
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
    seeds: Sequence[int],
    *,
    passes: int,
    root: Path | None,
    on_progress: Progress | None,
) -> list[TunedOutput]:
    """What ``tuned`` gives for every seed's split, kept in the cache and read from there the next time.

    Args:
      tuned: from one split's labels (−1 where they may not be used) [n], train [n], valid [n], seed and a function to
        tell of progress, to its output.
      depends_on: plain JSON values that say all the output depends on beside these arguments.
      labels, train, valid, n_classes, seeds: see `tune_on_splits`.
      passes: how far ``tuned`` counts.
      root, on_progress: see `tune_on_splits`.
    """
    root = cache_folder() if root is None else root
    of_split: dict[bytes, TunedOutput] = {}
    outputs: list[TunedOutput] = []
    for i, seed in enumerate(seeds):
        known = _checked(labels[i], train[i], valid[i], train.shape[1], n_classes)
        split = known.tobytes() + np.packbits([train[i], valid[i]]).tobytes()
        if split not in of_split:
            done = len(of_split) * passes
            folder = root / "tuned" / _key((*depends_on, seed), split)
            if folder.is_dir() and on_progress is not None:
                on_progress(done + passes, float("nan"))
            arguments = (known, train[i], valid[i], seed, _shifted(on_progress, done))
            of_split[split] = _from_tree(once(folder, lambda arguments=arguments: _tree(tuned(*arguments))))
        outputs.append(of_split[split])
    return outputs


def _shifted(on_progress: Progress | None, done: int) -> Progress:
    return lambda epoch, score: None if on_progress is None else on_progress(done + epoch, score)


def _key(depends_on: tuple[Any, ...], split: bytes) -> str:
    """Name of everything that the output depends on."""
    digest = hashlib.sha256(json.dumps([_FORMAT, *depends_on], sort_keys=True).encode())
    digest.update(split)
    return digest.hexdigest()[:32]


def _tree(output: TunedOutput) -> dict[str, np.ndarray]:
    # A checkpoint holds arrays alone: the report goes in as the bytes of its JSON.
    report = np.frombuffer(json.dumps(output.report).encode(), np.uint8)
    return {"features": output.features, "log_probs": output.log_probs, "report": report}


def _from_tree(tree: dict[str, np.ndarray]) -> TunedOutput:
    return TunedOutput(tree["features"], tree["log_probs"], json.loads(tree["report"].tobytes()))


def _checked(labels: np.ndarray, train: np.ndarray, valid: np.ndarray, n: int, n_classes: int) -> np.ndarray:
    """The labels that may be used, [n] int32, and −1 everywhere else: no other label can play a part after this."""
    for name, mask in (("train", train), ("valid", valid)):
        if np.shape(mask) != (n,) or np.asarray(mask).dtype != bool:
            raise DataError(f"is no mask of {n} nodes", field=name, mend="give one bool a prompt")
        if not mask.any():
            raise DataError("has no node", field=name, mend="use a split with training and validation nodes")
    if (train & valid).any():
        node = int(np.flatnonzero(train & valid)[0])
        raise DataError(f"node {node} trains and validates", field="valid", mend="keep it in one of them")
    if np.shape(labels) != (n,):
        raise DataError(f"are not the labels of {n} nodes", field="labels", mend="give one a prompt")
    known = np.where(train | valid, labels, -1).astype(np.int32)
    used = known[train | valid]
    if used.min() < 0 or used.max() >= n_classes:
        raise DataError(f"a label is not within 0..{n_classes - 1}", field="labels", mend="leave unlabelled nodes out")
    return known


def _prepare(
    encoder: TextEncoder,
    prompts: Sequence[str],
    settings: TuneSettings,
    root: Path | None,
    on_line: Callable[[str], None] | None,
) -> _Texts:
    n_layers = encoder.model.n_layers
    if settings.tuned_layers > n_layers:
        raise ConfigError(
            f"the model has {n_layers} layers", field="tuned_layers", mend=f"tune {n_layers} or fewer of them"
        )
    first = n_layers - settings.tuned_layers
    stores = (cache_folder() if root is None else root) / "stores"
    states = token_states(encoder, prompts, layer=first, max_tokens=settings.max_tokens, root=stores, on_line=on_line)
    upper = upper_part(encoder.model, first)
    # Every fold of every split starts from what the untouched encoder says.
    return _Texts(states, upper, untouched_features(upper, states), settings)


def deal_folds(rows: np.ndarray, train: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold numbers [n] from 0 to folds − 1 of the training nodes, −1 elsewhere and with a single fold.

    Labels play no part, or the fold of a node, and with it the encoder that describes it, would depend on its label.
    Nodes with the same text are in the same fold.

    Args:
      rows: [n] number of each node's text.
      train: [n] bool.
      folds: how many.
      seed: of the order in which texts are dealt out.

    Raises:
      DataError: there are fewer distinct training texts than folds.
    """
    result = np.full(len(rows), -1, np.int32)
    texts, text_of = np.unique(rows[train], return_inverse=True)
    if len(texts) < folds:
        raise DataError(f"{len(texts)} training texts do not make {folds} folds", mend="label more nodes")
    if folds > 1:
        dealt = np.empty(len(texts), np.int32)
        dealt[np.random.default_rng([seed, len(texts)]).permutation(len(texts))] = np.arange(len(texts)) % folds
        result[train] = dealt[text_of]
    return result


def _tune(
    texts: _Texts,
    labels: np.ndarray,
    train: np.ndarray,
    valid: np.ndarray,
    n_classes: int,
    seed: int,
    on_progress: Progress,
) -> TunedOutput:
    begun = time.perf_counter()
    settings, tokens = texts.settings, texts.states.tokens
    folds = deal_folds(tokens.rows, train, settings.folds, seed)
    features, probabilities, reports = [], [], []
    for k in range(settings.folds):
        seen = train & (folds != k)
        classifier, report = fit_classifier(
            texts.states,
            texts.upper,
            texts.features,
            labels,
            seen,
            valid,
            n_classes,
            settings,
            seed=(seed, k),
            on_progress=_shifted(on_progress, k * settings.epochs),
        )
        of_rows, logits = classifier.read_out(texts.states, np.arange(len(tokens.lengths)))
        features.append(of_rows[tokens.rows])
        probabilities.append(np.asarray(jax.nn.softmax(logits))[tokens.rows])
        absent = n_classes - len(np.unique(labels[seen]))
        reports.append({**report, "n_labels": int(seen.sum()), "n_absent_classes": absent})
    return TunedOutput(
        features=described(np.stack(features), folds),
        log_probs=np.log(np.maximum(described(np.stack(probabilities), folds), 1e-9)),
        report={
            **{name: [report[name] for report in reports] for name in reports[0]},
            "cosine_between_folds": _agreement(features[0][~train], features[-1][~train]),
            "tuned_parameters": texts.upper.n_parameters,
            "n_tokens": int(tokens.offsets[-1]),
            "n_truncated": tokens.n_truncated,
            "state_bytes": texts.states.n_bytes,
            "train_seconds": round(time.perf_counter() - begun, 3),
        },
    )


def described(of_folds: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """[K, n, …] to [n, …]: a training node by the encoder of its own fold, every other node by the mean of all."""
    mean = of_folds.mean(axis=0)
    own = np.flatnonzero(folds >= 0)
    mean[own] = of_folds[folds[own], own]
    return mean


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
