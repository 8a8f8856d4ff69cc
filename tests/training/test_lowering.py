"""Every recipe's training step is a program for TPUs and CUDA too, found out on a machine with neither."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgkd.training import batch_loop, loop
from tests.training import real_steps

PLATFORMS = ["tpu", "cuda"]


def whole(made):
    """The program of `fit`, from the state that it begins with."""
    problem, keys, run_data, shared = made
    begin, advance = loop._program(problem, 2, 1, None, "valid", 1.0)
    progress = jax.eval_shape(begin, keys, run_data, shared)
    return advance, (progress, 2, keys, run_data, shared)


def batched(made):
    """A step of `fit_batches`."""
    problem, batch, settings = made
    start, step, _ = batch_loop._program(problem)
    keys = real_steps.keys(2)
    state = jax.eval_shape(start, keys, settings)
    return step, (state, keys, settings, jnp.int32(0), jnp.float32(0), batch, None)


def extraction():
    graphdef, state = nnx.split(real_steps.encoder())

    def forward(state, ids, mask):
        return nnx.merge(graphdef, state).pooled_states(ids, mask, layers=(0, 2), pooling="mean")

    ids = np.zeros((8, 16), np.int32)
    return jax.jit(forward), (state, ids, ids + 1)


STEPS = {
    "lingugkd gcn": lambda: whole(real_steps.nodes("gcn")),
    "lingugkd gat": lambda: whole(real_steps.nodes("gat")),
    "ccmd": lambda: batched(real_steps.rows_of_molecules()),
    "gallon gnn": lambda: batched(real_steps.flat_molecules()),
    "gallon bag": lambda: whole(real_steps.bags()),
    "lmgnn rgcn": lambda: whole(real_steps.typed_nodes("rgcn")),
    "lmgnn hgt": lambda: whole(real_steps.typed_nodes("hgt")),
    "bleg gcn": lambda: whole(real_steps.brains("gcn", 3)),
    "language model": extraction,
}


QUICK = ("gallon gnn", "gallon bag")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.thorough) for n in STEPS])
def test_the_step_lowers_for_accelerators(name):
    step, arguments = STEPS[name]()
    for platform in PLATFORMS:
        exported = jax.export.export(step, platforms=[platform])(*arguments)
        assert exported.platforms == (platform,) and len(exported.mlir_module_serialized) > 1000


def test_what_is_lowered_is_the_path_of_the_platform_not_of_the_host():
    """A CPU takes runs one after another, in a loop; an accelerator takes them at once."""

    def step(states, x):
        return batch_loop.over_runs(lambda state, x: optax.apply_updates(state, x @ state), (states,), x)

    arguments = jnp.ones((3, 4)), jnp.ones((4, 4))
    loops = {}
    for platform in ("cpu", *PLATFORMS):
        exported = jax.export.export(jax.jit(step), platforms=[platform])(*arguments)
        loops[platform] = exported.mlir_module().count("stablehlo.while")
    assert loops == {"cpu": 1, "tpu": 0, "cuda": 0}


def test_sums_over_edges_are_lowered_for_the_platform_not_for_the_host():
    """Only a CPU has the product with a compressed matrix that `graphs.aggregate` is made of there."""
    product = "cpu_csr_sparse_dense_ffi"
    step, arguments = STEPS["gallon gnn"]()
    allowed = [jax.export.DisabledSafetyCheck.custom_call(product)]
    found = {}
    for platform in ("cpu", "cuda"):
        exported = jax.export.export(step, platforms=[platform], disabled_checks=allowed)(*arguments)
        found[platform] = product in exported.mlir_module()
    assert found == {"cpu": True, "cuda": False}
