"""GALLON: what a language model reads about a molecule and what a graph network sees, distilled into an MLP.

    jaxgkd run gallon                                                  # 1,017 molecules inside RDKit's package
    jaxgkd run gallon --data clintox --descriptions descriptions.jsonl # texts that a language model wrote

1. Every molecule is put into words: by a language model (see ``jaxgkd describe``), or by a template.
2. Teachers learn the labels of the training part: a language model that reads the words, a graph network over the
   bonds, and, where wanted, a network that looks at drawings. Frozen, each says its outputs and a state of every
   molecule.
3. Students that see single atoms and no bonds learn the labels, alone or beside the teachers' outputs and states. All
   rows and all settings tried for them train side by side; each row keeps what validates best.
4. Every row is scored once on the test part.

Xu et al., LLM and GNN are Complementary: Distilling LLM for Multimodal Graph Learning, arXiv 2406.01032.
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
from jaxgkd.data.joined_molecules import joined_molecules
from jaxgkd.data.molecule_drawings import drawings, n_blank
from jaxgkd.data.molecule_splits import save_molecule_split, splits_of_seeds
from jaxgkd.data.molecules import Molecules, load_molecules
from jaxgkd.data.rdkit_molecules import load_nci
from jaxgkd.data.splits import Split
from jaxgkd.nn.molecule_problem import Make
from jaxgkd.recipes.gallon_bag_students import BagClass
from jaxgkd.recipes.gallon_bags import OF_FRAGMENTS
from jaxgkd.recipes.gallon_config import GALLON, MODALITIES, check, rows_of, settings_of, shrunk
from jaxgkd.recipes.gallon_costs import teacher_costs
from jaxgkd.recipes.gallon_graph_students import GraphClass
from jaxgkd.recipes.gallon_heads import FOLDS, READ, heads_parameters, read_beside_atoms
from jaxgkd.recipes.gallon_students import Students, Studied, choose
from jaxgkd.recipes.gallon_summary import write_gallon_run
from jaxgkd.recipes.gallon_teachers import (
    DRAWING_SIZE,
    Lesson,
    Said,
    Teacher,
    Texts,
    kept,
    learn_from_drawings,
    learn_from_graphs,
    learn_from_texts,
    over_folds,
    read_texts,
)
from jaxgkd.recipes.gallon_texts import Part, Prompts, make_prompts
from jaxgkd.recipes.kept_molecules import keep_gallon_student
from jaxgkd.recipes.molecule_networks import make_graph_teacher
from jaxgkd.recipes.molecule_summary import describe_molecules
from jaxgkd.recipes.molecule_targets import Targets
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.prompts import prompt_hash
from jaxgkd.teachers.text_tuning import TuneSettings
from jaxgkd.teachers.tune import Progress
from jaxgkd.training.progress import progress_bar
from jaxgkd.training.run_dir import RunDirectory, check_folder, with_files
from jaxgkd.training.search import as_many_each
from jaxgkd.training.student_folder import write_student


def run(config: GALLON, console: Console) -> Path:
    """All steps; returns the folder of the run.

    Raises:
      JaxgkdError: the data, a setting or the folder cannot be used.
    """
    started = time.perf_counter()
    config = shrunk(config) if config.smoke else config
    check(config)
    labelled = load(config)
    console.print(f"{labelled.name}: {len(labelled):,} molecules, {len(labelled.tasks)} task(s)")
    splits = splits_of_seeds(labelled, config.split, config.seeds, config.splits_file)
    metric = config.metric
    if metric == "auto":
        metric = "rmse" if labelled.tasks[0].kind == "regression" else "auroc"
    Targets.of(labelled, metric).check(splits)
    out = config.out or Path("runs") / f"gallon-{labelled.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    identity = _identity(config, labelled)
    if check_folder(out, resume=config.resume) and RunDirectory(out, identity, resume=True).finished:
        return out

    # From here on there are the molecules with labels, at their places, and behind them those without.
    molecules = _with_unlabelled(config, labelled)
    targets = Targets.of(molecules, metric)
    written = config.descriptions, config.missing, len(labelled)
    prompts = {name: make_prompts(molecules, parts, *written) for name, parts in _read(config)}
    encoder = TextEncoder.load(config.lm) if prompts else None
    run_dir = RunDirectory(out, identity, resume=config.resume)
    for seed, split in enumerate(splits):
        save_molecule_split(split, labelled, run_dir.path / f"split-{seed}.json")
    lessons = [
        Lesson(molecules, targets, targets.scale(split.train), split, seed, config.folds)
        for seed, split in enumerate(splits)
    ]
    make_gnn = make_graph_teacher(config.gnn, config.gnn_width, config.gnn_layers, len(molecules.tasks))
    said = {
        name: [kept(teacher, lesson) for lesson in lessons]
        for name, teacher in _teachers(config, molecules, make_gnn, encoder, prompts, console).items()
    }
    others = np.arange(len(molecules)) >= len(labelled)
    # A language model that has learned from descriptions says nothing of molecules without one.
    beside = {name: others & prompts[name].whole if name in prompts else others for name in said}
    students = _students(config, molecules, targets, splits, beside)
    rows = rows_of(config)
    tries = {row: settings_of(config, names, list(said)) for row, names in rows.items()}
    tries = as_many_each(tries, drawn=not config.sweep)
    n_try = sum(len(settings) for settings in tries.values())

    def taught(seed: int) -> dict[str, Any]:
        title = f"{len(rows)} rows of students, {n_try} settings, seed {seed}"
        with progress_bar(console, title, students.epochs) as tick:
            of_seed = {name: everyone[seed] for name, everyone in said.items()}
            return students.teach(of_seed, tries, splits[seed], lessons[seed].scale, seed, tick)._asdict()

    studied = [Studied(**run_dir.stage(f"students-{seed}", partial(taught, seed))) for seed in range(config.seeds)]
    chosen = choose(studied, lessons, len(rows))
    graduates = [
        students.graduate(one, tried, lesson.scale) for one, tried, lesson in zip(studied, chosen, lessons, strict=True)
    ]
    place = list(rows).index("student_distilled")
    per_row = n_try // len(rows)
    write_student(
        run_dir.path,
        keep_gallon_student(
            molecules,
            targets,
            [lesson.scale for lesson in lessons],
            [students.states(one, place) for one in graduates],
            [one.valid[place * per_row + int(tried[place])] for one, tried in zip(studied, chosen, strict=True)],
            kind=config.student,
            width=students.width,
            layers=students.layers,
        ),
    )
    n_head = heads_parameters(encoder, len(molecules.tasks)) if encoder is not None and config.lm_reads_atoms else 0
    trained = [*studied, *(each for everyone in said.values() for each in everyone)]
    write_gallon_run(
        run_dir,
        labelled=labelled,
        lessons=lessons,
        said=said,
        students=students,
        graduates=graduates,
        settings={row: [tries[row][tried[i]] for tried in chosen] for i, row in enumerate(rows)},
        n_try=per_row,
        seconds=sum(one.seconds for one in trained),
        labels=_labels(config),
        baselines=config.baselines,
        costs=teacher_costs(list(said), encoder, prompts, config.max_tokens, make_gnn, n_head, lessons[0]),
        encoder=encoder,
        prompts=prompts.get("lm"),
        max_tokens=config.max_tokens,
        split=config.split if config.splits_file is None else f"given in {config.splits_file.name}",
        started=started,
    )
    return out


def _students(
    config: GALLON, molecules: Molecules, targets: Targets, splits: list[Split], beside: Mapping[str, np.ndarray]
) -> Students:
    if config.student == "gnn":
        width, epochs = config.width or 32, config.epochs or 40
        return GraphClass(molecules, targets, width, config.layers or 3, beside, epochs)
    return BagClass.of(
        molecules,
        targets,
        splits,
        kind=config.student,
        width=config.width or (8 if config.student in OF_FRAGMENTS else 32),
        layers=config.layers or 2,
        beside=beside,
        epochs=config.epochs or 300,
    )


def _with_unlabelled(config: GALLON, labelled: Molecules) -> Molecules:
    if config.unlabelled == "none":
        return labelled
    if config.unlabelled == "nci":
        others = load_nci(hydrogens=labelled.hydrogens)
    else:
        most = config.max_atoms or None
        others = load_molecules(config.unlabelled, labels=(), hydrogens=labelled.hydrogens, max_atoms=most)
    return joined_molecules(labelled, others, config.n_unlabelled)


def _read(config: GALLON) -> list[tuple[str, tuple[Part, ...]]]:
    """Language models by name, and what each reads."""
    read = [("lm", config.parts)] if "lm" in config.teachers else []
    return [*read, *(MODALITIES.items() if config.modalities else ())]


def _teachers(
    config: GALLON,
    molecules: Molecules,
    make_gnn: Make,
    encoder: TextEncoder | None,
    prompts: Mapping[str, Prompts],
    console: Console,
) -> dict[str, Teacher]:
    """Teachers by name, each ready for a lesson."""
    steps = max(1, round(0.8 * (~np.isnan(molecules.labels).all(axis=1)).sum() / 32))
    epochs = config.gnn_epochs or int(np.clip(round(2500 / steps), 20, 100))
    settings = {"learning_rate": 0.002, "weight_decay": 0.01, "dropout": 0.1}
    tuning = TuneSettings(
        tuned_layers=config.tuned_layers,
        max_tokens=config.max_tokens,
        epochs=config.lm_epochs,
        learning_rate=config.lm_learning_rate,
        label_smoothing=config.label_smoothing,
    )
    texts: dict[str, Texts] = {}

    def told(title: str, passes: int, learn: Callable[..., Said], lesson: Lesson) -> Said:
        with progress_bar(console, f"{title}, seed {lesson.seed}", passes * config.folds) as tick:
            return over_folds(lesson, partial(learn, lesson, tick))

    def beside_atoms(reader: Teacher, lesson: Lesson) -> Said:
        return read_beside_atoms(lesson, kept(reader, lesson))

    def graphs(lesson: Lesson, tick: Progress, train: np.ndarray, fold: int) -> Said:
        del fold
        return learn_from_graphs(lesson, make_gnn, settings, epochs, tick, train)

    def looks(lesson: Lesson, tick: Progress, train: np.ndarray, fold: int) -> Said:
        drawn = drawings(molecules, DRAWING_SIZE)
        if fold == lesson.seed == 0 and (blank := n_blank(drawn)):
            console.print(f"{blank} molecules cannot be drawn, and are blank")
        return learn_from_drawings(lesson, drawn, settings, epochs, tick, train)

    def reads(name: str, lesson: Lesson, tick: Progress, train: np.ndarray, fold: int) -> Said:
        assert encoder is not None
        if name not in texts:
            texts[name] = read_texts(encoder, prompts[name].texts, tuning, on_line=console.print)
        return learn_from_texts(lesson, texts[name], tick, train, fold)

    shape = {"kind": config.gnn, "width": config.gnn_width, "layers": config.gnn_layers}
    known = {
        "gnn": Teacher(partial(told, "graph network", epochs, graphs), {**shape, **settings, "epochs": epochs}),
        "drawing": Teacher(partial(told, "network over drawings", epochs, looks), {**settings, "epochs": epochs}),
    }
    for name, prompt in prompts.items():
        assert encoder is not None
        learn = partial(told, f"language model ({name})", config.lm_epochs, partial(reads, name))
        facts = {"weights": encoder.weights_hash, "prompts": prompt_hash(prompt.texts), **asdict(tuning)}
        known[name] = reader = Teacher(learn, facts, of_split=True)
        if config.lm_reads_atoms:
            known[name] = Teacher(
                partial(beside_atoms, reader), {**facts, "beside": READ, "head_folds": FOLDS}, of_split=True
            )
    return {name: known[name] for name in (*config.teachers, *(name for name in prompts if name != "lm"))}


def load(config: GALLON) -> Molecules:
    """The molecules of a run."""
    options: dict[str, Any] = {"labels": config.label} if config.label else {}
    if config.max_atoms:
        options["max_atoms"] = config.max_atoms
    if config.task != "auto":
        options["kinds"] = (config.task,) * max(1, len(config.label))
    return registry.load(config.data, recipe="gallon", **options)


def _labels(config: GALLON) -> dict[str, str]:
    named = {
        "lm": "LM",
        "gnn": "GNN",
        "drawing": "drawings",
        "lm_smiles": "LM, SMILES alone",
        "lm_description": "LM, description alone",
        "lm_structure": "LM, SMILES and bonds",
    }
    student = {
        "atoms": "MLP over atoms",
        "neighbours": "MLP over atoms and their bonds",
        "fingerprint": "MLP over a fingerprint",
        "fragments": "MLP over counts of fragments",
        "gnn": "GNN",
    }[config.student]
    labels = {f"student_{name}": f"+ {label}" for name, label in named.items()}
    labels |= {"student_alone": f"{student} alone", "student_all": "+ GNN, LM and drawings"}
    both = " and ".join(named[name] for name in rows_of(config)["student_distilled"])
    beside = " beside atoms" if config.lm_reads_atoms else ""
    teachers = {
        name: f"{label}{beside if name in ('lm', *MODALITIES) else ''} (teacher)" for name, label in named.items()
    }
    return labels | {"student_distilled": f"+ {both}"} | teachers


def _identity(config: GALLON, molecules: Molecules) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "resume")}
    settings = with_files(settings, "splits_file", "descriptions", "unlabelled")
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return settings | {"recipe": "gallon", "data_facts": describe_molecules(molecules)}
