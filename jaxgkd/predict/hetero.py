"""A typed graph through the student of ``jaxgkd run lmgnn``: its language model reads, its network answers.

A student that was trained on nodes answers for every node of its type. One that was trained on edges answers for the
pairs it is given, which pass no messages themselves, as in training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from json import loads
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
from jax import Array

from jaxgkd.data.hetero_graphs import EdgeType, HeteroGraph, NodeSet, shown_type
from jaxgkd.data.mentions import with_mentions
from jaxgkd.errors import ConfigError, DataError, shown
from jaxgkd.graphs import build_hetero_layout
from jaxgkd.nn.hetero import entering
from jaxgkd.nn.hetero_tasks import Nodes, NodeTask, Pairs
from jaxgkd.nn.untrained import graphdef_of
from jaxgkd.predict.columns import class_columns
from jaxgkd.predict.outcome import Outcome
from jaxgkd.predict.output_file import OutputFile
from jaxgkd.predict.pairs import AskedPairs, read_pairs
from jaxgkd.recipes.kept_hetero import IDS, hetero_maker, hetero_task, in_unit, language_model, weights_of_member
from jaxgkd.recipes.lmgnn_networks import model_outputs
from jaxgkd.recipes.lmgnn_texts import graph_texts
from jaxgkd.training.student_folder import KeptStudent


def predict_hetero(
    kept: KeptStudent,
    members: Sequence[int],
    graph: HeteroGraph,
    out: OutputFile,
    *,
    pairs: Path | None = None,
    on_line: Callable[[str], None],
) -> Outcome:
    """Write what the student says of nodes, or of pairs of them.

    A row holds ``node``, or ``src`` and ``dst``; then ``class`` and ``p_<class>`` of every class, ``predicted``, or
    ``score``, which is higher for likelier links of one ``src``; and ``problem``.

    Args:
      kept: the student.
      members: whose probabilities, values or scores are averaged.
      graph: with the node types and relations of the run's own; tasks and labels play no part. A relation may be
        missing, as may nodes of a type that is known by its texts or features.
      out: where rows are written, one a node of the run's type or one a pair, in their order.
      pairs: table with ``src`` and ``dst``, of a student that answers for edges.
      on_line: called with a line before the language model is run.

    Raises:
      DataError: the graph is of other types, has nodes that only their own row in the run's graph would describe, or
        none of the pairs is of its nodes.
      ConfigError: pairs are missing, or given to a student that answers for nodes.
      CheckpointError: the language model is not the one of the run.
    """
    reads, task = kept.reads, hetero_task(kept)
    if isinstance(task, NodeTask) != (pairs is None):
        about = f"nodes of type {task.node_type}" if isinstance(task, NodeTask) else shown_type(task.edge_type)
        what = f"the student answers for {about}" if pairs else f"the student answers for pairs of {about}"
        mend = "leave it out" if pairs else "give a table with the columns src and dst"
        raise ConfigError(what, field="--pairs", mend=mend)
    if reads.get("mentions"):
        graph = with_mentions(graph, [tuple(kind) for kind in reads["relations"]])
    nodes, passing = _nodes(kept, graph), _passing(kept, graph)
    problems: Mapping[int, str] = {}
    if isinstance(task, NodeTask):
        ids, outcome = {"node": [str(key) for key in nodes[task.node_type].ids]}, Outcome("nodes")
        n = len(ids["node"])
        # The header of a table is its row 1.
        outcome.add(list(range(2, n + 2)), problems)
        asked = Nodes(jnp.arange(n), jnp.zeros((n, 0)), jnp.ones(n))
    else:
        assert pairs is not None
        listed = read_pairs(pairs, [(name, nodes[name]) for name in (task.edge_type[0], task.edge_type[2])])
        ids, problems, outcome = listed.ids, listed.problems, Outcome("pairs")
        if len(problems) == len(listed.rows):
            what = f"no pair can be answered for ({problems[0]})"
            raise DataError(what, file=pairs, row=listed.rows[0], mend="name nodes of --data")
        outcome.add(listed.rows, problems)
        passing[task.edge_type] = _others_than(listed, *passing[task.edge_type], len(nodes[task.edge_type[2]]))
        n = len(listed.rows)
        asked = Pairs(jnp.asarray(listed.senders), jnp.asarray(listed.receivers), jnp.zeros((n, 0)), jnp.ones(n))
    encoder, known = language_model(kept), replace(graph, nodes=nodes)
    texts = graph_texts(
        known, encoder, tuned_layers=reads["tuned_layers"], max_tokens=reads["max_tokens"], on_line=on_line
    )
    layout, others = build_hetero_layout(passing, known.n_node), _others(kept, nodes)
    make, said = hetero_maker(kept), []
    for member in members:
        lm, (params, rest) = weights_of_member(kept, member, texts.weights)
        of_texts = texts.by_type(jnp.asarray(texts.read(lm)))
        inputs = entering(of_texts, others, nodes)
        outputs = model_outputs(graphdef_of(make), task, params, rest, inputs, layout, asked)
        values = np.asarray(outputs, np.float64)
        classes = kept.says["kind"] == "classes"
        said.append(scipy.special.softmax(values, axis=-1) if classes else in_unit(kept, values))
    out.write(_columns(kept.says, ids, np.mean(said, axis=0), problems))
    return outcome


def _columns(
    says: Mapping[str, Any], ids: dict[str, list[str]], mean: np.ndarray, problems: Mapping[int, str]
) -> dict[str, Any]:
    """Of classes [n, c] their probabilities, of values [n, 1] or scores [n] a number each."""
    if says["kind"] == "classes":
        return class_columns(ids, says["names"], mean, problems)
    values = mean.reshape(len(mean)).astype(np.float32)
    values[list(problems)] = np.nan
    name = "score" if says["kind"] == "scores" else "predicted"
    return {**ids, name: values, "problem": [problems.get(i) for i in range(len(values))]}


def _others_than(
    listed: AskedPairs, senders: np.ndarray, receivers: np.ndarray, n_receiver: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the edges that are not asked about."""
    there = np.ones(len(listed.rows), bool)
    there[list(listed.problems)] = False
    asked = listed.senders.astype(np.int64) * n_receiver + listed.receivers
    kept = ~np.isin(senders.astype(np.int64) * n_receiver + receivers, asked[there])
    return senders[kept], receivers[kept]


def _nodes(kept: KeptStudent, graph: HeteroGraph) -> dict[str, NodeSet]:
    """The nodes of every type, in the order of the run's types, with the texts that the run read."""
    reads, types = kept.reads, list(kept.model["d_in"])
    unread = set() if kept.model["layers"] == 0 else set(graph.nodes) - set(types)
    if odd := sorted(unread | (set(types) - set(graph.nodes))):
        there = "has nodes of type" if odd[0] in graph.nodes else "has no nodes of type"
        mend = f"give a graph with nodes of {', '.join(types)}"
        raise DataError(f"{graph.name} {there} '{shown(odd[0])}'", field="--data", mend=mend)
    found = {}
    for name in types:
        nodes = graph.nodes[name]
        if name in reads["texts"] and nodes.texts is None:
            what = f"nodes of type {name} have no text, which the run read"
            raise DataError(what, field="--data", mend="name its columns in metadata.json")
        width = reads["features"].get(name)
        has = None if nodes.features is None or nodes.features.shape is None else nodes.features.shape[1]
        if width is not None and has != width:
            what = f"nodes of type {name} have {has or 'no'} features, the run read {width}"
            raise DataError(what, field="--data", mend=f"give features_{name}.npz as the run's own")
        found[name] = nodes if name in reads["texts"] else replace(nodes, texts=None)
    return found


def _passing(kept: KeptStudent, graph: HeteroGraph) -> dict[EdgeType, tuple[np.ndarray, np.ndarray]]:
    """The ends of the edges that pass messages, relations in the run's order; those that are missing have none."""
    if kept.model["layers"] == 0:
        return {}
    none = np.zeros(0, np.int32)
    relations: list[EdgeType] = [(source, name, target) for source, name, target in kept.reads["relations"]]
    for kind in graph.edges:
        if kind not in relations and kind[1] not in kept.reads["without"]:
            what = f"{graph.name} has the relation {shown(shown_type(kind))}, which the run did not know"
            known = ", ".join(map(shown_type, relations))
            raise DataError(what, field="--data", mend=f"leave it out; known are {known}")
    ends = {kind: graph.edges.get(kind) for kind in relations}
    return {kind: (none, none) if of is None else (of.senders, of.receivers) for kind, of in ends.items()}


def _others(kept: KeptStudent, nodes: dict[str, NodeSet]) -> dict[str, Array]:
    """What enters beside texts: features, or the rows that nodes had in the run's own graph."""
    others = {}
    for name in kept.reads["features"]:
        features = nodes[name].features
        assert features is not None
        others[name] = jnp.asarray(features.toarray())
    ids = loads(kept.files[IDS]) if kept.reads["learned"] else {}
    for name in kept.reads["learned"]:
        row_of = {key: row for row, key in enumerate(ids[name])}
        keys = [str(key) for key in nodes[name].ids]
        if new := [(row, key) for row, key in enumerate(keys, start=2) if key not in row_of]:
            row, key = new[0]
            what = f"'{shown(key)}' has neither text nor features and was not in the run's own graph"
            mend = f"leave it out, or train with a text or features of {name}"
            raise DataError(what, file=f"nodes_{name}", row=row, mend=mend)
        others[name] = jnp.asarray([row_of[key] for key in keys], jnp.int32)
    return others
