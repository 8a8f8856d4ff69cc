"""Write the table of this folder's README and its figure from ``results/*/*.json``.

python experiments/benchmarks/tables.py
"""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: written by experiments/benchmarks/tables.py -->", "<!-- end of table -->"
# Benchmark, what marks its case, the other side, the two in words, and how many times as fast ours was to be at least.
AIMS: tuple[tuple[str, dict[str, Any], str, str, float], ...] = (
    ("edge_sum", {}, "pyg_scatter", "sum over edges, PyG's scatter", 5),
    ("edge_sum", {}, "torch_csr", "the same, PyTorch's sparse product", 1),
    ("gat_layer", {}, "pyg", "GAT layer, PyG", 3),
    ("ten_seeds", {"input_dropout": True}, "pyg", "ten seeds of a GCN, PyG one after another", 4),
    ("ten_seeds", {"input_dropout": False}, "pyg", "the same without dropout of inputs", 6),
    ("distilled_seeds", {}, "pyg", "ten distilled seeds, PyG one after another", 4),
    ("molecules", {}, "pyg", "epoch of QM7, PyG", 2),
    ("contrastive", {}, "four_products", "blockwise InfoNCE, its four products alone", 1 / 1.6),
    ("molecule_encoders", {"relations": "bonds"}, "pytorch", "transformer over bonds, PyTorch", 1.5),
    ("molecule_encoders", {"relations": "distances"}, "pytorch", "transformer over distances, PyTorch", 1.5),
    ("hetero_layers", {"encoder": "rgcn", "edges": 239_538}, "pyg", "R-GCN, two relations, PyG", 3),
    ("hetero_layers", {"encoder": "rgcn", "edges": 457_248}, "pyg", "R-GCN, six relations, PyG", 3),
    ("hetero_layers", {"encoder": "hgt", "edges": 239_538}, "pyg", "HGT, two relations, PyG", 2),
    ("hetero_layers", {"encoder": "hgt", "edges": 457_248}, "pyg", "HGT, six relations, PyG", 2),
    ("brain_folds", {}, "pytorch", "five folds of brains, PyTorch one after another", 2),
)
# Counted columns that are shares of a whole.
SHARES = ("padded slots", "padded rows", "padding", "validation accuracy")


def results() -> dict[str, list[dict]]:
    """By benchmark, what was measured on every processor, the latest first."""
    found: dict[str, list[dict]] = {}
    for file in sorted((HERE / "results").glob("*/*.json"), key=lambda file: (file.stem, file)):
        found.setdefault(file.stem, []).append(json.loads(file.read_text()))
    return {name: sorted(of_name, key=lambda each: each["date"], reverse=True) for name, of_name in found.items()}


def processor(result: dict) -> str:
    return re.sub(r"\(\w+\)| Processor", "", result["machine"]["cpu"])


def size_of(case: dict) -> str:
    words = (
        f"{key.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{key} {value}"
        for key, value in case.items()
    )
    return ", ".join(words)


def overview() -> list[str]:
    """How many times as fast ours is, on every processor, beside what was aimed at."""
    everything = results()
    machines = sorted({processor(result) for name, *_ in AIMS for result in everything[name]})
    found = [f"| work, and the other side | aim | {' | '.join(machines)} |", "|---|--:|" + "--:|" * len(machines)]
    for name, marks, side, words, aim in AIMS:
        of_machine = {
            processor(result): entry["ratio"][side]
            for result in everything[name]
            for entry in result["measured"]
            if marks.items() <= entry["case"].items()
        }
        cells = [of_machine.get(machine) for machine in machines]
        shown_cells = ["–" if x is None else f"**{x:.2f}**" if x >= aim else f"{x:.2f}" for x in cells]
        found.append(f"| {words} | {aim:.3g} | {' | '.join(shown_cells)} |")
    return [*found, "", "How many times as long the other side takes; bold where the aim is reached."]


def lines() -> list[str]:
    table = ["| benchmark | case | processor | side | ms | times ours |", "|---|---|---|---|--:|--:|"]
    notes = []
    everything = results()
    for name, of_name in everything.items():
        for result in of_name:
            for entry in result["measured"]:
                head = f"[{name}]({name}.py) | {size_of(entry['case'])} | {processor(result)}"
                for side, seconds in entry["median_seconds"].items():
                    ratio = entry["ratio"].get(side)
                    times = "" if ratio is None else f"{ratio:.2f}"
                    table.append(f"| {head} | {side.replace('_', ' ')} | {1e3 * seconds:,.1f} | {times} |")
                    head = " | | "
            machine, versions = result["machine"], result["versions"]
            used = ", ".join(f"{package} {number}" for package, number in versions.items())
            notes.append(
                f"- `{result['command']}`: {result['claim']}. {result['date']}, {machine['cpu']}, "
                f"{machine['cores']} cores, {machine['memory_gib']} GiB; {used}."
            )
            for fact, values in result.items():
                if fact not in ("claim", "command", "measured", "counted", "date", "machine", "versions"):
                    notes.append(f"  {fact}: `{json.dumps(values)}`")
    # What is counted does not go by the processor.
    tables = [counts(name, of_name[0]["counted"]) for name, of_name in everything.items() if "counted" in of_name[0]]
    return [line for table in [overview(), table, *tables] for line in [*table, ""]] + notes


def counts(name: str, rows: list[dict]) -> list[str]:
    """What a benchmark counts instead of timing: a table for every run of rows with the same columns."""
    lines: list[str] = []
    for columns, group in groupby(rows, key=tuple):
        lines += ["", f"| [{name}]({name}.py): {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(shown(column, row[column]) for column in columns)} |" for row in group]
    return lines[1:]


def shown(column: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(shown(column, part) for part in value)
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if column in SHARES else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw_scaling(path: Path) -> None:
    """Time and memory against the number of edges, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measured = results()["scaling"][0]["measured"]
    edges = [entry["case"]["edges"] for entry in measured]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for side, color in (("jaxgkd", "#1b6ca8"), ("pyg_scatter", "#c05621")):
        there = [entry for entry in measured if side in entry["median_seconds"]]
        left.loglog(
            [entry["case"]["edges"] for entry in there],
            [entry["median_seconds"][side] for entry in there],
            "o-",
            color=color,
            label=side.replace("_", " "),
        )
    slope = [measured[0]["median_seconds"]["jaxgkd"] * edge / edges[0] for edge in edges]
    left.loglog(edges, slope, ":", color="0.6", label="in proportion to edges")
    left.set(xlabel="edges", ylabel="seconds, forward and backward")
    left.legend(frameon=False)
    right.loglog(edges, [entry["temporary_bytes"] / 2**20 for entry in measured], "o-", color="#1b6ca8")
    width = measured[0]["case"]["width"]
    right.loglog(edges, [4 * edge * width / 2**20 for edge in edges], ":", color="0.6")
    right.text(edges[2], 4 * edges[2] * width / 2**20 * 2, "edges × width", color="0.4", ha="right")
    right.set(xlabel="edges", ylabel="MiB beside inputs and results")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text("\n".join([before + BEGIN, "", *lines(), "", END]) + after, encoding="utf-8")
    (HERE / "figures").mkdir(exist_ok=True)
    draw_scaling(HERE / "figures" / "scaling.png")


if __name__ == "__main__":
    main()
