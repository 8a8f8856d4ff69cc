"""The runs of the CCMD tables: a name and the flags of ``jaxgkd run ccmd`` that make it.

    python experiments/ccmd/rows.py                  # every run, one after another, some two hours on two cores
    python experiments/ccmd/rows.py --only qm7       # some of them
    python experiments/ccmd/rows.py --list           # the commands, without running them

A run that is finished is not run again, one that was interrupted goes on. Summaries are copied to ``results/``, which
``tables.py`` turns into the README.
"""

import argparse
import shutil
import sys
from pathlib import Path

from jaxgkd import cli

HERE = Path(__file__).parent

# Energies are nearly sums over atoms.
QM7 = ["--data", "qm7", "--offset", "composition"]

ROWS: dict[str, list[str]] = {
    "default": [],
    "qm7": [*QM7, "--ablation"],
    "esol": ["--data", "esol"],
    "lipo": ["--data", "lipo", "--seeds", "3"],
    "qm7-rdkit": [*QM7, "--conformers", "rdkit"],
    "qm7-mixed": [*QM7, "--conformers", "mixed"],
    "qm7-gine": [*QM7, "--student", "gine", "--teacher", "schnet"],
    # For an accelerator.
    "qm7-large": [*QM7, "--ablation", "--layers", "6", "--width", "128", "--seeds", "10", "--epochs", "200"],
}
LARGE = ("qm7-large",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in ROWS if name not in LARGE]
    parser.add_argument("--only", nargs="*", choices=ROWS, default=usual, help="runs to make")
    parser.add_argument("--out", type=Path, default=Path("runs/ccmd"), help="where the run folders go")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    arguments = parser.parse_args()
    for name in arguments.only:
        flags = ROWS[name]
        print(f"# {name}\njaxgkd run ccmd {' '.join(flags)}", flush=True)
        if arguments.list:
            continue
        folder = arguments.out / name
        # The summary names the command that makes the run, not this script.
        sys.argv = ["jaxgkd", "run", "ccmd", *flags]
        code = cli.main([*sys.argv[1:], "--out", str(folder), "--resume"])
        if code:
            raise SystemExit(code)
        shutil.copyfile(folder / "summary.json", HERE / "results" / f"{name}.json")


if __name__ == "__main__":
    main()
