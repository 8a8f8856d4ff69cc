"""What training and extraction give on eight devices, against one: python on_many_devices.py FOLDER [PROCESS PORT]

With a number and a port, this is one of two processes with four devices each, which read from the folder what one
device gave to those before.
"""

import os
import sys
from pathlib import Path


def main(folder: Path, process: int | None, port: str) -> None:
    count = 8 if process is None else 4
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    import jax

    if process is not None:
        jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import PartitionSpec

    from jaxgkd import losses
    from jaxgkd.teachers import extract
    from jaxgkd.training.batch_loop import fit_batches
    from jaxgkd.training.devices import make_mesh, put, to_host
    from jaxgkd.training.execution import Execution, executing
    from jaxgkd.training.loop import fit
    from tests.teachers.letters import letters
    from tests.teachers.test_extract import arguments, words
    from tests.training import real_steps

    assert len(jax.devices()) == 8 and len(jax.local_devices()) == count
    everything = Execution(devices=0)

    def negatives(how):
        """LinguGKD's alignment: anchors of a device are told apart from the teacher's states on all devices."""
        random = np.random.default_rng(0)
        students, teachers = (np.asarray(random.normal(size=(32, d)), np.float32) for d in (6, 5))
        labels, kernel = random.integers(4, size=32), np.asarray(random.normal(size=(6, 5)), np.float32)

        def mean(kernel, students, teachers, labels, axis_name=None):
            values = losses.info_nce(students @ kernel, teachers, labels=labels, axis_name=axis_name)
            total = jnp.sum(values)
            return (jax.lax.psum(total, axis_name) if axis_name else total) / 32

        step = jax.value_and_grad(mean)
        if how is None:
            return step(kernel, students, teachers, labels)
        mesh, rows = make_mesh(0), PartitionSpec("data")
        everywhere = jax.shard_map(
            lambda *given: step(*given, "data"),
            mesh=mesh,
            in_specs=(PartitionSpec(), rows, rows, rows),
            out_specs=PartitionSpec(),
        )
        return jax.jit(everywhere)(put(kernel, mesh, PartitionSpec()), *put((students, teachers, labels), mesh, rows))

    def fitted(problem, keys, run_data, shared):
        # Adam divides by gradients, and where these are nearly 0 their last bits decide.
        problem = problem._replace(optimizer=lambda run: optax.sgd(run["settings"]["learning_rate"]))
        found = fit(problem, keys, run_data, shared, epochs=4, evaluate_every=2)
        return found.params, found.rest, found.curves

    def molecules(problem, batch, settings):
        found = fit_batches(
            problem._replace(optimizer=lambda settings, progress: optax.sgd(settings["learning_rate"])),
            real_steps.keys(2),
            settings,
            lambda epoch: [batch] * 2,
            n_batch=2,
            epochs=2,
            score=lambda params: np.asarray([1.0, 1.0]),
        )
        return found.params, found.curves

    def extraction(how):
        # Each process is its own reader here, with the devices of both.
        prompts, name = words(40), "one" if how is None else f"all-{process}"
        options = arguments(prompts, dtype="float32", batch_tokens=256, folder=folder / f"{name}-{process}")
        return extract(real_steps.encoder(), letters(), prompts, **options).as_array()

    rgcn, folds, gcn = real_steps.typed_nodes("rgcn"), real_steps.brains("mlp"), real_steps.nodes("gcn")
    rows, flat = real_steps.rows_of_molecules(), real_steps.flat_molecules()
    cases = {
        "global negatives": negatives,
        "LM extraction": extraction,
        "R-GCN": lambda how: fitted(*rgcn),
        "BLEG folds": lambda how: fitted(*folds),
        "distilled GCN": lambda how: fitted(*gcn),
        "CCMD": lambda how: molecules(*rows),
        "GALLON's GNN": lambda how: molecules(*flat),
    }
    for name, case in cases.items():
        with executing(everything):
            actual = to_host(case(everything))
        kept = folder / f"{name}.npz"
        if process is None:
            np.savez(kept, *jax.tree.leaves(to_host(case(None))))
        with np.load(kept) as file:
            expected = list(file.values())
        for one, other in zip(jax.tree.leaves(actual), expected, strict=True):
            np.testing.assert_allclose(
                one, other, rtol=1e-5, atol=1e-5 * max(1.0, np.nanmax(np.abs(other))), err_msg=name
            )
        print(name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None, sys.argv[-1])
