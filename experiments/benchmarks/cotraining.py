"""What it costs to train a language model through a GNN: python experiments/benchmarks/cotraining.py

Subjects of wikispeedia's articles (``$JAXGKD_DATA/hetero``), 256 articles a step, an R-GCN of width 64 over the whole
graph; MiniLM's two upper layers read k = 8 texts of up to 64 tokens with gradients. Timed are that step, the same step
without the language model (all embeddings out of the table), the language model's own forward and backward pass over 8
such texts, and MiniLM over 64 articles, from which the time to encode all of them follows.
"""

import os
from pathlib import Path

import numpy as np
from sides import record, take_turns

CLAIM = "a co-training step with 8 texts beside the frozen step and the language model's own passes over these texts"


def _place():
    from jaxgkd.data.hetero_files import load_hetero_graph
    from jaxgkd.nn.hetero_problem import Drawing
    from jaxgkd.recipes.lmgnn_data import task_data
    from jaxgkd.recipes.lmgnn_networks import Workplace
    from jaxgkd.recipes.lmgnn_texts import graph_texts
    from jaxgkd.teachers.hops import TextEncoder

    graph = load_hetero_graph(Path(os.environ["JAXGKD_DATA"]) / "hetero" / "wikispeedia")
    data = task_data(
        graph, "node_classification", candidates="uniform", n_candidates=1, score="dot", loss="contrastive"
    )
    encoder = TextEncoder.load("all-MiniLM-L6-v2")
    texts = graph_texts(graph, encoder, tuned_layers=2, max_tokens=64, on_line=lambda line: None)
    return Workplace(data, texts, Drawing(), "rgcn", 64, 2, {}), encoder


def _rows(case: dict, n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(n, case["texts"], replace=False)


def together(case: dict):
    """A step of ``jaxgkd.recipes.lmgnn_cotraining.cotrain``, as it is."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxgkd.nn.untrained import graphdef_of
    from jaxgkd.recipes import lmgnn_cotraining as recipe

    place, _ = _place()
    make, texts = place.maker(2), place.texts
    n_node = tuple(texts.n_node.items())
    program = recipe._Program(
        graphdef_of(make), texts.graphdef, place.data.task, place.drawing, tuple(texts.first.items()), n_node
    )
    rates = recipe._Rates(1e-4, 1e-3, 1e-4, 0, 1000)
    _, params, rest = nnx.split(make(jax.random.key(0)), nnx.Param, ...)
    trained = {"lm": texts.weights, "gnn": params}
    state = [trained, rest, recipe._optimizer(rates).init(trained), jnp.zeros((texts.n_texts, texts.states.width))]
    shared = place.shared(state[3])
    chosen, rows = jnp.arange(case["batch"]), _rows(case, texts.n_texts)

    def step():
        batch = (chosen, jnp.asarray(rows), *map(jnp.asarray, texts.batch(rows)))
        *state[:], loss = recipe._step(program, rates, *state, jax.random.key(1), 0.3, batch, shared)
        return jax.block_until_ready(loss)

    return step


def frozen(case: dict):
    """The same step where every embedding comes out of the table."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from jaxgkd.nn.hetero_problem import asked_for
    from jaxgkd.nn.node_problem import default_optimizer
    from jaxgkd.nn.untrained import graphdef_of

    place, _ = _place()
    make, task, drawing = place.maker(2), place.data.task, place.drawing
    graphdef = graphdef_of(make)
    _, params, rest = nnx.split(make(jax.random.key(0)), nnx.Param, ...)
    optimizer = default_optimizer({"learning_rate": 1e-3, "weight_decay": 1e-4})
    state = [params, optimizer.init(params)]
    shared = place.shared(jnp.zeros((place.texts.n_texts, place.texts.states.width)))

    @jax.jit
    def train(params, moments, key, chosen, shared):
        asked, layout = asked_for(task, drawing, key, chosen, shared)

        def mean_loss(params):
            model = nnx.merge(graphdef, params, rest)
            states = model.states(shared["inputs"], layout, dropout_key=key, dropout_rate=0.3)
            return jnp.mean(task.losses(model, states, asked))

        updates, moments = optimizer.update(jax.grad(mean_loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    chosen = jnp.arange(case["batch"])

    def step():
        state[:] = jax.block_until_ready(train(*state, jax.random.key(1), chosen, shared))

    return step


def language_model(case: dict):
    """Forward and backward pass of the two upper layers over the texts of a step."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxgkd.recipes.lmgnn_texts import embedding

    place, _ = _place()
    texts = place.texts
    rows = _rows(case, texts.n_texts)

    @jax.jit
    def passes(weights, states, mask):
        return jax.grad(lambda w: jnp.sum(embedding(nnx.merge(texts.graphdef, w), states, mask) ** 3))(weights)

    return lambda: jax.block_until_ready(passes(texts.weights, *map(jnp.asarray, texts.batch(rows))))


def encode(case: dict):
    """MiniLM, all six layers, over 64 articles."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    place, encoder = _place()
    graphdef, weights = nnx.split(encoder.model)
    articles = place.data.graph.nodes["article"].texts
    batch = encoder.tokenizer.batch(list(articles[: case["encoded"]]), max_tokens=64)
    inputs = jnp.asarray(batch.input_ids), jnp.asarray(batch.attention_mask)

    @jax.jit
    def read(weights, ids, mask):
        model = nnx.merge(graphdef, weights)
        return model.pooled_states(ids, mask, layers=(encoder.model.n_layers,), pooling="mean")

    return lambda: jax.block_until_ready(read(weights, *inputs))


if __name__ == "__main__":
    case = {"batch": 256, "texts": 8, "encoded": 64, "train": 2759, "articles": 4598}
    sides = {"together": together, "frozen": frozen, "language model": language_model, "encode 64": encode}
    seconds = take_turns(sides, case, repetitions=9)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    epoch = -(-case["train"] // case["batch"]) * median["frozen"]
    everything = case["articles"] / case["encoded"] * median["encode 64"]
    record(
        "cotraining",
        CLAIM,
        [{"case": case, "seconds": seconds}],
        ours="together",
        of_frozen_and_1_3_language_model=median["together"] / (median["frozen"] + 1.3 * median["language model"]),
        encoding_over_frozen_epoch=everything / epoch,
    )
