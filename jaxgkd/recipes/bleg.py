"""BLEG: what a language model reads about a brain teaches a network over its connections, fold by fold.

    jaxgkd run bleg                                   # a simulated cohort, called simulated wherever it shows
    jaxgkd run bleg --data abide --seeds 5            # five repeats of five folds

1. Connections between regions are read as correlations, or as the fold's training subjects make them look, and put
   into words, by a template fitted to these subjects, or from a file.
2. A frozen language model reads the words, and heads over its states learn the labels of training subjects, each
   described by a head that never saw its own. With ``--stages 2+3`` every brain must first find its own text among
   those of others.
3. A network over the connections learns the labels, alone or beside the teacher's states and answers. All rows,
   settings and folds of a repeat train side by side; each row and fold keeps what validates best there.
4. Every row is scored once on the fold's test subjects, beside linear models on all connections.

What depends on labels, or on what is usual, is fitted within the fold. BLEG's stages are described on its page; this is
its clean protocol: texts hold no labels, and validation subjects are not those of the test.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console

from jaxgkd.data import registry
from jaxgkd.data.brain_counts import describe_brains
from jaxgkd.data.brain_graphs import brain_graphs
from jaxgkd.data.brain_splits import brain_folds, keep_label_share, leave_one_site_out, read_subject_split
from jaxgkd.data.brains import Brains
from jaxgkd.data.connectivity import from_upper
from jaxgkd.data.splits import few_shot
from jaxgkd.errors import DataError
from jaxgkd.nn.brain_inputs import BrainInputs, brain_inputs
from jaxgkd.nn.brain_students import brain_student_maker
from jaxgkd.nn.untrained import n_weights
from jaxgkd.recipes.bleg_config import BLEG, ROWS, check, shrunk, tries_of
from jaxgkd.recipes.bleg_students import Course, Lesson, inputs_of, student_milliseconds, study
from jaxgkd.recipes.bleg_summary import Fold, Row, write_bleg_run
from jaxgkd.recipes.bleg_teacher import Read, Taught, read, teach
from jaxgkd.recipes.bleg_texts import TextKind, check_texts, fold_texts, profiles_for, shuffled
from jaxgkd.recipes.brain_baselines import BASELINE_LABELS, fit_linear
from jaxgkd.recipes.brain_views import fold_features, same_width, student_vectors, view_of
from jaxgkd.recipes.gallon_texts import milliseconds_per_prompt
from jaxgkd.recipes.kept_brains import keep_brain_student
from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.training.progress import progress_bar
from jaxgkd.training.run_dir import RunDirectory, check_folder, with_files
from jaxgkd.training.search import as_many_each
from jaxgkd.training.student_folder import write_student

_STUDENTS = {
    "gcn": "GCN",
    "bnt": "brain network transformer",
    "brainnetcnn": "BrainNetCNN",
    "mlp": "MLP on all connections",
}

_ABOUT_VECTORS = (
    "The MLP reads principal coordinates of all connections; its parameters and time do not count their making"
)


def run(config: BLEG, console: Console) -> Path:
    """All steps; returns the folder of the run.

    Raises:
      JaxgkdError: the data, a setting or the folder cannot be used.
    """
    started = time.perf_counter()
    config = shrunk(config) if config.smoke else config
    check(config)
    check_texts(config.texts)
    brains = load(config)
    console.print(
        f"{brains.name}: {brains.n_subjects:,} subjects, {brains.n_regions} regions"
        + (", simulated" if brains.simulated else "")
    )
    folds, trained = folds_of(config, brains)
    out = config.out or Path("runs") / f"bleg-{brains.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    identity = _identity(config, brains)
    if check_folder(out, resume=config.resume) and RunDirectory(out, identity, resume=True).finished:
        return out
    encoder = None if config.texts == "none" else TextEncoder.load(config.teacher)
    run_dir = RunDirectory(out, identity, resume=config.resume)
    run_dir.write_json("splits.json", [_split_entry(brains, fold) for fold in folds])

    linear = {name: np.zeros((len(folds), brains.n_subjects), np.float32) for name in config.baselines}
    penalties: dict[str, list[float]] = {name: [] for name in config.baselines}
    profiles = None if encoder is None else profiles_for(brains, config.texts)
    shrinkages: list[float | None] = []
    vectors: list[np.ndarray] = []
    texts: list[list[str]] = []
    for i, (fold, rows) in enumerate(zip(folds, trained, strict=True)):
        options = {"harmonise": config.harmonise}
        view = view_of(brains, config.connectivity, config.shrinkage, fold.split, rows, **options)
        shrinkages.append(view.shrinkage)
        for name in config.baselines:
            found = fit_linear(name, view.coordinates, brains.labels, fold.split)
            linear[name][i] = found.probabilities
            penalties[name].append(found.penalty)
        if config.student == "mlp":
            vectors.append(student_vectors(view.features, rows))
        if encoder is not None:
            written = fold_texts(brains, profiles, config.texts, fold.split, rows, fold.seed, view.features)
            texts.append(shuffled(written, fold.split, fold.seed) if config.shuffle_texts else written)
    if vectors:
        vectors = same_width(vectors)
    reads: list[Read] = []
    lessons: list[Lesson] = []
    for start in range(0, len(folds), config.folds):
        # The folds of a repeat are read together: what is said of a subject in several of them is read once.
        if encoder is not None:
            several = texts[start : start + config.folds]
            reads.append(read(encoder, several, brains.sha256, config.max_tokens, console))
        for i, fold in enumerate(folds[start : start + config.folds]):
            rows = trained[start + i]
            if encoder is None:
                n = brains.n_subjects
                taught = Taught(np.zeros((n, 1), np.float32), np.zeros((n, 2), np.float32), 0.0, 0)
            else:
                options = {"components": config.components, "folds": config.teacher_folds}
                taught = teach(reads[-1].states[i], brains.labels, fold.split, rows, **options)
            own = vectors[start + i] if vectors else None
            lessons.append(Lesson(fold.split, rows, taught, fold.seed, fold.fold, shrinkages[start + i], own))
    # Directions that hold a fold's texts may be fewer than another's.
    lessons = _same_width(lessons)
    if texts:
        run_dir.write_lines("texts.jsonl", _text_lines(brains, folds, texts))

    studied: list[Mapping[str, Any]] = []
    # Where connectivity differs between folds, vectors of several still train together; matrices would be too many.
    by_fold = not vectors and (config.harmonise or config.connectivity != "correlation")
    whole = None if vectors or by_fold else _inputs(config, brains, brains.connectivity)
    n_inputs = vectors[0].shape[1] if vectors else brains.n_regions
    make = brain_student_maker(
        config.student, n_inputs, config.width, config.layers, 2, lessons[0].taught.states.shape[1], config.readout
    )
    course = Course(make, config.batch, config.epochs, config.text_epochs if config.stages == "2+3" else 0)
    # Without a teacher there is one row, shown twice.
    tries = {row: tries_of(config, row) for row in (ROWS if encoder is not None else ROWS[:1])}
    tries = as_many_each(tries, drawn=not config.sweep)
    n_try = len(next(iter(tries.values())))
    size = 1 if by_fold else config.folds
    for start in range(0, len(folds), size):
        chunk = lessons[start : start + size]

        def learn(chunk: Sequence[Lesson] = chunk, start: int = start) -> dict[str, Any]:
            inputs = _fold_inputs(config, brains, chunk[0]) if by_fold else whole
            n_run = len(chunk) * n_try * len(tries)
            title = f"{_STUDENTS[config.student]}, folds {start + 1} to {start + len(chunk)}, {n_run} students"
            with progress_bar(console, title, config.epochs) as tick:
                return study(course, chunk, tries, inputs, brains.labels, tick)

        studied.append(run_dir.stage(f"students-{start // size}", learn))

    write_student(
        run_dir.path,
        keep_brain_student(
            brains,
            lessons,
            [(fold.seed, fold.fold) for fold in folds],
            studied,
            make,
            row=list(tries)[-1],
            config=config,
        ),
    )
    inputs = _fold_inputs(config, brains, lessons[0]) if by_fold else inputs_of(lessons[0], whole)
    per_item = student_milliseconds(course, inputs)
    student = {"parameters": n_weights(make, lambda model: model.student), "ms_per_item": per_item}
    rows, not_run = {}, {}
    if encoder is not None:
        heads = lessons[0].taught.parameters
        teacher = {
            "parameters": encoder.model.n_parameters + heads,
            "ms_per_item": milliseconds_per_prompt(encoder, texts[0], config.max_tokens),
        }
        said = np.stack([lesson.taught.probabilities for lesson in lessons])
        extras = {**teacher, "penalties": [lesson.taught.penalty for lesson in lessons]}
        rows["teacher"] = Row(said, f"{encoder.name} reads texts (teacher)", extras)
    else:
        teacher = {"parameters": None, "ms_per_item": None}
        not_run["teacher"] = {"label": "teacher", "not_run": "no texts were asked for"}
    labels = _labels(config)
    join = lambda name: np.concatenate([one[name] for one in studied], axis=1)  # noqa: E731
    probabilities, chosen, best = join("probabilities"), join("chosen"), join("best_epoch")
    for i, row in enumerate(ROWS):
        i = min(i, len(tries) - 1)
        settings = [list(tries.values())[i][int(k)] for k in chosen[i]]
        extras = {**student, "best_epoch": best[i].tolist(), "settings": settings}
        rows[row] = Row(probabilities[i], labels[row], extras)
    for name in config.baselines:
        rows[name] = Row(linear[name], BASELINE_LABELS[name], {"penalties": penalties[name]})
    write_bleg_run(
        run_dir,
        brains=brains,
        folds=folds,
        n_seed=config.seeds,
        rows=rows,
        not_run=not_run,
        lines=_lines(folds, studied),
        embedding=studied[0]["embedding"],
        describe={
            "protocol": "Everything is fitted within the fold; epochs and settings are chosen on its validation "
            f"subjects; every row is tested once a fold, after {n_try} settings were tried for it",
            "teacher": {"name": encoder.name, "texts": _about(config.texts)} if encoder else {"name": "none"},
            "student": {"name": _STUDENTS[config.student], "width": config.width, "layers": config.layers},
            "split": _split_words(config),
        },
        cost={
            "teacher_parameters": teacher["parameters"],
            "teacher_ms_per_item": teacher["ms_per_item"],
            "student_parameters": student["parameters"],
            "student_ms_per_item": student["ms_per_item"],
            "extract_seconds": sum(one.seconds for one in reads) if reads else None,
            "train_seconds": sum(float(one["seconds"]) for one in studied),
        },
        notes=[
            *(["The cohort is simulated: no scanner has seen these brains"] if brains.simulated else []),
            *_about_texts(config, reads),
            *_about_shrinkage(shrinkages),
            *([_ABOUT_VECTORS] if vectors else []),
            f"The run took {time.perf_counter() - started:.0f} s since it was last started",
        ],
    )
    return out


def load(config: BLEG) -> Brains:
    """The brains of a run.

    Raises:
      DataError: there are other than two groups.
    """
    options: dict[str, Any] = {}
    if config.label != "label":
        options["label"] = config.label
    if config.atlas is not None:
        options["atlas"] = config.atlas
    brains = registry.load(config.data, recipe="bleg", **options)
    if len(brains.class_names) != 2:
        what = f"{brains.name} has {len(brains.class_names)} groups"
        raise DataError(what, field=config.label, mend="name a column with two with --label")
    return brains


def folds_of(config: BLEG, brains: Brains) -> tuple[list[Fold], list[np.ndarray]]:
    """The folds, and for each the rows of all training subjects, also of those whose labels are kept back."""
    if config.split is not None:
        folds = [Fold(read_subject_split(config.split, brains), 0, 0)]
    elif config.leave_one_site_out:
        folds = [
            Fold(split, seed, i)
            for seed in range(config.seeds)
            for i, split in enumerate(leave_one_site_out(brains, seed=seed).values())
            if len(np.unique(brains.labels[split.test])) == 2
        ]
        if not folds:
            raise DataError(f"no site of {brains.name} has both groups", mend="use folds")
    else:
        splits = brain_folds(brains, config.folds, seeds=range(config.seeds))
        folds = [Fold(split, i // config.folds, i % config.folds) for i, split in enumerate(splits)]
    trained = [fold.split.train for fold in folds]
    if config.k_shot:
        names = brains.class_names
        folds = [
            fold._replace(split=few_shot(fold.split, brains.labels, config.k_shot, fold.seed, names)) for fold in folds
        ]
    elif config.label_ratio < 1:
        folds = [
            fold._replace(split=keep_label_share(fold.split, brains, config.label_ratio, fold.seed)) for fold in folds
        ]
    return folds, trained


def _inputs(config: BLEG, brains: Brains, connectivity: np.ndarray) -> BrainInputs:
    if config.student != "gcn":
        return brain_inputs(connectivity)
    # Whatever a network reads of its regions, they are joined by their correlations.
    joined = connectivity if config.connectivity == "correlation" else brains.connectivity
    return brain_inputs(connectivity, brain_graphs(joined, config.sparsity, config.amount, weights=config.weights))


def _fold_inputs(config: BLEG, brains: Brains, lesson: Lesson) -> BrainInputs:
    options = {"harmonise": config.harmonise}
    features = fold_features(brains, config.connectivity, lesson.shrinkage, lesson.trained, **options)
    return _inputs(config, brains, from_upper(features))


def _same_width(lessons: list[Lesson]) -> list[Lesson]:
    width = min(lesson.taught.states.shape[1] for lesson in lessons)
    return [
        lesson._replace(taught=lesson.taught._replace(states=lesson.taught.states[:, :width])) for lesson in lessons
    ]


def _labels(config: BLEG) -> dict[str, str]:
    student = _STUDENTS[config.student]
    if config.texts == "none":
        return {"student_alone": f"{student} alone", "student_distilled": f"{student} alone, as there is no teacher"}
    what = " and ".join(config.teaches)
    stages = ", after contrastive tuning" if config.stages == "2+3" else ""
    control = " (shuffled texts)" if config.shuffle_texts else ""
    return {"student_alone": f"{student} alone", "student_distilled": f"+ {what} of the teacher{stages}{control}"}


def _about(texts: str) -> str:
    return {
        "reference": "what is unusual about a subject, by template",
        "contrast": "what of a subject differs between the groups of the training subjects, by template",
        "conclusion": "to which of the training subjects' groups a subject leans and how far, by template",
    }.get(texts, f"from {Path(texts).name}")


def _about_texts(config: BLEG, reads: Sequence[Read]) -> list[str]:
    if not reads:
        return []
    notes = []
    if cut := sum(one.n_truncated for one in reads):
        notes.append(f"{cut:,} texts are cut to {config.max_tokens} tokens, all folds together")
    if config.shuffle_texts:
        notes.append("A control: everyone has the text of another subject")
    if config.texts in get_args(TextKind):
        notes.append("Texts are numbers in a template, not what a language model wrote")
    return notes


def _about_shrinkage(shrinkages: Sequence[float | None]) -> list[str]:
    counts = Counter(value for value in shrinkages if value is not None)
    words = ", ".join(f"{value:g} in {count}" for value, count in sorted(counts.items()))
    return [f"Shrinkage chosen on validation: {words} folds"] if counts else []


def _split_words(config: BLEG) -> str:
    if config.split is not None:
        words = f"given in {config.split.name}"
    elif config.leave_one_site_out:
        words = "one site is tested at a time, of those with both groups"
        words += f", {config.seeds} times" if config.seeds > 1 else ""
    else:
        words = f"{config.seeds} × {config.folds} folds by site and label"
    if config.k_shot:
        words += f", {config.k_shot} labels a group"
    return words + (f", {config.label_ratio:.0%} of the training labels" if config.label_ratio < 1 else "")


def _split_entry(brains: Brains, fold: Fold) -> dict[str, Any]:
    parts = {name: getattr(fold.split, name) for name in ("train", "valid", "test")}
    return {
        "seed": fold.seed,
        "fold": fold.fold,
        **{name: [brains.subjects[i] for i in rows.tolist()] for name, rows in parts.items()},
    }


def _text_lines(brains: Brains, folds: Sequence[Fold], texts: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    for fold, written in zip(folds, texts, strict=True):
        for subject, text in zip(brains.subjects, written, strict=True):
            yield {"seed": fold.seed, "fold": fold.fold, "subject": subject, "text": text}


def _lines(folds: Sequence[Fold], studied: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    curves = {name: np.concatenate([one["curves"][name] for one in studied], axis=1) for name in studied[0]["curves"]}
    for i, row in enumerate(ROWS[: len(studied[0]["probabilities"])]):
        for j, fold in enumerate(folds):
            for at, epoch in enumerate(studied[0]["epochs"].tolist()):
                values = {name: float(curve[i, j, at]) for name, curve in curves.items()}
                yield {"row": row, "seed": fold.seed, "fold": fold.fold, "epoch": epoch, **values}


def _identity(config: BLEG, brains: Brains) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "resume")}
    settings = with_files(settings, "split", "texts")
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    names = list(brains.class_names)
    return settings | {"recipe": "bleg", "class_names": names, "data_facts": describe_brains(brains)}
