"""What ``jaxgkd data check`` says of a typed graph: every node type and every relation by itself."""

from typing import Any, cast

import numpy as np

from jaxgkd.data.graph_counts import edge_homophily, linked_pairs
from jaxgkd.data.hetero_graphs import EdgeSet, EdgeType, HeteroGraph, NodeSet, describe_hetero, shown_type
from jaxgkd.data.text_counts import describe_classes, describe_split, describe_texts


def check_hetero(graph: HeteroGraph) -> dict[str, Any]:
    """Counts by node type (``node_types``) and by relation (``relations``), tasks and notes."""
    known = describe_hetero(graph)
    isolated = known["isolated"]
    assert isinstance(isolated, dict)
    return {
        "name": graph.name,
        "sha256": graph.sha256,
        "node_types": {name: _nodes(nodes) | {"isolated": isolated[name]} for name, nodes in graph.nodes.items()},
        "relations": {shown_type(kind): _edges(graph, kind, edges) for kind, edges in graph.edges.items()},
        "tasks": known["tasks"],
        "notes": list(graph.notes),
    }


def _nodes(nodes: NodeSet) -> dict[str, Any]:
    facts: dict[str, Any] = {"nodes": len(nodes)}
    facts |= {"without_text": len(nodes)} if nodes.texts is None else describe_texts(nodes.texts)
    if nodes.features is not None:
        facts["features"] = cast(tuple[int, int], nodes.features.shape)[1]
    if nodes.labels is None:
        return facts
    if nodes.class_names:
        facts |= describe_classes(nodes.labels, nodes.class_names)
        return facts | {"given_split": describe_split(nodes.given_split, nodes.labels >= 0)}
    values = nodes.labels[np.isfinite(nodes.labels)]
    facts |= {"labelled": len(values), "labelled_share": len(values) / max(len(nodes), 1)}
    facts["values"] = {"least": float(values.min()), "mean": float(values.mean()), "greatest": float(values.max())}
    return facts | {"given_split": describe_split(nodes.given_split, np.isfinite(nodes.labels))}


def _edges(graph: HeteroGraph, kind: EdgeType, edges: EdgeSet) -> dict[str, Any]:
    source, _, target = kind
    out, into = (
        np.bincount(ends, minlength=len(graph.nodes[node_type]))
        for ends, node_type in ((edges.senders, source), (edges.receivers, target))
    )
    facts: dict[str, Any] = {
        "edges": len(edges),
        f"{source} without any": int((out == 0).sum()),
        f"{target} without any" if target != source else f"{target} led to by none": int((into == 0).sum()),
        "most of one source": int(out.max()),
        "most of one destination": int(into.max()),
    }
    if source == target:
        facts["self_links"] = int((edges.senders == edges.receivers).sum())
        labels = graph.nodes[source].labels
        if labels is not None and graph.nodes[source].class_names:
            homophily, adjusted = edge_homophily(linked_pairs(edges.senders, edges.receivers), labels)
            facts |= {"homophily": homophily, "adjusted_homophily": adjusted}
    if edges.labels is not None:
        facts |= describe_classes(edges.labels, edges.class_names)
    if edges.given_split is not None:
        facts["given_split"] = describe_split(edges.given_split)
    return facts
