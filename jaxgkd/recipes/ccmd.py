"""Coordinating Cross-modal Distillation: a network that sees molecules in space teaches one that sees their bonds.

    jaxgkd run ccmd                              # 365 ligands inside RDKit's package, in some minutes on two cores
    jaxgkd run ccmd --data qm7 --ablation        # the rows of the published table, on real geometries

1. A teacher learns the labels from the atoms and their coordinates, on the training part.
2. Frozen, it says what its layers hold of every training molecule and of every atom.
3. Students learn the labels from atoms and bonds, alone or beside the teacher's states: of the molecule in every layer,
   and of the atoms, weighted by the molecule's size. All rows of a seed are trained side by side on the same batches.
4. Every row is scored once on the test part; the students see no coordinates there.

Zhang et al., arXiv 2211.16712.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxgkd.data import registry
from jaxgkd.data.molecule_splits import save_molecule_split, splits_of_seeds
from jaxgkd.data.molecules import Molecules
from jaxgkd.graphs import shortest_paths
from jaxgkd.graphs.size_classes import similar_budgets
from jaxgkd.nn.molecule_relations import bond_counts, bond_kinds
from jaxgkd.nn.untrained import n_weights
from jaxgkd.recipes.ccmd_config import ABLATION, CCMD, SPACE, check, shrunk, tries_of
from jaxgkd.recipes.ccmd_summary import metric_lines, summary_rows
from jaxgkd.recipes.kept_molecules import keep_ccmd_student
from jaxgkd.recipes.molecule_baselines import composition
from jaxgkd.recipes.molecule_geometry import find_geometry
from jaxgkd.recipes.molecule_networks import (
    NAMES,
    Sizes,
    make_student,
    make_teacher,
    weights_of_run,
)
from jaxgkd.recipes.molecule_rows import (
    MoleculeData,
    Network,
    Trained,
    last_states,
    milliseconds_per_molecule,
    one_run,
    saved,
    stacked_settings,
    teacher_states,
    train_students,
    train_teacher,
)
from jaxgkd.recipes.molecule_summary import describe_molecules, write_molecule_run
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.training.run_dir import RunDirectory, check_folder, with_files
from jaxgkd.training.search import as_many_each, ranked
from jaxgkd.training.student_folder import write_student


def run(config: CCMD, console: Console) -> Path:
    """All steps; returns the folder of the run.

    Raises:
      JaxgkdError: the data, a setting or the folder cannot be used.
    """
    started = time.perf_counter()
    config = shrunk(config) if config.smoke else config
    check(config)
    molecules = load(config)
    n_atom = molecules.n_atom
    console.print(f"{molecules.name}: {len(molecules):,} molecules of {n_atom.min()} to {n_atom.max()} atoms")
    targets = Targets.of(molecules, None if config.metric == "auto" else config.metric)
    splits = splits_of_seeds(molecules, config.split, config.seeds, config.splits_file)
    targets.check(splits)
    out = config.out or Path("runs") / f"ccmd-{molecules.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    settings = _identity(config, molecules)
    if check_folder(out, resume=config.resume) and RunDirectory(out, settings, resume=True).finished:
        return out

    data, teacher, student = prepare(config, molecules, targets, console)
    begin = None if config.start is None else weights_of_run(config.start, student.make)
    run_dir = RunDirectory(out, settings, resume=config.resume)
    for seed, split in enumerate(splits):
        save_molecule_split(split, molecules, run_dir.path / f"split-{seed}.json")
    common = {name: getattr(config, name) for name in ("learning_rate", "weight_decay", "dropout")}

    def train_rows(seed: int, settings: list[dict[str, Any]], title: str, members: int = 1) -> Trained:
        """Students of a seed, one a setting, taught by its teacher."""
        rows = splits[seed].train
        params = one_run(teacher_of(seed).params, 0)
        states = teacher_states(data, teacher, params, rows[data.geometry.placed[rows]])
        stacked = stacked_settings([loss_settings(config, each, n_atom) for each in settings])
        options: dict[str, Any] = {"members": members, "start": begin, "title": title}
        return train_students(data, student, stacked, splits[seed], seed, states, console, **options)

    def teacher_of(seed: int) -> Trained:
        fit = partial(train_teacher, data, teacher, common, splits[seed], seed, console)
        return saved(run_dir, f"teacher-{seed}", teacher, fit)

    rows = ["student_alone", "student_distilled", *(ABLATION if config.ablation else ())]
    chosen = _chosen(config, rows, targets, student, run_dir, train_rows)
    members = [chosen[row] for row in rows for _ in range(config.ensemble)]
    teachers = [teacher_of(seed) for seed in range(config.seeds)]
    students = [
        saved(run_dir, f"students-{seed}", student, partial(train_rows, seed, members, "students", config.ensemble))
        for seed in range(config.seeds)
    ]
    sizes = Sizes(config.width, config.layers, config.heads, targets.labels.shape[1])
    write_student(
        run_dir.path,
        keep_ccmd_student(data, students, splits, kind=config.student, sizes=sizes, ensemble=config.ensemble),
    )
    cost: dict[str, float | None] = {
        "teacher_parameters": n_weights(teacher.make),
        "teacher_ms_per_item": milliseconds_per_molecule(data, teacher, one_run(teachers[0].params, 0), three_d=True),
        "student_parameters": n_weights(student.make, lambda model: model.student),
        "student_ms_per_item": milliseconds_per_molecule(data, student, one_run(students[0].params, 0), three_d=False),
        "extract_seconds": None,
        "train_seconds": sum(one.seconds for one in (*teachers, *students)),
    }
    counted = data.by_composition and targets.kind == "regression"
    offsets = [composition(molecules, split, targets.labels, 0) for split in splits] if counted else None
    write_molecule_run(
        run_dir,
        molecules=molecules,
        targets=targets,
        splits=splits,
        rows=summary_rows(teachers, students, config.ensemble, chosen, _labels(config, rows), cost),
        baselines=config.baselines,
        lines=metric_lines(rows, config.ensemble, teachers, students),
        embedding=last_states(data, student, one_run(students[0].params, config.ensemble)),
        describe={
            "recipe": "ccmd",
            "protocol": "The epoch is chosen by validation and tested once; students see no coordinates",
            "teacher": {"name": f"{NAMES[config.teacher]} in 3D", "geometry": data.geometry.source},
            "student": {"name": f"{NAMES[config.student]} in 2D", "width": config.width, "layers": config.layers},
            "split": _split_name(config),
        },
        cost=cost,
        offsets=offsets,
        notes=[
            *molecules.notes,
            *data.geometry.notes,
            f"The run took {time.perf_counter() - started:.0f} s since it was last started",
        ],
    )
    return out


def prepare(
    config: CCMD, molecules: Molecules, targets: Targets, console: Console
) -> tuple[MoleculeData, Network, Network]:
    """What all seeds read, the teacher and the student."""
    geometry = find_geometry(molecules, config.conformers, config.n_conformers, 0, console)
    graphs = molecules.graphs()
    flat = config.student == "gine"
    paths = None if flat else shortest_paths(graphs, bond_kinds(graphs.edges["fields"]))
    batch_size = min(config.batch_size or min(128, max(16, len(graphs) // 40)), len(graphs))
    # On little data, compiling another shape takes longer than it saves.
    shapes = min(4, 1 + len(molecules) // 1000)
    data = MoleculeData(
        molecules=molecules,
        targets=targets,
        geometry=geometry,
        nodes={} if flat else {"bonds": bond_counts(graphs)},
        pairs={} if paths is None else {"path": paths.kind},
        row_budgets=similar_budgets(graphs.n_node, graphs.n_edge, batch_size, most=shapes),
        flat=flat,
        batch_size=batch_size,
        by_composition=config.offset == "composition",
    )
    sizes = Sizes(config.width, config.layers, config.heads, targets.labels.shape[1])
    drops = config.dropout > 0
    teacher = Network(
        make_teacher(config.teacher, sizes),
        config.teacher_epochs or config.epochs,
        with_dropout=drops and config.teacher == "transformer",
    )
    student = Network(
        make_student(config.student, sizes, paths, mapped=config.projection == "linear"),
        config.epochs,
        config.distance,
        with_dropout=drops or any(word.startswith("dropout") for word in config.sweep),
    )
    return data, teacher, student


def _chosen(
    config: CCMD,
    rows: list[str],
    targets: Targets,
    student: Network,
    run_dir: RunDirectory,
    train_rows: Callable[[int, list[dict[str, Any]], str], Trained],
) -> dict[str, dict[str, Any]]:
    """The numeric settings of every row, searched on the validation parts of the first seeds."""
    tries = {row: [{"row": row, **each} for each in tries_of(config, row)] for row in rows}
    tries = as_many_each(tries, drawn=not config.sweep)
    if all(len(settings) == 1 for settings in tries.values()):
        return {row: settings[0] for row, settings in tries.items()}
    everything = [each for settings in tries.values() for each in settings]
    sign = 1.0 if targets.higher_is_better else -1.0
    scores = []
    for seed in range(min(config.search_seeds, config.seeds)):
        title = f"{len(everything)} settings"
        found = saved(run_dir, f"search-{seed}", student, partial(train_rows, seed, everything, title))
        scores.append((sign * found.curves["valid"]).max(axis=1))
    table = np.stack(scores, axis=1)
    best, at = {}, 0
    for row, settings in tries.items():
        best[row] = settings[ranked(table[at : at + len(settings)])[0]]
        at += len(settings)
    return best


def loss_settings(config: CCMD, chosen: Mapping[str, Any], n_atom: np.ndarray) -> dict[str, Any]:
    """What the loss of a row reads, from the settings of the row."""
    row = chosen["row"]
    layers = np.full(config.layers, 0.0 if row in ("student_alone", "local_mean") else chosen["global_strength"])
    if row == "global_last":
        layers[:-1] = 0.0
    power = config.coordinate_power if row == "student_distilled" else 1.0
    # Strengths mean the same at the mean size, whatever the power.
    local = 0.0 if row in ("student_alone", "global_last", "global_all") else chosen["local_strength"]
    local *= float(n_atom.mean()) ** (power - 1.0)
    optimised = {name: chosen[name] for name in (*SPACE, "dropout")}
    return optimised | {"global": layers, "local": local, "power": power}


def load(config: CCMD) -> Molecules:
    """The molecules of a run."""
    options: dict[str, Any] = {"labels": config.label} if config.label else {}
    if config.hydrogens != "auto":
        options["hydrogens"] = config.hydrogens
    if config.max_atoms:
        options["max_atoms"] = config.max_atoms
    if config.task != "auto":
        options["kinds"] = (config.task,) * max(1, len(config.label))
    return registry.load(config.data, recipe="ccmd", **options)


def _labels(config: CCMD, rows: list[str]) -> dict[str, str]:
    kind = f"{NAMES[config.student]} 2D"
    names = {
        "teacher": f"{NAMES[config.teacher]}, 3D at test",
        "student_alone": f"{kind} alone",
        "student_distilled": f"{kind} distilled",
        **ABLATION,
    }
    return {name: names[name] for name in ("teacher", *rows)}


def _split_name(config: CCMD) -> str:
    return config.split if config.splits_file is None else f"given in {config.splits_file.name}"


def _identity(config: CCMD, molecules: Molecules) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "resume")}
    settings = with_files(settings, "splits_file", "start")
    return settings | {"recipe": "ccmd", "data_facts": describe_molecules(molecules)}
