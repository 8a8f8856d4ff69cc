"""The devices that a run is spread over: a mesh of two axes, and how arrays get onto it and back.

``data`` divides what is independent (runs, rows of a batch), ``model`` the weights of a large language model. The
engine is JAX's own: arrays carry a named sharding, and compiled programs follow it. The same code runs on one device,
where there is no mesh, and on those of several processes, each of which gives its own devices their part of what all
of them have on the host.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgkd.errors import ConfigError

Tree = Any
DATA, MODEL = "data", "model"
#: Runs are independent of each other and small: they go over all devices.
RUNS = PartitionSpec((DATA, MODEL))
ROWS = PartitionSpec(DATA)
EVERYWHERE = PartitionSpec()


def make_mesh(n_devices: int, n_model: int = 1, *, of: Sequence[Any] | None = None) -> Mesh | None:
    """A mesh [n_devices / n_model, n_model] of the first devices, or None for a single one.

    Args:
      n_devices: how many; 0 takes all there are.
      n_model: that share the weights of a language model.
      of: which there are, by default those of all processes.

    Raises:
      ConfigError: there are fewer, they do not divide, or a process would have none.
    """
    there = jax.devices() if of is None else of
    n = n_devices or len(there)
    if n > len(there):
        what = f"{n} devices are asked for, {len(there)} {there[0].platform} devices are there"
        raise ConfigError(what, field="--devices", mend="ask for fewer, or 0 for all")
    if n % n_model:
        what = f"{n} devices do not divide by {n_model}"
        raise ConfigError(what, field="--model-devices", mend="give a divisor of the number of devices")
    if of is None and jax.process_count() > 1 and n < len(there):
        what = f"{n} of {len(there)} devices are asked for, which leaves out processes"
        raise ConfigError(what, field="--devices", mend="give 0, for all")
    if n == 1:
        return None
    return Mesh(np.array(there[:n]).reshape(n // n_model, n_model), (DATA, MODEL))


def put(tree: Tree, mesh: Mesh | None, spec: PartitionSpec) -> Tree:
    """Arrays on the devices of a mesh, divided as ``spec`` says; as they are where there is no mesh."""
    return tree if mesh is None else jax.tree.map(lambda leaf: _put(leaf, NamedSharding(mesh, spec)), tree)


def put_rows(tree: Tree, mesh: Mesh | None) -> Tree:
    """A batch: leaves [b, …] whose b divides by the devices of ``data`` are divided among these, others are copied.

    The compiler does the rest: whatever the program asks of rows on other devices, it fetches from there.
    """
    if mesh is None:
        return tree
    n, rows, copied = mesh.shape[DATA], NamedSharding(mesh, ROWS), NamedSharding(mesh, EVERYWHERE)

    def place(leaf: Any) -> Any:
        shape = np.shape(leaf)
        return _put(leaf, rows if shape and shape[0] and shape[0] % n == 0 else copied)

    return jax.tree.map(place, tree)


def put_runs(tree: Tree, mesh: Mesh | None, axis: int = 0) -> Tree:
    """Leaves with the runs as an axis, divided among all devices; the last run is repeated until they divide evenly."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, RUNS[0]))

    def place(leaf: Any) -> Any:
        n_run = np.shape(leaf)[axis]
        # What fills up is computed for nothing, and left out of the results.
        index = np.minimum(np.arange(-(-n_run // mesh.size) * mesh.size), n_run - 1)
        return _put(jnp.take(leaf, index, axis=axis) if len(index) > n_run else leaf, sharding)

    return jax.tree.map(place, tree)


def to_host(tree: Tree) -> Tree:
    """Arrays in numpy, whole, in every process; random keys stay as they are where a single process has them."""

    def fetch(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or (leaf.is_fully_addressable and _is_key(leaf)):
            return leaf
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, tree)


def on_default_device(tree: Tree, mesh: Mesh | None) -> Tree:
    """Whole arrays on the first device of every process; as they are where there is no mesh."""
    return tree if mesh is None else jax.tree.map(jnp.asarray, to_host(tree))


def weights_sharding(mesh: Mesh, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """Where a language model's array goes: divided over ``model`` along its last axis that allows it.

    The first axis of stacked layers is never divided, since layers run one after another.
    """
    n, spec = mesh.shape[MODEL], [None] * len(shape)
    first = 1 if path.startswith("layers") else 0
    for axis in reversed(range(first, len(shape))):
        if n > 1 and len(shape) - first > 1 and shape[axis] % n == 0:
            return NamedSharding(mesh, PartitionSpec(*spec[:axis], MODEL, *spec[axis + 1 :]))
    return NamedSharding(mesh, EVERYWHERE)


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf if leaf.sharding == sharding else jax.jit(lambda x: x, out_shardings=sharding)(leaf)
    if _is_key(leaf):
        data = _put(jax.random.key_data(leaf), NamedSharding(sharding.mesh, sharding.spec))
        return jax.random.wrap_key_data(data, impl=str(jax.random.key_impl(leaf)))
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
