"""``jaxgkd predict``: its flags, and which reader and student belong to the recipe of a run.

jaxgkd predict runs/lingugkd-my-graph --data new-papers --out predictions.parquet
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from jaxgkd.data import registry
from jaxgkd.errors import ConfigError
from jaxgkd.predict.outcome import Outcome
from jaxgkd.predict.output_file import OutputFile, check_output
from jaxgkd.training.student_folder import KeptStudent, read_student


@dataclass(frozen=True)
class Predict:
    """Ask the distilled student of a finished run about new nodes, pairs of them, molecules or subjects.

    Nothing is read but the run's folder and the new data: no training data, no labels, and no teacher, except for the
    language model that students of `lmgnn` read texts with.
    """

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    data: str
    """New data in the form that the recipe takes, labels not needed: a folder, a file, or the name of a data set."""
    out: Path
    """File to write, one row an item in the order of the data: .csv, .csv.gz or .parquet."""
    pairs: Path | None = None
    """Of a run that was asked about edges, the table with the columns src and dst to answer for; these pairs pass no
    messages, all other edges of --data do."""
    seeds: Literal["best", "all"] = "best"
    """The student that validated best, or the mean of what those of all seeds (and folds) say."""
    student: Literal["student", "text_student"] = "student"
    """Which of a run's students: the distilled one, or, of `lmgnn` on classes of nodes, the language model that has
    learned from the graph network and reads a node's text alone."""
    text_columns: tuple[str, ...] = ()
    """Columns to read as text; by default those that the run named, else the usual ones."""
    overwrite: bool = False
    """Replace --out where it is there already."""


def run(config: Predict, console: Console) -> Outcome:
    """Predict, write and print what became of the items.

    Raises:
      JaxgkdError: the run, the data or the file cannot be used.
    """
    check_output(config.out, overwrite=config.overwrite)
    kept = read_student(config.run, config.student)
    if config.text_columns and kept.reads["data"] != "text graph":
        what = f"runs of {kept.recipe} do not ask which columns are text"
        raise ConfigError(what, field="--text-columns", mend="leave it out")
    if config.pairs is not None and kept.reads["data"] != "typed graph":
        raise ConfigError(f"runs of {kept.recipe} answer for no pairs", field="--pairs", mend="leave it out")
    members = list(range(len(kept.members))) if config.seeds == "all" else list(kept.chosen)
    outcome = _predict(config, kept, members, console)
    outcome.print(console)
    console.print(f"predictions: {config.out}", soft_wrap=True, highlight=False, markup=False)
    return outcome


def _predict(config: Predict, kept: KeptStudent, members: list[int], console: Console) -> Outcome:
    found = registry.source(config.data, recipe=kept.recipe)
    source = registry.load(found, recipe=kept.recipe) if isinstance(found, str) else found
    if kept.reads["data"] == "molecules":
        from jaxgkd.predict.molecules import predict_molecules

        return predict_molecules(kept, members, source, partial(OutputFile, config.out))
    if kept.reads["data"] == "brains":
        from jaxgkd.predict.brains import predict_brains

        with OutputFile(config.out) as out:
            return predict_brains(kept, members, source, out, on_line=console.print)
    if kept.reads["data"] == "typed graph":
        from jaxgkd.data.hetero_files import load_hetero_graph
        from jaxgkd.predict.hetero import predict_hetero

        graph = load_hetero_graph(source) if isinstance(source, Path) else source
        with OutputFile(config.out) as out:
            return predict_hetero(kept, members, graph, out, pairs=config.pairs, on_line=console.print)
    from jaxgkd.data.new_nodes import NewNodes
    from jaxgkd.predict.nodes import predict_nodes

    nodes = NewNodes(
        source,
        text_columns=config.text_columns or kept.reads["text_columns"] or None,
        hidden=kept.reads["label"],
        with_text=kept.reads["inputs"] == "words",
    )
    with OutputFile(config.out) as out:
        return predict_nodes(kept, members, nodes, out)
