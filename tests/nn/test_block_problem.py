from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from flax import nnx

from jaxgkd.graphs import SparseRows, from_edges, undirected
from jaxgkd.graphs.input_rows import SparseInputs, host_inputs
from jaxgkd.nn.alignment import Alignment
from jaxgkd.nn.block_problem import block_problem
from jaxgkd.nn.distilled import DistilledStudent, Objective, distillation_loss
from jaxgkd.nn.encoders import make_student
from jaxgkd.nn.layerwise import LayerwiseStudent, node_ranges
from jaxgkd.nn.node_problem import node_problem
from jaxgkd.recipes.node_batches import NodeBatches
from jaxgkd.recipes.node_splits import NodeSplits

N, WIDTH, CLASSES, HOPS, D_TEACHER, D_IN = 30, 8, 3, 2, 5, 40
SETTINGS = {"dropout": 0.0, "temperature": 2.0, "align_temperature": 0.5, "label": 1.0, "soft": 0.7, "local": 0.3}
SETTINGS = {name: jnp.float32(value) for name, value in (SETTINGS | {"relational": 0.4}).items()}


class Teacher:
    states = np.random.default_rng(5).normal(size=(N, HOPS + 1, D_TEACHER)).astype(np.float32)

    def of(self, nodes):
        return self.states[nodes] * (nodes >= 0)[:, None, None]


@pytest.fixture(scope="module")
def task():
    """Splits of a small graph, sparse inputs, and what a teacher says in two splits."""
    random = np.random.default_rng(0)
    # The last two nodes have no edge.
    senders, receivers = undirected(random.integers(0, N - 2, 70), random.integers(0, N - 2, 70))
    train = random.random((2, N)) < 0.4
    valid = ~train & (random.random((2, N)) < 0.5)
    splits = NodeSplits(
        seeds=[0, 1],
        splits=(),
        n_classes=CLASSES,
        n_rows=N,
        labels=random.integers(0, CLASSES, (2, N)).astype(np.int32),
        train=train,
        valid=valid,
        test=~train & ~valid,
        visible=np.ones((2, N), bool),
        senders=senders,
        receivers=receivers,
        train_layouts=None,
    )
    log_probs = np.log(random.dirichlet(np.ones(CLASSES), (2, N))).astype(np.float32)
    said = {"teacher_log_probs": log_probs, "taught": np.ones((2, N), bool)}
    said["aligned_classes"] = random.integers(-1, CLASSES, (2, N)).astype(np.int32)
    dense = random.normal(size=(N, D_IN)) * (random.random((N, D_IN)) < 0.1)
    return splits, SparseRows.from_scipy(scipy.sparse.csr_array(dense.astype(np.float32))), said


def make(kind, key, d_in=D_IN):
    student_key, alignment_key = jax.random.split(key)
    student = make_student(kind, d_in, WIDTH, HOPS, CLASSES, student_key, norm="batch", readout="all")
    return DistilledStudent(student, Alignment(D_TEACHER, WIDTH, HOPS + 1, 4, rngs=nnx.Rngs(alignment_key)))


TOTAL_LOSS = distillation_loss(Objective(terms=("soft", "local", "relational"), aligned_nodes=0))


def test_with_all_nodes_and_neighbours_a_step_is_that_of_the_whole_graph(task):
    kind = "gcn"
    splits, inputs, said = task
    whole = node_problem(partial(make, kind), TOTAL_LOSS)
    in_blocks = block_problem(partial(make, kind), TOTAL_LOSS)
    batches = NodeBatches(splits, said, Teacher(), batch_nodes=N + 5, fan_outs=[-1, -1])
    assert batches.groups == [[0, 1]]
    (batch,) = batches.epoch(0, host_inputs(inputs), 0)
    assert isinstance(host_inputs(inputs), SparseInputs)
    graph, layout = from_edges(inputs, splits.senders, splits.receivers, N)
    split = 1
    common = {"class_weights": jnp.asarray([1.0, 2.0, 0.5]), "settings": SETTINGS}
    of_split = {name: jnp.asarray(values[split]) for name, values in said.items()}
    run = common | of_split | {"labels": splits.labels[split], "train": splits.train[split], "taught_nodes": 0}
    shared = {"graph": graph, "layout": layout, "teacher_states": Teacher.states}
    params, rest = whole.init(jax.random.key(1), run)
    key = jax.random.key(2)

    def with_gradient(loss, *arguments):
        (value, (rest_after, _)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(*arguments)
        return value, rest_after, gradient

    expected = with_gradient(whole.loss, params, rest, key, 0.0, run, shared)
    got = with_gradient(in_blocks.loss, params, rest, key, common | {"split": jnp.int32(split)}, batch)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-4)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(got[2])) > 1e-3


@pytest.mark.parametrize("kind", ["gcn", "gin"])
def test_sampled_sums_are_those_of_all_neighbours_in_the_mean(task, kind):
    splits, _, said = task
    inputs = host_inputs(np.random.default_rng(3).normal(size=(N, 4)).astype(np.float32))
    student = make_student(kind, 4, WIDTH, 1, CLASSES, jax.random.key(0))
    graph, layout = from_edges(jnp.asarray(inputs.of(np.arange(N))), splits.senders, splits.receivers, N)
    if kind == "gin":
        # Linear in the sum, so that the mean of the states is the state of the mean.
        student.convolutions[0].first.bias[...] = jnp.full(WIDTH, 100.0)
    exact = student(graph, layout).hidden[1]
    batches = NodeBatches(splits, said, None, batch_nodes=N, fan_outs=[2])
    compiled = nnx.jit(lambda model, b: model(graph._replace(nodes=b.nodes), b.layouts, degree=b.degree).hidden[1])
    states = np.zeros((N, WIDTH))
    epochs = 400
    for epoch in range(epochs):
        (batch,) = batches.epoch(0, inputs, epoch)
        found = np.asarray(compiled(student, batch))[batch.rows]
        # Item i of the batch is found by its input.
        order = np.argsort(np.asarray(batch.nodes)[batch.rows, 0])
        states[np.argsort(inputs.of(np.arange(N))[:, 0])] += found[order] / epochs
    np.testing.assert_allclose(states, exact, atol=0.12 * float(jnp.std(exact)) + 1e-3)


def test_ranges_hold_every_edge_once(task):
    splits, _, said = task
    whole = NodeBatches(splits, said, None, batch_nodes=4, fan_outs=[1]).whole
    found = []
    for part in node_ranges(whole, nodes_at_a_time=9, edges_at_a_time=25):
        real = np.asarray(part.layout.receivers) < part.stop - part.start
        senders = part.nodes[np.asarray(part.layout.senders)[real]]
        found += list(
            zip(senders.tolist(), (part.start + np.asarray(part.layout.receivers)[real]).tolist(), strict=True)
        )
        assert part.stop - part.start <= 9
    assert sorted(found) == sorted(zip(splits.senders.tolist(), splits.receivers.tolist(), strict=True))


def test_layer_by_layer_gives_what_the_whole_graph_gives(task):
    kind = "gat"
    splits, inputs, said = task
    whole = NodeBatches(splits, said, None, batch_nodes=4, fan_outs=[1]).whole
    student = LayerwiseStudent(
        partial(make, kind), lambda m: m.student, whole, host_inputs(inputs), nodes_at_a_time=9, edges_at_a_time=25
    )
    models = [make(kind, jax.random.key(seed)) for seed in (0, 1)]
    split = [nnx.split(model, nnx.Param, ...)[1:] for model in models]
    logits, hidden = student(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *split))
    graph, layout = from_edges(inputs, splits.senders, splits.receivers, N)
    for run, model in enumerate(models):
        expected = nnx.jit(lambda model: model(graph, layout))(model)
        np.testing.assert_allclose(logits[run], expected.logits, atol=1e-5)
        np.testing.assert_allclose(hidden[run], expected.hidden[-1], atol=1e-5)
    assert student.together(6) == 6
