"""The loss of a distilled student against numpy, for batches of rows and for flat ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.graphs import Batches, Budget, ManyGraphs, assemble, assemble_rows
from jaxgkd.nn.gine import MoleculeStates
from jaxgkd.nn.molecule_problem import (
    DistilledMolecules,
    alignments,
    batch_parts,
    default_optimizer,
    molecule_problem,
    task_loss,
)
from jaxgkd.training.batch_loop import _program

SIZES = np.array([3, 1, 4])
LAYERS, WIDTH = 2, 5
RANDOM = np.random.default_rng(0)
STUDENT = RANDOM.normal(size=(SIZES.sum(), LAYERS, WIDTH)).astype(np.float32)
TEACHER = RANDOM.normal(size=(SIZES.sum(), LAYERS, WIDTH)).astype(np.float32)
STUDENT_MOLECULES = RANDOM.normal(size=(3, LAYERS, WIDTH)).astype(np.float32)
TEACHER_MOLECULES = RANDOM.normal(size=(3, LAYERS, WIDTH)).astype(np.float32)
PLACED = np.array([True, True, False])


def graphs():
    return ManyGraphs(
        nodes={"student": STUDENT, "teacher": TEACHER},
        edges=None,
        senders=np.zeros(0, np.int64),
        receivers=np.zeros(0, np.int64),
        globals={
            "student": STUDENT_MOLECULES,
            "teacher": TEACHER_MOLECULES,
            "placed": PLACED,
            "labels": np.array([[1.0], [2.0], [4.0]], np.float32),
            "label_mask": np.array([[True], [False], [True]]),
        },
        node_start=np.concatenate([[0], np.cumsum(SIZES)]),
        edge_start=np.zeros(4, np.int64),
    )


def flat_batch():
    return jax.tree.map(jnp.asarray, assemble(graphs(), np.arange(3), Budget(16, 16, 5, 4)))


def row_batch():
    return jax.tree.map(jnp.asarray, assemble_rows(graphs(), np.arange(3), Budget(16, 16, 6, 5)))


class Told(nnx.Module):
    """A student whose states are in the batch, times a weight."""

    def __init__(self):
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, batch, *, dropout_key=None, dropout_rate=0.0):
        parts = batch_parts(batch)
        first = self.weight[...] * jnp.asarray(parts.nodes["student"])
        molecules = self.weight[...] * jnp.asarray(parts.globals["student"])
        layers = lambda x: tuple(x[..., layer, :] for layer in range(LAYERS))  # noqa: E731
        outputs = molecules[:, 0, :1]
        if dropout_key is not None:
            outputs = outputs + dropout_rate
        return MoleculeStates((first[..., 0, :], *layers(first)), (molecules[:, 0], *layers(molecules)), outputs)


def oracle(power):
    """Sums over layers of the global and the local term, molecule by molecule."""
    of_molecules, of_atoms = np.zeros(LAYERS), np.zeros(LAYERS)
    end = np.cumsum(SIZES)
    for i in np.flatnonzero(PLACED):
        atoms = slice(end[i] - SIZES[i], end[i])
        for layer in range(LAYERS):
            of_molecules[layer] += np.mean((STUDENT_MOLECULES[i, layer] - TEACHER_MOLECULES[i, layer]) ** 2)
            squared = np.mean((STUDENT[atoms, layer] - TEACHER[atoms, layer]) ** 2, axis=-1)
            of_atoms[layer] += squared.sum() / SIZES[i] ** power
    return of_molecules / PLACED.sum(), of_atoms / PLACED.sum()


@pytest.mark.parametrize("make", [flat_batch, row_batch])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 1.5])
def test_terms_are_means_over_the_molecules_the_teacher_saw(make, power):
    batch = make()
    found = alignments(Told()(batch), batch_parts(batch), "mse", jnp.float32(power))
    for values, expected in zip(found, oracle(power), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [flat_batch, row_batch])
def test_the_loss_is_the_weighted_sum(make):
    problem = molecule_problem(lambda key: Told(), "regression", distance="mse")
    settings = {"dropout": 0.25, "global": np.array([0.5, 2.0]), "local": 3.0, "power": 2.0}
    settings = {name: jnp.asarray(value, jnp.float32) for name, value in settings.items()}
    params = problem.init(jax.random.key(0))
    total, logs = problem.loss(params, jax.random.key(1), settings, make(), None)
    of_molecules, of_atoms = oracle(2.0)
    outputs = STUDENT_MOLECULES[:, 0, 0] + 0.25
    task = (abs(outputs[0] - 1) + abs(outputs[2] - 4)) / 2
    np.testing.assert_allclose(
        total, task + 0.5 * of_molecules[0] + 2 * of_molecules[1] + 3 * of_atoms.sum(), rtol=1e-5
    )
    np.testing.assert_allclose(logs["loss/task"], task, rtol=1e-5)
    np.testing.assert_allclose(logs["loss/local"], of_atoms.sum(), rtol=1e-5)
    quiet = molecule_problem(lambda key: Told(), "regression", distance="mse", with_dropout=False)
    task_alone = quiet.loss(
        params, jax.random.key(1), settings | {"global": jnp.zeros(2), "local": jnp.zeros(())}, make(), None
    )
    np.testing.assert_allclose(task_alone[0], (abs(outputs[0] - 1.25) + abs(outputs[2] - 4.25)) / 2, rtol=1e-5)


def test_maps_lie_between_the_states_and_leave_the_outputs_alone():
    model = DistilledMolecules(Told(), WIDTH, 7, LAYERS, rngs=nnx.Rngs(0))
    batch = row_batch()
    plain, mapped = Told()(batch), model(batch)
    assert mapped.atoms[1].shape == (5, 5, 7) and mapped.molecules[2].shape == (5, 7)
    np.testing.assert_array_equal(mapped.outputs, plain.outputs)
    kernel, bias = model.maps[1].kernel[...], model.maps[1].bias[...]
    np.testing.assert_allclose(mapped.molecules[2], plain.molecules[2] @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_missing_labels_do_not_count():
    labels, there = jnp.array([[1.0, 0.0], [0.0, 5.0]]), jnp.array([[True, False], [True, True]])
    outputs = jnp.array([[2.0, 9.0], [0.0, 3.0]])
    np.testing.assert_allclose(task_loss(outputs, labels, there, "regression"), (1 + 0 + 2) / 3)
    assert task_loss(outputs, labels, jnp.zeros_like(there), "regression") == 0
    classes, there = jnp.array([[1.0], [0.0]]), jnp.array([[True], [True]])
    expected = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(0.5))])
    np.testing.assert_allclose(
        task_loss(jnp.array([[2.0], [0.5]]), classes, there, "classification"), expected, rtol=1e-6
    )


def test_classes_are_predicted_as_probabilities():
    problem = molecule_problem(lambda key: Told(), "classification")
    found = problem.outputs(problem.init(jax.random.key(0)), row_batch())
    np.testing.assert_allclose(found[:3, 0], 1 / (1 + np.exp(-STUDENT_MOLECULES[:, 0, 0])), rtol=1e-6)


def test_the_rate_rises_and_falls():
    settings = {"learning_rate": jnp.float32(0.1), "weight_decay": jnp.float32(0.0)}
    steps = []
    for progress in (0.0, 0.025, 0.05, 0.525, 1.0):
        optimizer = default_optimizer(settings, jnp.float32(progress))
        update, _ = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1))
        steps.append(-float(update[0]))
    np.testing.assert_allclose(steps, [0.0, 0.05, 0.1, 0.05, 0.0], atol=1e-6)


def test_one_program_for_the_same_arguments():
    make = lambda key: Told()  # noqa: E731
    program = lambda **options: _program(molecule_problem(make, "regression", **options))  # noqa: E731
    assert program() is program()
    assert program() is not program(with_dropout=False)


def test_batches_of_one_kind_and_the_other_hold_the_same_molecules():
    flat = Batches(graphs(), 3).batch(0, 0)
    assert batch_parts(flat).n_node[:3].tolist() == [SIZES[i] for i in np.asarray(flat.index[:3])]
    rows = batch_parts(row_batch())
    np.testing.assert_array_equal(rows.n_node[:3], SIZES)
