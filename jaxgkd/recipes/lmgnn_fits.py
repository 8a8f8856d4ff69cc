"""Networks on embeddings of texts, trained for all seeds of a row: over the whole graph, or over blocks of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from rich.console import Console

from jaxgkd.nn.hetero_block_problem import hetero_block_problem
from jaxgkd.nn.hetero_problem import Drawing, hetero_problem
from jaxgkd.nn.hetero_tasks import Nodes, Task
from jaxgkd.nn.node_problem import default_optimizer
from jaxgkd.recipes.lmgnn_batches import TaskBlocks, compressed, with_inputs
from jaxgkd.recipes.lmgnn_config import LMGNN, SPACE
from jaxgkd.recipes.lmgnn_networks import Make, Workplace
from jaxgkd.recipes.node_batches import one_for_each
from jaxgkd.recipes.searched_fit import Budget, SearchedFit, searched_fit
from jaxgkd.training.by_value import jitted
from jaxgkd.training.loop import Fit, Problem
from jaxgkd.training.run_dir import RunDirectory
from jaxgkd.training.stream_loop import StreamProblem, fit_stream

Tree = Any


@dataclass(eq=False)
class Fits:
    """Trains rows of networks that read a table of embeddings.

    Fields:
      config: the settings; place: what all rows share.
      table: [texts, d] embeddings by the language model as it was.
      budget: of every row's search; an epoch is a step over the whole graph, or a pass over all blocks.
      run_dir: where a finished row is kept.
      console: for progress.
    """

    config: LMGNN
    place: Workplace
    table: Array
    budget: Budget
    run_dir: RunDirectory
    console: Console

    def make(self, layers: int) -> Make:
        """Makes a model of so many convolutions."""
        return self.place.maker(layers)

    def fit(
        self,
        name: str,
        layers: int,
        seeds: list[int],
        tables: Sequence[Array] | None = None,
        *,
        train: Any = None,
        default: Mapping[str, float] | None = None,
        budget: Budget | None = None,
    ) -> SearchedFit:
        """Search, then train all seeds.

        Args:
          name: of the row; layers: of the network.
          seeds: one a run.
          tables: what every seed reads; by default all read what the untouched language model says.
          train: what is asked for, by default what the data asks for.
          default: settings to start from; budget: in place of the row's.
        """
        changed = {} if train is None else {"train": train}
        shared, budget = self.place.shared(self.table, **changed), budget or self.budget
        if not self.config.batch_nodes:
            problem: Any = self._over_the_graph(layers)
            inputs = [self.place.inputs(table) for table in tables or []]
            run_data = {"inputs": jax.tree.map(lambda *t: jnp.stack(t), *inputs)} if tables else {}
            train_runs = None
        else:
            problem, budget = self._over_blocks(layers), replace(budget, evaluate_every=1)
            run_data = {"table": jnp.arange(len(seeds)) if tables else jnp.zeros(len(seeds), int)}
            train_runs = _Streamed(self, layers, [np.asarray(table) for table in tables or [self.table]])
        return searched_fit(
            name,
            problem,
            run_data,
            shared,
            seeds,
            default=default or {key: getattr(self.config, key) for key in SPACE},
            space=SPACE,
            budget=budget,
            run_dir=self.run_dir,
            console=self.console,
            train_runs=train_runs,
        )

    def blocks(
        self,
        layers: int,
        batch_size: int,
        train: Any,
        seed: int,
        task: Task | None = None,
        drawing: Drawing | None = None,
    ) -> TaskBlocks | None:
        """Blocks for steps that ask for so many nodes or edges; None where steps read the whole graph."""
        if not self.config.batch_nodes:
            return None
        fan_outs = one_for_each(self.config.fan_outs, self.config.layers) if layers else []
        task, drawing = task or self.place.data.task, drawing or self.place.drawing
        if not isinstance(train, Nodes):
            # The edges a step asks about pass no messages in it: were it all, the relation would never be trained.
            batch_size = min(batch_size, max(1, len(train.weights) // 2))
        data, sizes = self.place.data, {"batch_size": batch_size, "fan_outs": fan_outs}
        return TaskBlocks(data, self._compressed, task, train, drawing, **sizes, seed=seed)

    def evaluation(self, layers: int) -> Callable[..., dict[str, Array]]:
        """Compiled: parameters, other state, a run's data and what all share to the validation score."""
        return jitted(self._over_the_graph(layers).evaluate)

    def _over_the_graph(self, layers: int) -> Problem:
        task, drawing = self.place.data.task, self.place.drawing
        return hetero_problem(self.make(layers), task, drawing, default_optimizer)

    def _over_blocks(self, layers: int) -> StreamProblem:
        return hetero_block_problem(self.make(layers), self.place.data.task, default_optimizer)

    @cached_property
    def _compressed(self) -> Any:
        return compressed(self.place.data)


@dataclass(frozen=True, eq=False)
class _Streamed:
    """`jaxgkd.training.loop.fit` over blocks; validation reads the whole graph, one run after another."""

    fits: Fits
    layers: int
    tables: list[np.ndarray]

    def __call__(self, problem, keys, run_data, shared, *, epochs, evaluate_every, patience, on_progress) -> Fit:
        fits, place = self.fits, self.fits.place
        blocks = fits.blocks(self.layers, fits.config.batch_nodes, shared["train"], 0)
        assert blocks is not None
        evaluate = fits.evaluation(self.layers)
        inputs = [place.inputs(jnp.asarray(table)) for table in self.tables]
        numbers = np.asarray(run_data["table"])

        def score(params: Tree, rest: Tree) -> dict[str, np.ndarray]:
            found = []
            for run, number in enumerate(numbers):
                state = jax.tree.map(lambda leaf, run=run: leaf[run], (params, rest))
                found.append(evaluate(*state, {}, shared | {"inputs": inputs[number]})["valid"])
            return {"valid": np.array(found)}

        return fit_stream(
            problem,
            keys,
            run_data,
            lambda epoch: with_inputs(blocks.epoch(epoch), place, self.tables),
            score,
            epochs=epochs,
            evaluate_every=evaluate_every,
            patience=patience,
            on_progress=on_progress,
        )
