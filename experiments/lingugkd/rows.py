"""The rows of the LinguGKD tables: a name and the flags of ``jaxgkd run lingugkd`` that make it.

    python experiments/lingugkd/rows.py                     # every row, one after another, about two hours on two cores
    python experiments/lingugkd/rows.py --only cora-gcn …   # some of them
    python experiments/lingugkd/rows.py --list              # the commands, without running them

A row that is finished is not run again, one that was interrupted goes on. Summaries are copied to ``results/``, which
``tables.py`` turns into the README.
"""

import argparse
import shutil
from pathlib import Path

from jaxgkd import cli

HERE = Path(__file__).parent
COMMON = ["--seeds", "10", "--search", "8"]

ROWS: dict[str, list[str]] = {
    "default": [],
    "scipy-docs-gcn": ["--data", "scipy-docs"],
    "cora-gcn": ["--data", "cora", "--reference"],
    "cora-mlp": ["--data", "cora", "--student", "mlp"],
    "cora-gat": ["--data", "cora", "--student", "gat"],
    "cora-sage": ["--data", "cora", "--student", "sage"],
    "cora-gin": ["--data", "cora", "--student", "gin", "--norm", "batch"],
    "cora-public-gcn": ["--data", "cora", "--split", "public"],
    "cora-public-mlp": ["--data", "cora", "--split", "public", "--student", "mlp"],
    "scipy-docs-mlp": ["--data", "scipy-docs", "--student", "mlp"],
    "wikispeedia-gcn": ["--data", "wikispeedia"],
    "wikispeedia-mlp": ["--data", "wikispeedia", "--student", "mlp"],
    "cora-gcn-soft-only": ["--data", "cora", "--terms", "soft"],
    "cora-gcn-alignment-only": ["--data", "cora", "--terms", "local", "global"],
    "cora-gcn-without-local": ["--data", "cora", "--terms", "soft", "global"],
    "cora-gcn-without-global": ["--data", "cora", "--terms", "soft", "local"],
    "cora-gcn-fixed-layers": ["--data", "cora", "--layer-weighting", "fixed"],
    "cora-gcn-no-cross-fitting": ["--data", "cora", "--folds", "1"],
    "cora-gcn-5-shots": ["--data", "cora", "--shots", "5"],
    "cora-gcn-20-shots": ["--data", "cora", "--shots", "20"],
    "cora-gcn-label-free": ["--data", "cora", "--label-free"],
    "cora-gcn-inductive": ["--data", "cora", "--split", "inductive"],
    "cora-mlp-inductive": ["--data", "cora", "--split", "inductive", "--student", "mlp"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), help="rows to run")
    parser.add_argument("--out", type=Path, default=Path("runs/lingugkd"), help="where the run folders go")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    arguments = parser.parse_args()
    for name in arguments.only:
        # The default row is the command of the project's README, as it stands.
        flags = [*ROWS[name], *COMMON] if ROWS[name] else []
        print(f"# {name}\njaxgkd run lingugkd {' '.join(flags)}", flush=True)
        if arguments.list:
            continue
        folder = arguments.out / name
        code = cli.main(["run", "lingugkd", *flags, "--out", str(folder), "--resume"])
        if code:
            raise SystemExit(code)
        shutil.copyfile(folder / "summary.json", HERE / "results" / f"{name}.json")


if __name__ == "__main__":
    main()
