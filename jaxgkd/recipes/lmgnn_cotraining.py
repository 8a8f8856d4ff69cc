"""A language model trained through a graph network, a few texts a step.

A step asks for b nodes or edges. Of the texts of these nodes, or of the edges' ends and of links' negatives, k are read
by the language model as it is now, and gradients flow into it through them; all others enter the graph network as a
table of embeddings remembers them. What was read is written back; every r steps the texts that were read longest ago
are read again. With k texts of k nodes and no convolutions this is plain fine-tuning.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from jaxgkd.errors import ConfigError
from jaxgkd.language.lora import LoraConfig, initial_adapters, merge
from jaxgkd.nn.hetero import entering
from jaxgkd.nn.hetero_block_problem import AskedBlock, block_states
from jaxgkd.nn.hetero_problem import Drawing, asked_for, score
from jaxgkd.nn.hetero_tasks import HeteroModel, ImitationTask, Links, LinkTask, NodeTask, Task, mean_loss
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.lmgnn_batches import TaskBlocks
from jaxgkd.recipes.lmgnn_texts import GraphTexts, embedding, embedding_again
from jaxgkd.training.execution import execution
from jaxgkd.training.soundness import MOST_SKIPPED, choose, sound
from jaxgkd.training.underway import generator, generator_state, underway

Tree = Any
# Gradients of the language model are scaled down to this norm, and those of the graph network to this one.
_MAX_NORM = 1.0


@dataclass(frozen=True)
class CoTraining:
    """How long and how fast both are trained.

    Fields:
      steps: in all; batch_size: nodes or edges a step asks for.
      lm_texts: k, texts a step that the language model reads with gradients.
      lm_learning_rate: reached after a tenth of the steps, from where it falls linearly to 0; learning_rate: of the
        graph network.
      weight_decay: of the language model's kernels, and of the graph network.
      dropout: of the graph network.
      freeze_steps: before which the language model stays as it is.
      refresh_every: r; refresh_texts: how many texts are read again then.
      evaluate_every: steps between validations.
      lora_rank: of adapters beside the language model's queries and values, which alone are trained; 0 trains all of
        its weights.
      rematerialise: whether the gradient computes the language model's layers once more instead of keeping what is in
        them.
    """

    steps: int
    batch_size: int
    lm_texts: int
    lm_learning_rate: float = 1e-4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    dropout: float = 0.3
    freeze_steps: int = 0
    refresh_every: int = 50
    refresh_texts: int = 512
    evaluate_every: int = 100
    lora_rank: int = 0
    rematerialise: bool = False


class CoTrained(NamedTuple):
    """The state at the best validation.

    Fields:
      lm: weights of the language model's upper layers; params, rest: of the graph network.
      table: [texts, d] float32 embeddings by that language model.
      best_step: 0 where no step was better than the start; scores: step → validation score.
      seconds: of all; step_milliseconds: the median of a step without evaluation.
    """

    lm: Tree
    params: Tree
    rest: Tree
    table: np.ndarray
    best_step: int
    scores: dict[int, float]
    seconds: float
    step_milliseconds: float


def cotrain(
    make: Callable[[Array], HeteroModel],
    task: Task,
    drawing: Drawing,
    texts: GraphTexts,
    shared: Mapping[str, Any],
    settings: CoTraining,
    *,
    seed: int,
    start: tuple[Tree, Tree] | None = None,
    lm: Tree | None = None,
    embeddings: ArrayLike | None = None,
    validated: np.ndarray | None = None,
    blocks: TaskBlocks | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> CoTrained:
    """Train a language model and a graph network on a task, and keep the best of both by validation.

    Args:
      make: the graph network from a key.
      task, drawing: what is asked; of edges ``settings.batch_size`` are drawn.
      texts: of the graph.
      shared: see `hetero_problem`; of its ``inputs`` a text's columns, the first ones, are those of ``table`` instead.
      settings: of the training.
      seed: of batches, dropout and, without ``start``, the initial weights.
      start: parameters and other state of the graph network; drawn where there are none.
      lm: weights of the upper layers; those of the untouched language model by default.
      embeddings: [texts, d] of all texts by ``lm``, which are made where they are not given.
      validated: [m] the texts that validation looks at, which are read before it; all by default. A network without
        convolutions looks at few, and reading all of them would take as long as the training does.
      blocks: around what a step asks for, which it then reads in place of the whole graph.
      on_progress: called with the step and the last validation score.

    Raises:
      ConfigError: a loss was not finite.
    """
    begun = time.perf_counter()
    graphdef = graphdef_of(make)
    params, rest = start or nnx.split(make(jax.random.key(seed)), nnx.Param, ...)[1:]
    base = jax.tree.map(jnp.asarray, texts.weights if lm is None else lm)
    lora = LoraConfig(settings.lora_rank) if settings.lora_rank else None
    learning: Tree = base
    if lora is not None:
        learning = initial_adapters(nnx.merge(texts.graphdef, base), lora, key=jax.random.key(seed))
    # A step writes over what it is given, which is the caller's here.
    trained = jax.tree.map(jnp.copy, {"lm": learning, "gnn": params})
    skip = execution().on_nan == "skip"
    sizes = (tuple(texts.first.items()), tuple(texts.n_node.items()))
    program = _Program(graphdef, texts.graphdef, task, drawing, *sizes, skip, lora, settings.rematerialise)

    def read(learning: Tree, rows: np.ndarray | None) -> np.ndarray:
        return texts.read(_language_model(program, base, learning), rows)

    rates = _Rates(
        settings.lm_learning_rate, settings.learning_rate, settings.weight_decay, settings.freeze_steps, settings.steps
    )
    random = np.random.default_rng([seed, 11])
    key = jax.random.key(seed)
    n_train = len(shared["train"].weights)
    with underway(astuple(settings), seed, base, trained, rest, shared, texts.n_texts) as training:
        moments = _optimizer(rates).init(trained)
        # Written over in place by every step: the caller's stays as it is.
        table = jnp.array(texts.read(base) if embeddings is None else embeddings)
        age, done, skipped = np.zeros(texts.n_texts, int), 0, 0
        looked_at = slice(None) if validated is None else validated
        scores = {0: float(_score(program, trained["gnn"], rest, table, shared))}
        best = (jax.tree.map(np.asarray, trained), rest, np.asarray(table), 0)
        order, times = np.empty(0, int), []
        if kept := training.kept():
            done = kept.position
            trained, rest, moments, table = kept.like("state", (trained, rest, moments, table))
            best, age = kept.like("best", (best, age))
            host = kept.arrays("host")
            order, times, random = host["order"], host["times"].tolist(), generator(host["random"])
            scores = dict(zip(host["scored"].tolist(), host["scores"].tolist(), strict=True))

        def parts() -> dict[str, Tree]:
            host = {"order": order, "times": np.array(times), "random": generator_state(random)}
            host |= {"scored": np.array(list(scores)), "scores": np.array(list(scores.values()))}
            return {"state": (trained, rest, moments, table), "best": (best, age), "host": host}

        for step in range(done + 1, settings.steps + 1):
            if len(order) < min(settings.batch_size, n_train):
                order = random.permutation(n_train)
            chosen, order = order[: settings.batch_size], order[settings.batch_size :]
            at, step_key = time.perf_counter(), jax.random.fold_in(key, step)
            asked = jnp.asarray(chosen) if blocks is None else blocks.block(chosen, step)
            ends = _ends(program, step_key, shared, chosen, asked)
            rows = _text_rows(texts, ends, settings.lm_texts, random)
            batch = (asked, jnp.asarray(rows), *map(jnp.asarray, texts.batch(rows)))
            trained, rest, moments, table, loss = _step(
                program, rates, base, trained, rest, moments, table, step_key, settings.dropout, batch, shared
            )
            skipped = 0 if np.isfinite(float(loss)) else skipped + 1
            if skipped > (MOST_SKIPPED if skip else 0):
                raise ConfigError(f"the loss is not finite in step {step}", field="--lm-learning-rate", mend="lower it")
            times.append(time.perf_counter() - at)
            age[rows] = step
            if step % settings.refresh_every == 0 and settings.lm_learning_rate and step > settings.freeze_steps:
                stale = np.argsort(age, kind="stable")[: settings.refresh_texts]
                table = table.at[stale].set(read(trained["lm"], stale))
                age[stale] = step
            if step % settings.evaluate_every == 0 or step == settings.steps:
                if step > settings.freeze_steps:
                    table = table.at[looked_at].set(read(trained["lm"], validated))
                age[looked_at] = step
                scores[step] = float(_score(program, trained["gnn"], rest, table, shared))
                if scores[step] > scores[best[3]]:
                    best = (jax.tree.map(np.asarray, trained), rest, np.asarray(table), step)
                if on_progress is not None:
                    on_progress(step, scores[step])
            training.reached(step, parts)
    milliseconds = 1e3 * float(np.median(times)) if times else 0.0
    state, rest, table, best_step = best
    weights = _language_model(program, base, jax.tree.map(jnp.asarray, state["lm"]))
    if validated is not None and best_step:
        table = texts.read(weights)
    seconds = time.perf_counter() - begun
    weights = jax.tree.map(np.asarray, weights)
    return CoTrained(weights, state["gnn"], rest, np.asarray(table), best_step, scores, seconds, milliseconds)


@dataclass(frozen=True)
class _Program:
    """What a compiled step depends on beside its arguments."""

    graphdef: Any
    lm_graphdef: Any
    task: Task
    drawing: Drawing
    first: tuple[tuple[str, int], ...]
    n_node: tuple[tuple[str, int], ...]
    skip: bool
    lora: LoraConfig | None
    rematerialise: bool

    def inputs(self, table: Array, given: Mapping[str, Array]) -> dict[str, Array]:
        """What enters, with a text's columns, the first ones, from the table."""
        sizes, d = dict(self.n_node), table.shape[1]
        of_texts = {name: table[start : start + sizes[name]] for name, start in self.first}
        # Nothing stands behind most texts, and no column is no cost.
        others = {name: x[:, d:] if name in of_texts else x for name, x in given.items()}
        return entering(of_texts, others, given)


def _language_model(program: _Program, base: Tree, learning: Tree) -> Tree:
    """Weights of the layers, given what they were and what is trained of them: themselves, or adapters."""
    if program.lora is None:
        return learning
    return nnx.split(merge(nnx.merge(program.lm_graphdef, base), learning, program.lora))[1]


class _Rates(NamedTuple):
    """Settings of the optimizer as traced values."""

    lm: Array | float
    gnn: Array | float
    weight_decay: Array | float
    freeze_steps: Array | int
    steps: Array | int


def _optimizer(rates: _Rates) -> optax.GradientTransformation:
    def lm_rate(step: ArrayLike) -> Array:
        done = jnp.maximum(jnp.asarray(step) - rates.freeze_steps, 0.0)
        total = jnp.maximum(rates.steps - rates.freeze_steps, 1.0)
        warm = jnp.maximum(0.1 * total, 1.0)
        falling = (total - done) / jnp.maximum(total - warm, 1.0)
        return jnp.where(
            jnp.asarray(step) < rates.freeze_steps, 0.0, rates.lm * jnp.minimum((done + 1.0) / warm, falling)
        )

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), params)

    lm = optax.chain(
        optax.clip_by_global_norm(_MAX_NORM), optax.adamw(lm_rate, weight_decay=rates.weight_decay, mask=decays)
    )
    gnn = optax.chain(
        optax.clip_by_global_norm(_MAX_NORM),
        optax.add_decayed_weights(rates.weight_decay),
        optax.adam(rates.gnn),
    )
    return optax.multi_transform({"lm": lm, "gnn": gnn}, {"lm": "lm", "gnn": "gnn"})


@partial(jax.jit, static_argnames="program", donate_argnames=("trained", "moments", "table"))
def _step(program, rates, base, trained, rest, moments, table, key, dropout, batch, shared):
    chosen, rows, lm_states, lm_mask = batch
    ask_key, dropout_key = jax.random.split(key)
    dropping = {"dropout_key": dropout_key, "dropout_rate": dropout}
    if isinstance(chosen, AskedBlock):
        block, asked, layout = chosen, chosen.asked, chosen.layout
    else:
        block = None
        asked, layout = asked_for(program.task, program.drawing, ask_key, chosen, shared)

    def objective(trained):
        lm = nnx.merge(program.lm_graphdef, _language_model(program, base, trained["lm"]))
        fresh = (embedding_again if program.rematerialise else embedding)(lm, lm_states, lm_mask)
        inputs = program.inputs(table.at[rows].set(fresh), shared["inputs"])
        model = nnx.merge(program.graphdef, trained["gnn"], rest, copy=True)
        if block is None:
            states = model.states(inputs, layout, **dropping)
        else:
            inputs = {name: inputs[name][its_rows] for name, its_rows in block.nodes.items()}
            states = block_states(model, block, inputs, **dropping)
        loss = mean_loss(program.task, model, states, asked)
        return loss, (fresh, nnx.split(model, nnx.Param, ...)[2])

    (loss, (fresh, later_rest)), gradients = jax.value_and_grad(objective, has_aux=True)(trained)
    updates, later = _optimizer(rates).update(gradients, moments, trained)
    new = (optax.apply_updates(trained, updates), later_rest, later, table.at[rows].set(fresh))
    return *(choose(sound(loss, new), new, (trained, rest, moments, table)) if program.skip else new), loss


@partial(jax.jit, static_argnames="program")
def _score(program, params, rest, table, shared):
    model = nnx.merge(program.graphdef, params, rest)
    states = model.states(program.inputs(table, shared["inputs"]), shared["layout"])
    return score(program.task, model, states, shared["valid"])


def _ends(
    program: _Program, key: Array, shared: Mapping[str, Any], chosen: np.ndarray, asked: Any
) -> list[tuple[str, np.ndarray]]:
    """Node type and rows of all that a step compares: nodes, or both ends of edges and, of links, their negatives.

    Were texts read anew for edges that are there, and taken from the table for others, how new an embedding is would
    tell the two apart, and a language model learns nothing more easily.
    """
    task, train = program.task, shared["train"]
    if isinstance(task, NodeTask | ImitationTask):
        return [(task.node_type, np.asarray(train.rows)[chosen])]
    source, _, destination = task.edge_type
    ends = [(source, np.asarray(train.senders)[chosen]), (destination, np.asarray(train.receivers)[chosen])]
    if isinstance(task, LinkTask):
        if isinstance(asked, AskedBlock):
            assert isinstance(asked.asked, Links)
            where = np.asarray(asked.asked.negative_where)
            negatives = np.asarray(asked.nodes[destination])[np.asarray(asked.asked.negatives)]
        else:
            negatives, where = map(np.asarray, _drawn_negatives(program, key, asked, shared))
        ends.append((destination, np.broadcast_to(negatives, where.shape)[where]))
    return ends


@partial(jax.jit, static_argnames="program")
def _drawn_negatives(program, key, chosen, shared):
    """As `_step` draws them."""
    asked, _ = asked_for(program.task, program.drawing, jax.random.split(key)[0], chosen, shared)
    return asked.negatives, asked.negative_where


def _text_rows(
    texts: GraphTexts, ends: list[tuple[str, np.ndarray]], k: int, random: np.random.Generator
) -> np.ndarray:
    """[k] distinct texts of nodes, whatever these are asked for; others fill up."""
    rows = np.concatenate([rows + texts.first[name] for name, rows in ends if name in texts.first])
    rows = random.permutation(np.unique(rows))[:k]
    if len(rows) < k:
        others = np.setdiff1d(np.arange(texts.n_texts), rows)
        rows = np.concatenate([rows, random.choice(others, min(k - len(rows), len(others)), replace=False)])
    return rows
