"""InfoNCE by blocks against the matrix products it cannot do without: python experiments/benchmarks/contrastive.py

The gradients of both sides take four products of n × n × d: the scores, the scores once more in the backward pass, and
one for each side's gradient. The peer is those four products alone, in one program. The memory of the large case comes
from the compiler; it is run as well with ``--large`` (minutes on an accelerator, hours on two cores).
"""

import argparse

import numpy as np
from sides import record, take_turns

CLAIM = "value of blockwise InfoNCE with classes left out and its gradients by anchors and targets"


def data(case: dict):
    rng = np.random.default_rng(0)
    shape = (case["n"], case["width"])
    anchors, targets = rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)
    return anchors, targets, rng.integers(case["classes"], size=case["n"]).astype(np.int32)


def loss_and_gradients(block_size: int | None):
    import jax

    from jaxgkd.losses import info_nce

    def loss(anchors, targets, labels):
        values = info_nce(anchors, targets, labels=labels, block_size=block_size, stop_teacher_gradient=False)
        return values.mean()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))


def jaxgkd(case: dict):
    import jax
    import jax.numpy as jnp

    arrays = [jnp.asarray(a) for a in data(case)]
    program = loss_and_gradients(case["block_size"])
    return lambda: jax.block_until_ready(program(*arrays))


def four_products(case: dict):
    import jax
    import jax.numpy as jnp

    anchors, targets, _ = (jnp.asarray(a) for a in data(case))
    block = case["block_size"]

    @jax.jit
    def products(anchors, targets):
        """By blocks of rows like the loss, so that both need the same memory; sums keep the compiler from skipping."""

        def rows(x):
            scores = x @ targets.T
            return scores @ targets, scores.sum()

        forward = jax.lax.map(rows, anchors.reshape(-1, block, anchors.shape[1]))

        def columns(y):
            scores = y @ anchors.T
            return scores @ anchors, scores.sum()

        return forward, jax.lax.map(columns, targets.reshape(-1, block, targets.shape[1]))

    return lambda: jax.block_until_ready(products(anchors, targets))


def exactness(case: dict) -> dict:
    """Largest difference of the blockwise form from the dense one, relative to the largest entry."""
    import jax
    import jax.numpy as jnp

    arrays = [jnp.asarray(a) for a in data(case)]
    dense = jax.tree.leaves(loss_and_gradients(None)(*arrays))
    blocks = jax.tree.leaves(loss_and_gradients(case["block_size"])(*arrays))
    relative = [float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(a))) for a, b in zip(dense, blocks, strict=True)]
    return {"case": case, "relative_difference": dict(zip(["loss", "anchors", "targets"], relative, strict=True))}


def memory(case: dict) -> dict:
    """Bytes the compiler sets aside beside inputs and outputs."""
    import jax

    shape = jax.ShapeDtypeStruct((case["n"], case["width"]), np.float32)
    labels = jax.ShapeDtypeStruct((case["n"],), np.int32)
    analysis = loss_and_gradients(case["block_size"]).lower(shape, shape, labels).compile().memory_analysis()
    return {"case": case, "temporary_bytes": int(analysis.temp_size_in_bytes), "dense_bytes": 4 * case["n"] ** 2}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="run the large case, too")
    large = {"n": 90_941, "width": 1024, "classes": 40, "block_size": 1024}
    case = {"n": 16_384, "width": 1024, "classes": 40, "block_size": 512}
    sides = {"jaxgkd": jaxgkd, "four_products": four_products}
    measured = [{"case": case, "seconds": take_turns(sides, case, repetitions=3)}]
    if parser.parse_args().large:
        measured.append({"case": large, "seconds": take_turns({"jaxgkd": jaxgkd}, large, repetitions=1)})
    exact = [exactness(case | {"n": 4096})]
    record("contrastive", CLAIM, measured, exactness=exact, memory=[memory(large)])
