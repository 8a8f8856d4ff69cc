"""What a step costs a device as devices and work grow together: python experiments/benchmarks/weak_scaling.py

Wall time on simulated devices says nothing, since they share the cores of one machine. So the compiled program is
asked: operations and bytes of one device by its cost analysis, and the bytes of everything that devices exchange by
the shapes in its text.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

CLAIM = "FLOPs, bytes and exchanged bytes of a device, with the work of a device constant"
DEVICES = (1, 2, 4, 8)
RUNS_A_DEVICE, MOLECULES_A_DEVICE = 2, 16
COUNTED = ("flops", "bytes", "exchanged bytes")
SIZES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
COLLECTIVE = re.compile(
    r"= (\(?[^=]*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)


def exchanged_bytes(text: str) -> int:
    """Of all results of collective operations in the text of a program for one device."""
    total = 0
    # Long tuples are numbered in comments.
    text = re.sub(r"/\*.*?\*/", "", text)
    for shapes, *_ in COLLECTIVE.findall(text):
        for kind, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            size = SIZES.get(kind, 0)
            for dimension in filter(None, dimensions.split(",")):
                size *= int(dimension)
            total += size
    return total


def costs(step, arguments) -> dict[str, float]:
    """Of a compiled step, for one device."""
    compiled = step.lower(*arguments).compile()
    analysis = compiled.cost_analysis()
    return {
        "flops": analysis["flops"],
        "bytes": analysis["bytes accessed"],
        "exchanged_bytes": exchanged_bytes(compiled.as_text()),
    }


def measure(n: int) -> dict[str, dict[str, float]]:
    """Both kinds of division: runs over devices in `fit`, rows of a batch over devices in `fit_batches`."""
    import jax.numpy as jnp

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from jaxgkd.training import batch_loop, loop
    from jaxgkd.training.devices import EVERYWHERE, make_mesh, put, put_rows, put_runs
    from tests.training import real_steps

    mesh = make_mesh(n)
    problem, keys, run_data, shared = real_steps.nodes("gcn", RUNS_A_DEVICE * n)
    begin, advance = loop._program(problem, 2, 1, None, "valid", 1.0, mesh)
    keys, run_data, shared = put_runs(keys, mesh), put_runs(run_data, mesh), put(shared, mesh, EVERYWHERE)
    found = {"runs": costs(advance, (begin(keys, run_data, shared), 2, keys, run_data, shared))}
    problem, batch, settings = real_steps.rows_of_molecules(MOLECULES_A_DEVICE * n)
    start, step, _ = batch_loop._program(problem)
    keys, settings = put((real_steps.keys(2), settings), mesh, EVERYWHERE)
    state = start(keys, settings)
    position = put((jnp.int32(0), jnp.float32(0)), mesh, EVERYWHERE)
    found["rows"] = costs(step, (state, keys, settings, *position, put_rows(batch, mesh), None))
    return found


def draw(measured: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {"runs": "runs over devices (distilled GCN)", "rows": "molecules over devices (CCMD)"}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for name, marker in (("flops", "o"), ("bytes", "s")):
            values = [entry[kind][name] / measured[0][kind][name] for entry in measured]
            axis.plot(DEVICES, values, marker=marker, label=name.replace("flops", "FLOPs"))
        share = [entry[kind]["exchanged_bytes"] / entry[kind]["bytes"] for entry in measured]
        axis.plot(DEVICES, share, marker="^", label="exchanged, share of bytes")
        axis.set(title=title, xlabel="devices", xscale="log", ylim=(0, None))
        axis.set_xticks(DEVICES, [str(n) for n in DEVICES])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("of one device, 1 device = 1")
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    from sides import RESULTS, machine, result_file

    measured = []
    for n in DEVICES:
        environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
        command = [sys.executable, __file__, str(n)]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        measured.append({"devices": n, **json.loads(done.stdout.splitlines()[-1])})
        print(json.dumps(measured[-1]), flush=True)
    contents = {"claim": CLAIM, "command": "python experiments/benchmarks/weak_scaling.py", "measured": []}
    # In the form of the other benchmarks that count instead of timing.
    names = {"runs": f"{RUNS_A_DEVICE} runs a device, GCN", "rows": f"{MOLECULES_A_DEVICE} molecules a device, CCMD"}
    contents["counted"] = [
        {"devices": entry["devices"], "work": work}
        | {f"{what} of a device": int(entry[kind][what.replace(" ", "_")]) for what in COUNTED}
        for kind, work in names.items()
        for entry in measured
    ]
    contents |= machine()
    result_file("weak_scaling").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    draw(measured, RESULTS.parent / "figures" / "weak_scaling.png")


if __name__ == "__main__":
    main()
