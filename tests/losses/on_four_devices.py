"""Every loss with ``axis_name`` under ``shard_map`` on four devices, against one device: python on_four_devices.py

Student and teacher each have a projection that is replicated over the devices and learned, as in training. Inside
``shard_map`` the gradient of a replicated parameter is summed over the devices already, so the mean over items is taken
inside the loss and none of the gradients.
"""

import os


def main():
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, PartitionSpec

    from jaxgkd import losses

    random = np.random.default_rng(0)
    n = 24
    batch = {
        "student": jnp.array(random.normal(size=(n, 8)), jnp.float32),
        "teacher": jnp.array(random.normal(size=(n, 6)), jnp.float32),
        "labels": jnp.array(random.integers(-1, 4, n)),
        "where": jnp.arange(n) % 5 != 0,
    }
    parameters = {"student": jnp.array(random.normal(size=(8, 6)), jnp.float32), "teacher": jnp.eye(6) + 0.1}

    def info_nce(block_size):
        def loss(student, teacher, batch, axis_name):
            settings = dict(labels=batch["labels"], where=batch["where"], block_size=block_size, axis_name=axis_name)
            return losses.info_nce(student, teacher, stop_teacher_gradient=False, **settings)

        return loss

    def unlabelled(function, **settings):
        def loss(student, teacher, batch, axis_name):
            settings_here = dict(where=batch["where"], axis_name=axis_name, stop_teacher_gradient=False)
            return function(student, teacher, **settings, **settings_here)

        return loss

    cases = {
        "dense": info_nce(None),
        "blocks": info_nce(4),
        "linear_cka": unlabelled(losses.linear_cka),
        "similarity_preserving": unlabelled(losses.similarity_preserving, block_size=4),
        "distance": unlabelled(losses.relational_distance),
        "angle": unlabelled(losses.relational_angle, block_size=4),
    }
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    assert mesh.size == 4
    everywhere, spread = PartitionSpec(), PartitionSpec("devices")
    for name, loss in cases.items():

        def mean(parameters, batch, axis_name, loss=loss):
            student = batch["student"] @ parameters["student"]
            values = loss(student, batch["teacher"] @ parameters["teacher"], batch, axis_name)
            if values.ndim == 0:
                return values
            sums = jnp.sum(values), jnp.sum(batch["where"])
            total, count = jax.lax.psum(sums, axis_name) if axis_name else sums
            return total / count

        def step(parameters, batch, axis_name=None, mean=mean):
            return jax.value_and_grad(mean)(parameters, batch, axis_name)

        def sharded(parameters, batch, step=step):
            return step(parameters, batch, "devices")

        on_all = jax.shard_map(sharded, mesh=mesh, in_specs=(everywhere, spread), out_specs=everywhere)
        actual, expected = jax.jit(on_all)(parameters, batch), jax.jit(step)(parameters, batch)
        for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max(), err_msg=name)
        print(name)


if __name__ == "__main__":
    main()
