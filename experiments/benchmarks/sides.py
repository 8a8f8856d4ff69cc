"""Time several programs for the same work in turn, each in a process of its own, and keep every time.

A *side* is a function that takes the case (a dict of sizes) and gives a function without arguments that does the work
once and waits for it. Sides are built and warmed up first, by a run of the work or of its attribute ``warm`` where a
shorter one is enough; then they take turns, so that whatever else the machine does falls on all of them alike. Every
side, ours and others', keeps the memory it frees (``jaxgkd.training.memory``), as runs of jaxgkd do.
"""

import json
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jaxgkd.training.memory import keep_freed_memory

Side = Callable[[dict], Callable[[], object]]

RESULTS = Path(__file__).parent / "results"
# Threads of the side that has just finished may spin for a while before they sleep.
_PAUSE_SECONDS = 0.3


def take_turns(sides: dict[str, Side], case: dict, *, repetitions: int) -> dict[str, list[float]]:
    """Seconds of every repetition of every side.

    Args:
      sides: by name, in the order in which they take turns; functions at the top of a module.
      case: what each is built with.
      repetitions: rounds in which each side runs once.

    Raises:
      RuntimeError: a side failed; its own message was printed by its process.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for name, side in sides.items():
            pipes[name], theirs = context.Pipe()
            # Not as a daemon, which may have no processes of its own.
            processes[name] = context.Process(target=_serve, args=(side, case, theirs))
            processes[name].start()
            _answer(name, pipes[name], processes[name])
        for _ in range(repetitions):
            for name, pipe in pipes.items():
                time.sleep(_PAUSE_SECONDS)
                pipe.send("run")
                seconds[name].append(_answer(name, pipe, processes[name]))
        for pipe in pipes.values():
            pipe.send("stop")
        for process in processes.values():
            process.join()
    finally:
        for process in processes.values():
            process.terminate()
    return seconds


def _serve(side: Side, case: dict, pipe) -> None:
    keep_freed_memory()
    work = side(case)
    getattr(work, "warm", work)()
    pipe.send(0.0)
    while pipe.recv() == "run":
        begun = time.perf_counter()
        work()
        pipe.send(time.perf_counter() - begun)


def _answer(name: str, pipe, process) -> float:
    while not pipe.poll(1.0):
        if not process.is_alive():
            raise RuntimeError(f"the side '{name}' stopped with code {process.exitcode}")
    return pipe.recv()


def record(name: str, claim: str, measured: list[dict], *, ours: str = "jaxgkd", **facts) -> Path:
    """Write ``results/<processor>/<name>.json`` and print the medians.

    Args:
      name: of the benchmark.
      claim: one sentence that says what is timed.
      measured: one dict per case with ``case``, ``seconds`` (side → repetitions) and anything else worth keeping;
        medians, and how many times longer than ours each other side took, are added.
      ours: the side that the others are divided by.
      **facts: whatever else belongs into the file.
    """
    for entry in measured:
        medians = {side: statistics.median(values) for side, values in entry["seconds"].items()}
        entry["median_seconds"] = medians
        entry["ratio"] = {side: value / medians[ours] for side, value in medians.items() if side != ours}
        print(json.dumps(entry["case"]))
        for side, value in medians.items():
            times = f"   {value / medians[ours]:.2f} × ours" if side != ours else ""
            print(f"  {side:32s} {1e3 * value:10.1f} ms{times}")
    for fact, value in facts.items():
        print(fact, json.dumps(value))
    path = result_file(name)
    contents = {
        "claim": claim,
        "command": f"python experiments/benchmarks/{name}.py",
        "measured": measured,
        **facts,
        **machine(),
    }
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    print(f"kept in {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path


def result_file(name: str) -> Path:
    """Where a benchmark's results on this machine lie: ratios differ between processors, and none replaces another."""
    processor = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", machine()["machine"]["cpu"]).lower()).strip("-")
    (RESULTS / processor).mkdir(parents=True, exist_ok=True)
    return RESULTS / processor / f"{name}.json"


def machine() -> dict:
    """Date, processor, cores, memory and versions."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in info.read_text().splitlines() if ":" in line)
        # Rented machines often say no more than the maker's name for processors of several generations.
        generation = f", family {facts['cpu family']} model {facts['model']}" if "cpu family" in facts else ""
        cpu = facts.get("model name", cpu) + generation
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "torch", "torch-geometric", "transformers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory_gib": round(pages / 2**30)},
        "versions": versions,
    }
