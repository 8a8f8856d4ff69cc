"""What importing costs: python experiments/benchmarks/imports.py"""

import subprocess
import sys

from sides import record, take_turns

CLAIM = "a fresh Python process that imports one package and ends"


def of(module: str):
    command = [sys.executable, "-c", f"import {module}"]
    return lambda: subprocess.run(command, check=True)


def jaxgkd(case: dict):
    del case
    return of("jaxgkd")


def jax(case: dict):
    del case
    return of("jax")


def jaxgkd_losses(case: dict):
    del case
    return of("jaxgkd.losses")


def torch_geometric(case: dict):
    del case
    return of("torch_geometric")


if __name__ == "__main__":
    sides = {f.__name__: f for f in (jaxgkd, jax, jaxgkd_losses, torch_geometric)}
    record("imports", CLAIM, [{"case": {}, "seconds": take_turns(sides, {}, repetitions=7)}])
