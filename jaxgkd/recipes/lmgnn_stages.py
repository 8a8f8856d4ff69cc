"""The rows of a run, stage after stage: what starts from what, and what is kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgkd.nn.hetero_problem import Drawing
from jaxgkd.nn.hetero_tasks import EdgeTask, ImitationTask, LinkTask, Nodes, NodeTask, Task
from jaxgkd.nn.untrained import graphdef_of, n_weights, shapes_of
from jaxgkd.recipes.lmgnn_config import LMGNN
from jaxgkd.recipes.lmgnn_cotraining import CoTraining, cotrain
from jaxgkd.recipes.lmgnn_data import labelled_by
from jaxgkd.recipes.lmgnn_fits import Fits
from jaxgkd.recipes.lmgnn_linking import make_likeness, tune_on_links
from jaxgkd.recipes.lmgnn_networks import node_states
from jaxgkd.recipes.lmgnn_pairs import Pair, pair_from_tree, pair_tree
from jaxgkd.recipes.lmgnn_rows import LABELS, HeteroRow, Outputs
from jaxgkd.recipes.searched_fit import Budget, SearchedFit
from jaxgkd.training.checkpoint import load_tree
from jaxgkd.training.progress import progress_bar

Tree = Any
# Negatives of a link whose texts are all read: a step of 16 texts asks for two links.
_FEW = 6
# Learning rate of a head on links while the language model is tuned.
_GENTLE = 1e-4


@dataclass(eq=False)
class Stages(Fits):
    """Trains the rows of a run in their order; a stage that is finished is read from the run's folder.

    Fields, beside those of `Fits`:
      start: the folder of another run, whose fine-tuned language models are used, or None.
      links: [e, 2] pairs of texts that stage 1 asks for; None where it asks for the task alone.
      rows: what is trained so far.
    """

    start: Path | None
    links: np.ndarray | None
    rows: dict[str, HeteroRow] = field(default_factory=dict)

    def run(self) -> dict[str, HeteroRow]:
        """All rows; a row that only copies another one's values is not among them."""
        seeds, config = list(range(self.config.seeds)), self.config
        lm_seeds = seeds[: config.lm_seeds] if config.stages else []
        texts_alone = self.fit("text_only", 0, seeds)
        alone = self.fit("student_alone", config.layers, seeds)
        frozen = [(None, self.table)] * len(seeds)
        self._add_fit("text_only", texts_alone, 0, frozen)
        self._add_fit("student_alone", alone, config.layers, frozen)
        if not lm_seeds:
            return self.rows
        tuned = self._stage_one(lm_seeds, texts_alone)
        self._add_pairs("teacher", tuned, 0)
        tables = [jnp.asarray(pair.table) for pair in tuned]
        on_tuned = self.fit("fine_tuned", config.layers, lm_seeds, tables)
        lms = [pair.lm for pair in tuned]
        self._add_fit("fine_tuned", on_tuned, config.layers, list(zip(lms, tables, strict=True)))
        if "cotrain" in config.stages:
            settings = on_tuned.settings
            both = [self._cotrained(s, tuned[s], _of_seed(on_tuned, s), settings) for s in lm_seeds]
            self._add_pairs("cotrained", both, config.layers)
        if "glem" in config.stages:
            self._glem(lm_seeds, tuned, on_tuned)
        if "student" in config.stages:
            self._text_students(lm_seeds, tuned, on_tuned)
        return self.rows

    @cached_property
    def _task(self) -> Task:
        return self.place.data.task

    def _train(
        self, name: str, layers: int, seed: int, settings: CoTraining, task: Task | None = None, **arguments: Any
    ) -> Pair:
        """`cotrain`, kept in the run's folder."""
        make = self.make(layers) if task is None else self.place.maker(layers, task)
        shared = arguments.pop("shared", None) or self.place.shared(self.table)
        drawing = arguments.pop("drawing", None) or self.place.drawing
        if not layers and isinstance(self._task, NodeTask):
            first = self.place.texts.first[self._task.node_type]
            arguments["validated"] = first + self.place.data.rows["valid"]

        def compute() -> Tree:
            blocks = self.blocks(layers, settings.batch_size, shared["train"], seed, task, drawing)
            with progress_bar(self.console, name, settings.steps) as tick:
                return pair_tree(
                    cotrain(
                        make,
                        task or self._task,
                        drawing,
                        self.place.texts,
                        shared,
                        settings,
                        seed=seed,
                        blocks=blocks,
                        on_progress=tick,
                        **arguments,
                    )
                )

        like = shapes_of(make)
        return pair_from_tree(self.run_dir.stage(name, compute), self.place.texts.weights, like)

    def _stage_one(self, seeds: list[int], texts_alone: SearchedFit) -> list[Pair]:
        """The fine-tuned language model of every seed with a head on it; a run to start from has them already."""
        if self.start is not None:
            start = _of_seed(texts_alone, 0)
            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), start)
            kept = [load_tree(self.start / "checkpoints" / f"lm-{seed}") for seed in seeds]
            return [pair_from_tree(tree, self.place.texts.weights, like) for tree in kept]
        if self.links is None:
            return [self._fine_tuned(seed, _of_seed(texts_alone, seed)) for seed in seeds]
        linked = [self._linked(seed, self.links) for seed in seeds]
        read = [(pair.lm, jnp.asarray(pair.table)) for pair in linked]
        heads = self.fit("linked", 0, seeds, [table for _, table in read])
        if self.config.supervision == "both":
            self._add_fit("linked", heads, 0, read, linked)
            pairs = zip(seeds, read, strict=True)
            return [self._fine_tuned(s, _of_seed(heads, s), lm=lm, embeddings=table) for s, (lm, table) in pairs]
        finished = []
        for seed, pair in zip(seeds, linked, strict=True):
            params, rest = _of_seed(heads, seed)
            seconds = pair.seconds + heads.seconds / len(seeds)
            pair = pair._replace(params=params, rest=rest, seconds=seconds, scores=_curve(heads, seed))
            # Where a run that starts from this one looks for it.
            self.run_dir.stage(f"lm-{seed}", partial(pair_tree, pair))
            finished.append(pair)
        return finished

    def _linked(self, seed: int, links: np.ndarray) -> Pair:
        name, texts = f"linked-{seed}", self.place.texts
        settings = _of_texts(self.config, max(1, self.config.lm_batch_size // 2))

        def compute() -> Tree:
            with progress_bar(self.console, name, settings.steps) as tick:
                return pair_tree(tune_on_links(links, texts, self.table, settings, seed=seed, on_progress=tick))

        make = make_likeness(texts.states.width, texts.n_texts)
        like = shapes_of(make)
        return pair_from_tree(self.run_dir.stage(name, compute), texts.weights, like)

    def _fine_tuned(
        self, seed: int, start: tuple[Tree, Tree], *, lm: Tree | None = None, embeddings: Array | None = None
    ) -> Pair:
        b, drawing, changed = self.config.lm_batch_size, self.place.drawing, {}
        if isinstance(self._task, LinkTask):
            b, drawing = few_links(drawing, b)
            # Its head has learned from a thousand links a step: what a few say must not undo that.
            changed["learning_rate"] = _GENTLE
        elif isinstance(self._task, EdgeTask):
            # Of an edge two texts are read.
            b //= 2
        settings = replace(_of_texts(self.config, max(1, b)), **changed)
        table = self.table if embeddings is None else embeddings
        return self._train(f"lm-{seed}", 0, seed, settings, start=start, lm=lm, embeddings=table, drawing=drawing)

    def _cotrained(self, seed: int, tuned: Pair, start: tuple[Tree, Tree], chosen: Mapping[str, float]) -> Pair:
        config, n_train = self.config, len(self.place.data.rows["train"])
        settings = CoTraining(
            steps=config.cotrain_steps,
            # As in stage 2, a step does not ask about more than half of the edges.
            batch_size=min(config.batch_size, max(1, n_train if isinstance(self._task, NodeTask) else n_train // 2)),
            lm_texts=config.lm_nodes_per_batch,
            lm_learning_rate=config.lm_learning_rate,
            lora_rank=config.lora_rank,
            rematerialise=config.rematerialise,
            learning_rate=config.cotrain_learning_rate,
            weight_decay=chosen["weight_decay"],
            dropout=chosen["dropout"],
            freeze_steps=config.freeze_steps,
            refresh_every=config.refresh_every,
            refresh_texts=config.refresh_texts,
            evaluate_every=100,
        )
        return self._train(
            f"cotrained-{seed}", config.layers, seed, settings, start=start, lm=tuned.lm, embeddings=tuned.table
        )

    def _glem(self, seeds: list[int], tuned: list[Pair], on_tuned: SearchedFit) -> None:
        """One round: the GNN labels for the language model, and what comes of it for the GNN."""
        task, data, config = self._task, self.place.data, self.config
        assert isinstance(task, NodeTask)
        outputs, curves, seconds, milliseconds, trained = [], [], 0.0, [], []
        settings = _of_texts(config, config.lm_batch_size)
        for seed in seeds:
            before = jnp.asarray(tuned[seed].table)
            from_gnn = self._on_all_nodes(config.layers, *_of_seed(on_tuned, seed), before)
            shared = self.place.shared(self.table, train=labelled_by(data, task, from_gnn, config.pseudo_weight))
            state = tuned[seed].params, tuned[seed].rest
            pair = self._train(
                f"glem-lm-{seed}", 0, seed, settings, shared=shared, start=state, lm=tuned[seed].lm, embeddings=before
            )
            table = jnp.asarray(pair.table)
            from_lm = self._on_all_nodes(0, pair.params, pair.rest, table)
            labelled = labelled_by(data, task, from_lm, config.pseudo_weight)
            once = Budget(self.budget.epochs, self.budget.patience, 1, 1, evaluate_every=self.budget.evaluate_every)
            found = self.fit(
                f"glem-{seed}",
                config.layers,
                [seed],
                [table],
                train=labelled,
                default=on_tuned.settings,
                budget=once,
            )
            params, rest = _of_seed(found, 0)
            outputs.append(self.place.outputs(self.make(config.layers), task, params, rest, table))
            curves.append(_curve(found, 0))
            seconds += pair.seconds + found.seconds
            milliseconds.append(pair.step_milliseconds)
            trained.append((pair.lm, params, rest))
        self._add("glem", outputs, config.layers, seconds, curves, milliseconds, on_tuned.settings, trained)

    def _text_students(self, seeds: list[int], tuned: list[Pair], on_tuned: SearchedFit) -> None:
        """Language models that imitate the GNN on all nodes but those that validate and test."""
        data, task, config, place = self.place.data, self._task, self.config, self.place
        assert isinstance(task, NodeTask)
        width = config.width * (config.layers + 1)
        imitation = ImitationTask(task.node_type, task.n_out, width)
        held_out = np.union1d(data.rows["valid"], data.rows["test"])
        rows = np.setdiff1d(np.arange(len(data.graph.nodes[task.node_type])), held_out)
        settings = _of_texts(config, config.lm_batch_size)
        pairs, outputs, without = [], [], []
        for seed in seeds:
            table = jnp.asarray(tuned[seed].table)
            state = _of_seed(on_tuned, seed)
            logits = self._on_all_nodes(config.layers, *state, table)
            graphdef, inputs = graphdef_of(self.make(config.layers)), place.inputs(table)
            states = np.asarray(node_states(graphdef, task.node_type, *state, inputs, data.layout))
            taught = np.concatenate([logits, states], axis=1)
            gold = np.asarray(data.asked["valid"].targets)
            gold = np.concatenate([gold, np.zeros((len(gold), width), np.float32)], axis=1)
            shared = place.shared(
                self.table,
                train=Nodes(jnp.asarray(rows), jnp.asarray(taught[rows]), jnp.ones(len(rows))),
                valid=data.asked["valid"]._replace(targets=jnp.asarray(gold)),
            )
            name = f"text_student-{seed}"
            found = self._train(name, 0, seed, settings, imitation, shared=shared, lm=tuned[seed].lm, embeddings=table)
            pairs.append(found)
            make, pair = place.maker(0, imitation), pairs[-1]
            said = place.outputs(make, imitation, pair.params, pair.rest, jnp.asarray(pair.table))
            outputs.append({part: values[:, : task.n_out] for part, values in said.items()})
            without.append(self._without_links(state, table))
        seconds = sum(pair.seconds for pair in pairs)
        curves = [pair.scores for pair in pairs]
        milliseconds = [pair.step_milliseconds for pair in pairs]
        trained = [(pair.lm, pair.params, pair.rest) for pair in pairs]
        self._add("text_student", outputs, 0, seconds, curves, milliseconds, {}, trained)
        of_seeds = [(pair.lm, *_of_seed(on_tuned, seed)) for pair, seed in zip(tuned, seeds, strict=True)]
        self._add("without_links", without, config.layers, 0.0, [], [], {}, of_seeds)

    def _without_links(self, state: tuple[Tree, Tree], table: Array) -> Outputs:
        """What the GNN says where nodes that validate and test have no links."""
        data, task = self.place.data, self._task
        assert isinstance(task, NodeTask)
        held_out = np.union1d(data.rows["valid"], data.rows["test"])
        alone = self.place.with_alone(task.node_type, held_out, self.config.without)
        return alone.outputs(self.make(self.config.layers), task, *state, table)

    def _on_all_nodes(self, layers: int, params: Tree, rest: Tree, table: Array) -> np.ndarray:
        """[n, classes] logits of all nodes of the task's type."""
        task = self._task
        assert isinstance(task, NodeTask)
        n = len(self.place.data.graph.nodes[task.node_type])
        everyone = Nodes(jnp.arange(n), jnp.zeros((n, task.n_out)), jnp.ones(n))
        return self.place.ask(self.make(layers), task, params, rest, table, everyone)

    def _add_fit(
        self,
        name: str,
        found: SearchedFit,
        layers: int,
        read: list[tuple[Tree | None, Array]],
        trained_before: Sequence[Pair] = (),
    ) -> None:
        """A row of networks that read a table.

        ``read`` are of every seed the language model's layers, None where they are frozen, and what they say;
        ``trained_before`` is how these came about, whose time counts as the row's.
        """
        make, states = self.make(layers), [_of_seed(found, seed) for seed in range(len(read))]
        outputs = [self.place.outputs(make, self._task, *s, table) for s, (_, table) in zip(states, read, strict=True)]
        curves = [_curve(found, seed) for seed in range(len(read))]
        milliseconds = self.place.milliseconds(make, *states[0], read[0][1])
        trained = [(lm, *state) for state, (lm, _) in zip(states, read, strict=True)]
        seconds = found.seconds + sum(pair.seconds for pair in trained_before)
        steps = [pair.step_milliseconds for pair in trained_before]
        self._add(name, outputs, layers, seconds, curves, steps, found.settings, trained, milliseconds=milliseconds)

    def _add_pairs(self, name: str, pairs: list[Pair], layers: int) -> None:
        make = self.make(layers)
        said = [self.place.outputs(make, self._task, pair.params, pair.rest, jnp.asarray(pair.table)) for pair in pairs]
        seconds, curves = sum(pair.seconds for pair in pairs), [pair.scores for pair in pairs]
        trained = [(pair.lm, pair.params, pair.rest) for pair in pairs]
        self._add(name, said, layers, seconds, curves, [pair.step_milliseconds for pair in pairs], {}, trained)

    def _add(
        self,
        name: str,
        outputs: list[Outputs],
        layers: int,
        seconds: float,
        curves: list[dict[int, float]],
        step_milliseconds: list[float],
        settings: Mapping[str, float],
        trained: Sequence[tuple[Tree | None, Tree, Tree]],
        *,
        milliseconds: float | None = None,
    ) -> None:
        network = n_weights(self.make(layers))
        missing: list[Outputs | None] = [None] * (self.config.seeds - len(outputs))
        self.rows[name] = HeteroRow(
            label=LABELS[name],
            outputs=[*outputs, *missing],
            parameters=network + (0 if trained[0][0] is None else _size(self.place.texts.weights)),
            milliseconds=milliseconds,
            seconds=seconds,
            settings=settings,
            curves=curves,
            step_milliseconds=float(np.median(step_milliseconds)) if step_milliseconds else None,
            trained=trained,
        )


def few_links(drawing: Drawing, n_texts: int) -> tuple[int, Drawing]:
    """How many links a step asks for, and how it draws their negatives, so that it names so many texts at most.

    All of them can then be read anew. Negatives of the step itself are among its links' ends.
    """
    if drawing.negatives == "in_batch":
        return max(2, n_texts // 2), drawing
    k = max(1, min(drawing.n_negatives, _FEW, n_texts // 2 - 2))
    # Joint negatives are those of all links.
    b = (n_texts - k) // 2 if drawing.negatives == "joint" else n_texts // (2 + k)
    return max(1, b), replace(drawing, n_negatives=k)


def _of_texts(config: LMGNN, batch_size: int) -> CoTraining:
    """How a language model is trained through a head on its texts alone, so many nodes or edges a step."""
    return CoTraining(
        steps=config.lm_steps,
        batch_size=batch_size,
        lm_texts=config.lm_batch_size,
        lm_learning_rate=config.lm_learning_rate,
        lora_rank=config.lora_rank,
        rematerialise=config.rematerialise,
        weight_decay=config.weight_decay,
        dropout=config.dropout,
        # Texts that no step has read, such as those of negatives, are read again at every validation.
        refresh_every=config.lm_steps + 1,
        evaluate_every=max(1, config.lm_steps // 2),
    )


def _of_seed(found: SearchedFit, seed: int) -> tuple[Tree, Tree]:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[seed]), (found.params, found.rest))


def _curve(found: SearchedFit, seed: int) -> dict[int, float]:
    values = found.curves["valid"][seed]
    return {int(e): float(v) for e, v in zip(found.epochs, values, strict=True) if np.isfinite(v)}


def _size(tree: Tree) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
