"""Every reduction over edges under ``shard_map`` on four devices, against one device: python on_four_devices.py

Columns, or heads, are spread over the devices; where edges are, and the weights that all columns share, is the same on
each. Gradients of what is shared have to come back summed over the devices.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxgkd.graphs import aggregate, aggregate_heads, build_layout, edge_dot, edge_softmax, to_edges, to_nodes

N, E, D, HEADS = 30, 150, 24, 8
EVERYWHERE, COLUMNS, SPREAD_HEADS = PartitionSpec(), PartitionSpec(None, "d"), PartitionSpec(None, "d", None)


def attention(queries, keys, values, selves, layout):
    edges, own = edge_softmax(edge_dot(queries, keys, layout), selves, layout)
    return aggregate_heads(values, layout, edges) + own[..., None] * values


#: Name → function of arrays and a layout, the shapes of the arrays, and how each is spread.
CASES = {
    "sum": (aggregate, [(N, D)], [COLUMNS]),
    **{
        f"weighted {reduce}": (
            lambda x, w, layout, reduce=reduce: aggregate(x, layout, edge_weights=w, reduce=reduce),
            [(N, D), (E,)],
            [COLUMNS, EVERYWHERE],
        )
        for reduce in ("sum", "mean", "max")
    },
    "messages": (
        lambda x, y, layout: to_nodes(to_edges(x, layout) * to_edges(y, layout, end="receiver"), layout),
        [(N, D), (N, D)],
        [COLUMNS, COLUMNS],
    ),
    "one sum of all columns": (
        lambda x, y, layout: to_nodes(to_edges(x, layout) * y, layout),
        [(N, 1), (E, D)],
        [EVERYWHERE, COLUMNS],
    ),
    "attention": (attention, [(N, HEADS, 3)] * 3 + [(N, HEADS)], [SPREAD_HEADS] * 3 + [COLUMNS]),
}


def main() -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    mesh = Mesh(np.array(jax.devices()), ("d",))
    random = np.random.default_rng(0)
    layout = build_layout(random.integers(0, N - 1, E), random.integers(0, N - 1, E), N)
    for name, (function, shapes, spread) in CASES.items():
        arrays = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]

        def total(*given, function=function):
            *arrays, layout, axis = given
            # Squared, so that the cotangents of the reduction differ from one entry to the next.
            of_device = jnp.sum(function(*arrays, layout) ** 2)
            return of_device if axis is None else jax.lax.psum(of_device, axis)

        step = jax.value_and_grad(total, argnums=tuple(range(len(arrays))))
        on_all = jax.shard_map(
            lambda *given, step=step: step(*given, "d"),
            mesh=mesh,
            in_specs=(*spread, EVERYWHERE),
            out_specs=(EVERYWHERE, tuple(spread)),
        )
        expected, found = step(*arrays, layout, None), jax.jit(on_all)(*arrays, layout)
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-4, err_msg=name)
        print(name)


if __name__ == "__main__":
    main()
