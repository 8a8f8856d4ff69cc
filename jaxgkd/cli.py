"""``jaxgkd run | predict | export | extract | describe | report | data``.

Flags come from the dataclasses below and from those of the recipes and commands. An error is one sentence on stderr
and exit code 2. What a command needs is imported when it is called, so that ``jaxgkd --help`` answers at once.
"""

import io
import os
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, make_dataclass
from importlib import import_module
from pathlib import Path

import tyro
from rich.console import Console

from jaxgkd import processes
from jaxgkd.errors import ConfigError, JaxgkdError
from jaxgkd.processes import Processes
from jaxgkd.training import termination

#: Recipe → the dataclass of its flags.
RECIPES = {"lingugkd": "LinguGKD", "gallon": "GALLON", "ccmd": "CCMD", "lmgnn": "LMGNN", "bleg": "BLEG"}

USAGE = """usage: jaxgkd COMMAND …

  jaxgkd run RECIPE      distil a teacher into a student and report the result; RECIPE is one of
                         lingugkd, gallon, ccmd, lmgnn and bleg
  jaxgkd predict RUN     ask the distilled student of a run about new nodes, molecules or subjects
  jaxgkd export RUN      write that student as a program that runs without jaxgkd
  jaxgkd extract         ask a language model about every node of a text graph, and keep what it says
  jaxgkd describe        ask a language model, or a template, to describe every molecule of a data set
  jaxgkd report RUN…     write a run's report again, or compare several runs on one page
  jaxgkd data list       data sets that --data knows by name, and public ones that can be fetched
  jaxgkd data check PATH read data as a run would, count what is in it, and say about how long a run takes
  jaxgkd data fetch NAME download a public data set from its home

Every command explains its flags with --help.
"""


@dataclass(frozen=True)
class Report:
    """Write the report of one run again, or compare several in tables and on one page."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished runs."""
    out: Path | None = None
    """Page that compares several runs, by default comparison.html; the page of a single one lies in its folder."""


@dataclass(frozen=True)
class Extract:
    """Ask a language model about every node of a text graph, and keep what it says in a store that runs find again."""

    data: str = "scipy-docs"
    """scipy-docs, a name under $JAXGKD_DATA/text, or a folder with nodes and edges files."""
    text_columns: tuple[str, ...] = ()
    """Columns to read as text; by default title, abstract, text, name and keywords."""
    label: str = "label"
    """Column that holds the classes; causal models are told their names, and no node's own."""
    teacher: str = "all-MiniLM-L6-v2"
    """Language model: a folder with config.json and safetensors, an installed package, or a Hugging Face id."""
    hops: int = 2
    """Largest hop: one prompt a node and hop."""
    max_tokens: int = 128
    """Tokens of a prompt; longer texts are cut, and counted."""
    devices: int = 1
    """Devices that prompts are divided among, 0 for all."""
    model_devices: int = 1
    """Of these, how many share the weights of the language model, where one device has no room for them."""
    out: Path | None = None
    """Folder of stores; by default the user's cache, where runs look."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 after an error of the user's, 130 or 143 after SIGINT or SIGTERM."""
    try:
        return processes.leave(_main(arguments))
    except Exception:
        if processes.count() == 1:
            raise
        # At its usual end Python would wait for the others, see `processes.leave`.
        traceback.print_exc()
        return processes.leave(1)


def _main(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A run does not end because a terminal cannot show ±.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    commands: dict[str, Callable[[list[str]], None]] = {
        "run": _run,
        "predict": _predict,
        "export": _export,
        "extract": _extract,
        "describe": _describe,
        "report": _report,
        "data": _data,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from jaxgkd import __version__

        print(__version__)
        return 0
    if arguments[0] not in commands:
        print(f"jaxgkd: there is no command '{arguments[0]}'; choose from {', '.join(commands)}.", file=sys.stderr)
        return 2
    # Only the main thread may; a program that calls this from another one has its own ways.
    if threading.current_thread() is threading.main_thread():
        termination.heed_sigterm()
    try:
        commands[arguments[0]](arguments[1:])
    except JaxgkdError as error:
        print(f"jaxgkd: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"jaxgkd: {error}; lower --learning-rate, or the weights of what the teacher adds.", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(f"jaxgkd: interrupted; {_how_to_go_on(arguments[0])}.", file=sys.stderr)
        return 130
    except termination.Terminated:
        print(f"jaxgkd: ended by SIGTERM; {_how_to_go_on(arguments[0])}.", file=sys.stderr)
        return termination.EXIT_CODE
    return 0


def _how_to_go_on(command: str) -> str:
    if command != "run":
        return "what is finished is kept, and the same command goes on from there"
    from jaxgkd.training.run_dir import RunDirectory

    folder = RunDirectory.latest
    if folder is None:
        return "no run was begun, the same command starts again"
    return f"what is done is kept, and the same command with --out {folder} --resume goes on from there"


def _run(arguments: list[str]) -> None:
    from jaxgkd.report import console_table, write_report
    from jaxgkd.training.compilation import use_compilation_cache
    from jaxgkd.training.execution import Execution, executing
    from jaxgkd.training.memory import keep_freed_memory
    from jaxgkd.training.observation import Observation, observing, profiled, tell
    from jaxgkd.training.run_dir import read_json
    from jaxgkd.training.student_folder import read_student

    name = _word("jaxgkd run", RECIPES, arguments)
    # Only the recipe that is asked for is imported: the packages of the others take a while to load.
    recipe = import_module(f"jaxgkd.recipes.{name}")
    # Flags of all of them side by side: neither how a run is carried out nor how it is watched is among its settings.
    parts = [("settings", getattr(recipe, RECIPES[name])), ("execution", Execution), ("processes", Processes)]
    parts.append(("observation", Observation))
    flags = tyro.cli(
        tyro.conf.OmitArgPrefixes[make_dataclass("Run", parts, frozen=True)],
        prog=f"jaxgkd run {name}",
        description=recipe.__doc__,
        args=arguments[1:],
    )
    if flags.settings.resume and flags.settings.out is None:
        raise ConfigError("nothing says which run goes on", field="--resume", mend="give its folder with --out")
    processes.join(flags.processes)
    if processes.count() > 1 and flags.settings.out is None:
        raise ConfigError("several processes write one run", field="--out", mend="give all of them the same folder")
    use_compilation_cache()
    keep_freed_memory()
    console = Console(quiet=not processes.leading())
    observation = flags.observation if processes.leading() else Observation()
    called = flags.settings.out.resolve().name if flags.settings.out else f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with executing(flags.execution), observing(observation, called) as trackers:
        with profiled(observation.profile):
            folder = recipe.run(flags.settings, console)
        processes.wait_for_all("run-finished")
        if not processes.leading():
            return
        page = write_report(folder)
        tell(trackers, folder)
    console.print(console_table(read_json(folder / "summary.json")))
    console.print(f"report: {page}", soft_wrap=True, highlight=False)
    # Positions in a graph's spectrum mean nothing in another graph.
    if (folder / "student").is_dir() and not read_student(folder).reads.get("positions"):
        words = f"jaxgkd predict {shlex.quote(str(folder))} --data NEW --out predictions.csv"
        console.print(f"predict: {words}", soft_wrap=True, highlight=False, markup=False)


def _predict(arguments: list[str]) -> None:
    from jaxgkd import predict
    from jaxgkd.training.compilation import use_compilation_cache

    config = tyro.cli(predict.Predict, prog="jaxgkd predict", args=arguments)
    use_compilation_cache()
    predict.run(config, Console())


def _export(arguments: list[str]) -> None:
    from jaxgkd import export

    export.run(tyro.cli(export.Export, prog="jaxgkd export", args=arguments), Console())


def _extract(arguments: list[str]) -> None:
    from jaxgkd.data import registry
    from jaxgkd.teachers.hops import TextEncoder, hop_features
    from jaxgkd.training.compilation import use_compilation_cache
    from jaxgkd.training.execution import Execution, executing
    from jaxgkd.training.memory import keep_freed_memory

    parts = [("settings", Extract), ("processes", Processes)]
    both = make_dataclass("Both", parts, frozen=True)
    flags = tyro.cli(
        tyro.conf.OmitArgPrefixes[both], prog="jaxgkd extract", description=Extract.__doc__, args=arguments
    )
    config = flags.settings
    for field, least in (("hops", 0), ("max_tokens", 1)):
        if getattr(config, field) < least:
            flag = f"--{field.replace('_', '-')}"
            raise ConfigError(f"the value is {getattr(config, field)}", field=flag, mend=f"give {least} or more")
    how = Execution(devices=config.devices, model_devices=config.model_devices)
    processes.join(flags.processes)
    use_compilation_cache()
    keep_freed_memory()
    console = Console(quiet=not processes.leading())
    graph = registry.load(config.data, recipe="lingugkd", **registry.column_options(config.text_columns, config.label))
    with executing(how):
        features = hop_features(
            graph,
            TextEncoder.load(config.teacher),
            hops=config.hops,
            max_tokens=config.max_tokens,
            root=config.out,
            progress=console.is_terminal and processes.leading(),
            on_line=console.print,
        )
    prompts, cut = (config.hops + 1) * graph.n_node, features.report["n_truncated"]
    seconds = features.report["seconds"]
    console.print(f"{prompts:,} prompts, {cut:,} of them cut to {config.max_tokens} tokens, asked in {seconds:.1f} s")
    console.print(f"store: {features.folder}", soft_wrap=True, highlight=False)


def _describe(arguments: list[str]) -> None:
    from jaxgkd.describe_command import Describe, run

    report = run(tyro.cli(Describe, prog="jaxgkd describe", args=arguments), Console())
    if report is not None and report.failed:
        what = f"{len(report.failed)} molecules stayed without an answer"
        raise ConfigError(what, mend="run the same command again, which asks for these alone")


def _report(arguments: list[str]) -> None:
    from jaxgkd.report import compare_runs, write_comparison, write_report

    config = tyro.cli(Report, prog="jaxgkd report", args=arguments)
    if not config.runs:
        raise ConfigError("no run is named", mend="give folders that `jaxgkd run` wrote")
    if len(config.runs) == 1:
        if config.out is not None:
            mend = "leave it out, or name several runs"
            raise ConfigError("the report of a run lies in its folder", field="--out", mend=mend)
        print(f"report: {write_report(config.runs[0])}")
        return
    if len({run.resolve() for run in config.runs}) < len(config.runs):
        raise ConfigError("a run is named twice", mend="name each once")
    # What is compared is only read: it may be in somebody else's folder.
    page = write_comparison(config.runs, config.out or Path("comparison.html"))
    print(compare_runs(config.runs))
    print(f"report: {page}")


def _data(arguments: list[str]) -> None:
    from jaxgkd.data_command import COMMANDS, run_data_command

    name = _word("jaxgkd data", COMMANDS, arguments)
    run_data_command(tyro.cli(COMMANDS[name], prog=f"jaxgkd data {name}", args=arguments[1:]), Console())


def _word(program: str, names: Collection[str], arguments: list[str]) -> str:
    """The first word, one of ``names``; anything else ends the program."""
    # A union of one member would not be read as subcommands, so the word is taken off by hand.
    if arguments and arguments[0] in names:
        return arguments[0]
    listed = ", ".join(names)
    if arguments and not arguments[0].startswith("-"):
        print(f"{program}: there is no '{arguments[0]}'; choose from {listed}.", file=sys.stderr)
        raise SystemExit(2)
    asked = arguments[:1] in (["-h"], ["--help"])
    usage = f"usage: {program} {{{listed}}} …\n\n{program} NAME --help explains the flags."
    print(usage, file=sys.stdout if asked else sys.stderr)
    raise SystemExit(0 if asked else 2)


if __name__ == "__main__":
    raise SystemExit(main())
