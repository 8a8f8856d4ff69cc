"""How the gradients of the global and the local term grow with a molecule's size, of one molecule at a time.

    python experiments/ccmd/gradient_norms.py runs/ccmd/qm7        # 4 to 23 atoms
    python experiments/ccmd/gradient_norms.py runs/ccmd/lipo       # 7 to 115

The run's teacher and distilled student of seed 0, trained and with fresh weights. The local term is the sum over the N
atoms times N^-p, so its gradient at p = 1 (mean) and p = 2 (size) is that of the sum times N^-1 and N^-2: the slopes
differ by exactly one. Writes ``results/gradient-norms-RUN.json`` and ``figures/gradient-norms-RUN.png``.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from flax import nnx
from rich.console import Console
from scipy.stats import linregress, t

from jaxgkd.graphs import Budget, assemble_rows
from jaxgkd.nn.molecule_problem import alignments, batch_parts
from jaxgkd.recipes import ccmd
from jaxgkd.recipes.molecule_rows import MoleculeData, Network, one_run, saved, teacher_states
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.run_dir import RunDirectory, read_json

HERE = Path(__file__).parent
POWERS = {"none": 0, "mean": 1, "size": 2}
PER_BIN, BINS, TOGETHER = 30, 16, 16


def config_of(folder: Path) -> ccmd.CCMD:
    """The settings of a finished run."""
    kept = read_json(folder / "config.json")
    known = ccmd.CCMD.__dataclass_fields__
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in kept.items() if name in known}
    return ccmd.CCMD(**settings)


def chosen_molecules(data: MoleculeData, rows: np.ndarray) -> np.ndarray:
    """Some molecules of every size, sizes at even steps on a logarithmic scale."""
    random = np.random.default_rng(0)
    rows = rows[data.geometry.placed[rows]]
    size = data.molecules.n_atom[rows]
    edges = np.geomspace(size.min(), size.max() + 1, BINS + 1)
    bins = np.digitize(size, edges)
    picked = [random.permutation(rows[bins == b])[:PER_BIN] for b in np.unique(bins)]
    return np.concatenate(picked)


def norms(data: MoleculeData, student: Network, teacher: Network, params, teacher_params, rows: np.ndarray):
    """Norms of the gradients of the global term and of the summed local term, [n] each."""
    taught = teacher_states(data, teacher, teacher_params, rows)
    graphs = data.molecules.graphs()
    nodes = {"fields": graphs.nodes["fields"], **data.nodes, "teacher": taught["atoms"]}
    globals_ = graphs.globals | {"teacher": taught["molecules"], "placed": data.geometry.placed}
    graphs = type(graphs)(**{**vars(graphs), "nodes": nodes, "globals": globals_})
    graphdef = nnx.split(nnx.eval_shape(lambda: student.make(jax.random.key(0))), nnx.Param, ...)[0]
    assert student.distance is not None

    def terms(weights, rest, batch):
        states = nnx.merge(graphdef, weights, rest)(batch)
        assert student.distance is not None
        of_molecules, of_atoms = alignments(states, batch_parts(batch), student.distance, jnp.float32(0))
        return jnp.stack([of_molecules.sum(), of_atoms.sum()])

    @jax.jit
    @jax.vmap
    def norms_of(batch):
        weights, rest = params
        gradients = jax.jacrev(terms)(weights, rest, batch)
        squares = jax.tree.map(lambda leaf: jnp.sum(leaf.reshape(2, -1) ** 2, axis=1), gradients)
        return jnp.sqrt(sum(jax.tree.leaves(squares)))

    found = np.zeros((len(rows), 2))
    order = np.argsort(data.molecules.n_atom[rows], kind="stable")
    budgets = sorted({budget.largest for budget in data.row_budgets})
    for largest in budgets:
        size = data.molecules.n_atom[rows[order]]
        mine = order[(size <= largest) & (size > max([0, *(b for b in budgets if b < largest)]))]
        for start in range(0, len(mine), TOGETHER):
            some = mine[start : start + TOGETHER]
            filled = np.resize(some, TOGETHER)
            singles = [assemble_rows(graphs, rows[[i]], Budget(0, 0, 2, largest), data.pairs) for i in filled]
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *singles)
            found[some] = np.asarray(norms_of(batch))[: len(some)]
    return found[:, 0], found[:, 1]


def slope(size: np.ndarray, norm: np.ndarray) -> dict[str, float]:
    """Of log norm over log size, with the half width of its 95 % interval."""
    fit = linregress(np.log(size), np.log(norm))
    return {"slope": float(fit.slope), "interval": float(t.ppf(0.975, len(size) - 2) * fit.stderr)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run of ccmd")
    folder = parser.parse_args().run
    config = config_of(folder)
    molecules = ccmd.load(config)
    targets = Targets.of(molecules)
    data, teacher, student = ccmd.prepare(config, molecules, targets, Console())
    run_dir = RunDirectory(folder, read_json(folder / "config.json"), resume=True)

    def kept(name: str, network: Network):
        def missing():
            raise SystemExit(f"{folder} has no checkpoint '{name}'; finish the run first")

        return saved(run_dir, name, network, missing).params

    fresh = lambda network, key: nnx.split(network.make(jax.random.key(key)), nnx.Param, ...)[1:]  # noqa: E731
    pairs = {
        "untrained": (fresh(student, 1), fresh(teacher, 2)),
        "trained": (one_run(kept("students-0", student), config.ensemble), one_run(kept("teacher-0", teacher), 0)),
    }
    rows = chosen_molecules(data, np.arange(len(molecules)))
    size = molecules.n_atom[rows].astype(float)
    command = f"python experiments/ccmd/gradient_norms.py runs/ccmd/{folder.name}"
    result = {"data": molecules.name, "command": command, "molecules": len(rows)}
    result |= {"atoms": [int(size.min()), int(size.max())], "size": size.tolist()}
    for name, (params, teacher_params) in pairs.items():
        global_norm, local_norm = norms(data, student, teacher, params, teacher_params, rows)
        result[name] = {"norms": {"global": global_norm.tolist(), "none": local_norm.tolist()}}
        result[name]["global"] = slope(size, global_norm)
        result[name] |= {which: slope(size, local_norm * size**-power) for which, power in POWERS.items()}
        print(name, {which: result[name][which] for which in ("global", *POWERS)})
    name = f"gradient-norms-{folder.name}"
    (HERE / "results" / f"{name}.json").write_text(json.dumps(result) + "\n")
    draw(result, HERE / "figures" / f"{name}.png")


def draw(result: dict, file: Path) -> None:
    """Both panels, each norm relative to its median at all sizes."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    size = np.array(result["size"])
    names = {"global": "global term", "none": "local, sum", "mean": "local, mean", "size": "local, mean × 1/N"}
    for axis, state in zip(axes, ("untrained", "trained"), strict=True):
        for which, label in names.items():
            norm = np.array(result[state]["norms"]["global" if which == "global" else "none"])
            norm = norm * size ** -POWERS.get(which, 0)
            norm = norm / np.exp(np.log(norm).mean())
            fit = result[state][which]
            text = f"{label}: slope {fit['slope']:+.2f} ± {fit['interval']:.2f}"
            (dots,) = axis.plot(size, norm, ".", markersize=3, alpha=0.35)
            line = np.exp(fit["slope"] * (np.log(size) - np.log(size).mean()))
            order = np.argsort(size)
            axis.plot(size[order], line[order], color=dots.get_color(), label=text)
        axis.set(xscale="log", yscale="log", xlabel="atoms of the molecule", title=state)
        axis.legend(fontsize=7, frameon=False)
    axes[0].set_ylabel("norm of the gradient, relative")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
