"""The student of ``jaxgkd run lmgnn`` as a program: tokens of texts and typed edges go in, answers come out.

The whole language model is part of it: the layers that no stage trained, which a run does not keep, come from where
the run had found them. Texts are read some at a time, so that what they take does not grow with their number.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgkd.export.program import Input, Program
from jaxgkd.graphs import reverse_of
from jaxgkd.graphs.traced_hetero import traced_hetero_layout
from jaxgkd.language import Encoder
from jaxgkd.language.tokens import TOKENIZER_FILES
from jaxgkd.nn.hetero import entering
from jaxgkd.nn.hetero_tasks import NodeTask
from jaxgkd.nn.named_weights import states_of
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.recipes.kept_hetero import GNN, IDS, LM, hetero_maker, hetero_task, in_unit, language_model
from jaxgkd.recipes.lmgnn_texts import frozen_layers, unit_mean
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.token_states import lower_part, upper_part
from jaxgkd.training.checkpoint import from_leaves, leaves_by_name
from jaxgkd.training.student_folder import KeptStudent

#: Texts that the language model reads at a time, and pairs that are answered.
TEXTS_AT_ONCE, PAIRS_AT_ONCE = 16, 512
_BELOW = "below."
_Arrays = Mapping[str, Array]


def hetero_program(kept: KeptStudent) -> Program:
    """From the texts, features and edges of a typed graph to an answer for every node of a type, or every pair asked.

    Raises:
      CheckpointError: the language model is not the one of the run.
    """
    task, encoder, make = hetero_task(kept), language_model(kept), hetero_maker(kept)
    layer = frozen_layers(encoder.model, kept.reads["tuned_layers"])
    below_graphdef, below = nnx.split(lower_part(encoder.model, layer))
    upper_graphdef, upper = nnx.split(upper_part(encoder.model, layer))
    graphdef, types = graphdef_of(make), list(kept.model["d_in"])
    relations = [(source, name, target) for source, name, target in kept.reads["relations"]]

    def call(weights: _Arrays, given: _Arrays) -> Array:
        lower = nnx.merge(below_graphdef, from_leaves(_named(weights, _BELOW), below))
        higher = nnx.merge(upper_graphdef, from_leaves(_named(weights, LM), upper))

        def embeddings(texts: tuple[Array, Array]) -> Array:
            tokens, lengths = texts
            mask = (jnp.arange(tokens.shape[1]) < lengths[:, None]).astype(jnp.int32)
            states = lower.network.embed(lower.config, lower.weights(), tokens, mask)
            # In the precision in which a run keeps these states on disk.
            states = _last_state(lower, states, mask).astype(jnp.float16).astype(jnp.float32)
            return unit_mean(_last_state(higher, states, mask), mask)

        of_texts, others = {}, {}
        for name in types:
            if name in kept.reads["texts"]:
                texts = given[f"tokens_{name}"], given[f"lengths_{name}"]
                of_texts[name] = _some_at_a_time(embeddings, texts, TEXTS_AT_ONCE)
            if name in kept.reads["features"]:
                others[name] = given[f"features_{name}"]
            elif name not in of_texts:
                others[name] = given[f"rows_{name}"]
        inputs = entering(of_texts, others, types)
        ends = {}
        # In the run's order, by which the network numbers relations.
        for kind in relations:
            senders, receivers = (given[f"{end}_{_shown(kind)}"] for end in ("senders", "receivers"))
            ends |= {kind: (senders, receivers), reverse_of(kind): (receivers, senders)}
        layout = traced_hetero_layout(ends, {name: values.shape[0] for name, values in inputs.items()})
        network = nnx.merge(graphdef, *states_of(make, _named(weights, GNN)))
        states = network.states(inputs, layout)
        if isinstance(task, NodeTask):
            said = task.outputs(network, states, jnp.arange(inputs[task.node_type].shape[0]))
        else:
            pairs = given["src"], given["dst"]
            said = _some_at_a_time(lambda of: task.outputs(network, states, *of), pairs, PAIRS_AT_ONCE)
        return jax.nn.softmax(said) if kept.says["kind"] == "classes" else in_unit(kept, said)

    beside = {f"{_BELOW}{name}": leaf for name, leaf in leaves_by_name(below).items()}
    if not any(name.startswith(LM) for name in kept.weights):
        beside |= {f"{LM}{name}": leaf for name, leaf in leaves_by_name(upper).items()}
    inputs = _inputs(kept, encoder)
    n = inputs["src"].shape[0] if "src" in inputs else f"n{types.index(kept.model['node_type'])}"
    output, about = {
        "classes": ((n, len(kept.says.get("names", ()))), "a probability for each class, in their order"),
        "values": ((n, 1), "a number in the unit of the labels"),
        "scores": ((n,), "higher for likelier links of one src"),
    }[kept.says["kind"]]
    folder = encoder.tokenizer.folder
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    limits = tuple(f"t{types.index(name)} <= {kept.reads['max_tokens']}" for name in kept.reads["texts"])
    return Program(call, inputs, output, about, limits, beside, files)


def _inputs(kept: KeptStudent, encoder: TextEncoder) -> dict[str, Input]:
    """What goes in: a symbol for every type's number of nodes and longest text, and for every relation's edges."""
    reads, width, inputs = kept.reads, kept.reads["max_tokens"], {}
    for number, name in enumerate(kept.model["d_in"]):
        n = f"n{number}"
        if name in reads["texts"]:
            about = f"ids by the tokenizer beside, of every {name}'s text: its columns, but for empty ones, with a line"
            about += f" break between them; cut to {width}, filled with {encoder.tokenizer.padding_id}"
            inputs[f"tokens_{name}"] = Input((n, f"t{number}"), "int32", about)
            inputs[f"lengths_{name}"] = Input((n,), "int32", f"tokens of every {name}'s text, 1 or more")
        if name in reads["features"]:
            inputs[f"features_{name}"] = Input((n, reads["features"][name]), "float32", f"of every {name}")
        elif name not in reads["texts"]:
            inputs[f"rows_{name}"] = Input((n,), "int32", f"place of every {name} in {IDS}")
    for number, (source, name, target) in enumerate(reads["relations"]):
        for end, of in (("senders", source), ("receivers", target)):
            about = f"row of a {of} at every edge, each edge once, in one direction"
            inputs[f"{end}_{_shown((source, name, target))}"] = Input((f"e{number}",), "int32", about)
    if "edge_type" in kept.model:
        source, name, target = kept.model["edge_type"]
        for end, of in (("src", source), ("dst", target)):
            about = f"row of a {of} of every pair that is asked about, which is not among the edges of {name}"
            inputs[end] = Input(("q",), "int32", about)
    return inputs


def _last_state(model: Encoder, states: Array, mask: Array) -> Array:
    """[b, t, d] above all layers; in one piece, since symbols cannot be compared, as blocks of a size would need."""
    network, config = model.network, model.config
    return network.read_between(config, model.weights(), states, mask, (0, config.n_layers), lambda each: each)[:, -1]


def _some_at_a_time(function: Callable[[Any], Array], rows: tuple[Array, ...], size: int) -> Array:
    """A function of rows of arrays [n, ...], on ``size`` of them after one another."""
    n = rows[0].shape[0]
    blocks = (n + size - 1) // size

    def cut(array: Array) -> Array:
        filled = jnp.concatenate([array, jnp.zeros((size - 1, *array.shape[1:]), array.dtype)])
        return filled[: blocks * size].reshape(blocks, size, *array.shape[1:])

    found = jax.lax.map(function, tuple(map(cut, rows)))
    return found.reshape(blocks * size, *found.shape[2:])[:n]


def _named(weights: _Arrays, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): leaf for name, leaf in weights.items() if name.startswith(prefix)}


def _shown(kind: tuple[str, str, str]) -> str:
    return "__".join(kind)
