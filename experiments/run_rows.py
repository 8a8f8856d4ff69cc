"""What the ``rows.py`` of every folder do: make runs by name, and keep their summaries.

A run that is finished is not made again, one that was interrupted goes on. Summaries are copied to ``results/`` beside
the script, which ``tables.py`` turns into the README.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jaxgkd import cli


def main(
    script: str, description: str | None, recipe: str, rows: Mapping[str, Sequence[str]], *, large: Collection[str] = ()
) -> None:
    """Read the command line of a script and make the runs it asks for.

    Args:
      script: its path; description: what its ``--help`` says.
      recipe: of the runs.
      rows: name of a run → its flags, in which ``$JAXGKD_DATA`` stands for the data folder.
      large: runs that are made only when they are named.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in rows if name not in large]
    parser.add_argument("--only", nargs="*", choices=rows, default=usual, help="runs to make")
    parser.add_argument("--out", type=Path, default=Path("runs") / recipe, help="where the run folders go")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    arguments = parser.parse_args()
    for name in arguments.only:
        command = ["jaxgkd", "run", recipe, *rows[name]]
        print(f"# {name}\n{' '.join(command)}", flush=True)
        if arguments.list:
            continue
        folder = arguments.out / name
        # The summary names the command that makes the run, not the script.
        sys.argv = command
        flags = [os.path.expandvars(word) for word in command[1:]]
        code = cli.main([*flags, "--out", str(folder), "--resume"])
        if code:
            raise SystemExit(code)
        shutil.copyfile(folder / "summary.json", Path(script).parent / "results" / f"{name}.json")
