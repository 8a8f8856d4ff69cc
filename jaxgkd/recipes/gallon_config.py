"""Settings of ``jaxgkd run gallon``: the flags, what a search draws, and which rows there are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxgkd.data.molecule_splits import MoleculeSplitKind
from jaxgkd.errors import ConfigError
from jaxgkd.recipes.gallon_bags import Kind
from jaxgkd.recipes.gallon_texts import Part
from jaxgkd.recipes.molecule_networks import GraphTeacher
from jaxgkd.training.search import Choice, draw_settings, grid_settings, read_sweep

TeacherName = Literal["gnn", "lm", "drawing"]
#: Settings that a search draws for every row, and those it draws for rows with a teacher.
SPACE = {
    "learning_rate": Choice((0.003, 0.01, 0.03)),
    "dropout": Choice((0.0, 0.2, 0.5)),
    "weight_decay": Choice((0.0, 1e-4, 1e-3)),
}
STRENGTHS = Choice((0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0))
TEACHER_SPACE = {
    "gnn_strength": STRENGTHS,
    "lm_strength": STRENGTHS,
    "drawing_strength": STRENGTHS,
    "state_strength": Choice((0.0, 0.1, 1.0)),
}
#: Learning rates of graph networks instead.
GRAPH_RATES = (0.001, 0.002, 0.004)
#: What the language model reads in rows that ask what its parts are worth.
MODALITIES: dict[str, tuple[Part, ...]] = {
    "lm_smiles": ("smiles",),
    "lm_description": ("description",),
    "lm_structure": ("smiles", "structure"),
}
LARGE = 1e9
RANGES = {
    **dict.fromkeys(
        (
            "seeds",
            "tuned_layers",
            "lm_epochs",
            "max_tokens",
            "gnn_width",
            "gnn_layers",
            "folds",
            "search",
            "n_unlabelled",
        ),
        (1, LARGE),
    ),
    **dict.fromkeys(
        (
            "learning_rate",
            "weight_decay",
            "gnn_strength",
            "lm_strength",
            "drawing_strength",
            "state_strength",
            "width",
            "layers",
            "epochs",
            "gnn_epochs",
            "max_atoms",
        ),
        (0, LARGE),
    ),
    "temperature": (1e-3, LARGE),
    "label_smoothing": (0, 0.99),
    "dropout": (0, 0.99),
}


@dataclass(frozen=True)
class GALLON:
    """A language model and a graph network teach an MLP about molecules."""

    data: str = "chembl2321810"
    """chembl2321810 or egfr (inside RDKit's package), a name under $JAXGKD_DATA/molecules (bbbp, clintox, …), or a .csv
    file with a column of SMILES."""
    label: tuple[str, ...] = ()
    """Columns to predict; by default the one it can be. "all" takes all that can be."""
    task: Literal["auto", "regression", "classification"] = "auto"
    """Kind of the labels; by default classification where all are 0 or 1."""
    metric: Literal["auto", "mae", "rmse", "auroc"] = "auto"
    """What validates and is reported, the mean over tasks; by default rmse or auroc."""
    max_atoms: int = 0
    """Molecules with more atoms are left out and listed; 0 keeps all."""
    split: MoleculeSplitKind = "scaffold-balanced"
    """80/10/10: by scaffold in an order drawn from the seed, or the largest first, at random, or stratified."""
    splits_file: Path | None = None
    """JSON file with the splits to use instead: one for all seeds, or one a seed."""
    seeds: int = 5
    """Seeds 0, 1, …; each sets a split (where it is drawn), initial weights and the order of batches."""

    descriptions: Path | None = None
    """JSON lines with "smiles" and "text" (see `jaxgkd describe`); by default RDKit's facts in a template."""
    missing: Literal["error", "smiles", "template"] = "smiles"
    """What becomes of molecules the file does not describe: stop, only their SMILES, or the template."""
    parts: tuple[Part, ...] = ("smiles", "description")
    """What the language model reads of a molecule; structure is a sentence for every bond."""
    lm: str = "all-MiniLM-L6-v2"
    """Text encoder: a folder with config.json and safetensors, an installed package, or a Hugging Face id."""
    tuned_layers: int = 1
    """Uppermost layers of the language model that are tuned; what lies below is run once."""
    lm_learning_rate: float = 2e-5
    """Of AdamW on these layers."""
    lm_epochs: int = 3
    """Of its tuning; the best on validation is kept, which may be the untouched model with a linear layer."""
    lm_reads_atoms: bool = True
    """Let small heads read the model's states beside atoms and what they are bonded to, and speak for it."""
    max_tokens: int = 128
    """Of a prompt; longer ones are cut, and counted."""
    label_smoothing: float = 0.0
    """Of the classes that the language model learns; 0.3 as published."""
    gnn: GraphTeacher = "gine"
    """Graph teacher: messages along bonds with their kinds and a virtual atom, or the published GCN."""
    gnn_width: int = 64
    """Of its states."""
    gnn_layers: int = 3
    """Of messages."""
    gnn_epochs: int = 0
    """Of its training; 0 takes as many as make about 2,500 steps, but 20 at least and 100 at most."""
    teachers: tuple[TeacherName, ...] = ("gnn", "lm")
    """Who teaches: gnn, lm, and drawing, a small convolutional network over RDKit's drawings."""
    folds: int = 1
    """Networks a teacher consists of; with 2 or more a training molecule's outputs come from one that never saw its
    label."""
    unlabelled: str = "none"
    """Molecules without labels that students learn from through their teachers: none, nci (4,991 compounds inside
    RDKit's package), or a .csv file with SMILES. None of them is among the data."""
    n_unlabelled: int = 2000
    """How many of them, at most."""
    modalities: bool = False
    """Add rows for language models that read the SMILES alone, the description alone, or SMILES and bonds."""

    student: Kind | Literal["gnn"] = "atoms"
    """MLP over single atoms, over atoms with counts of what they are bonded to, over the bits of a fingerprint (ECFP4),
    or over how often each of its fragments is there; or gnn, a graph network over the bonds, which costs more and can
    take more."""
    width: int = 0
    """Of its states; 0 takes 32, or 8 over a fingerprint or fragments: some ten or twenty thousand weights."""
    layers: int = 0
    """Of the MLP over an atom, or of the graph network; 0 takes 2 and 3."""
    gnn_strength: float = 1.0
    """Weight of the graph network's outputs."""
    lm_strength: float = 1.0
    """Weight of the language model's outputs."""
    drawing_strength: float = 1.0
    """Weight of the outputs of the network over drawings."""
    state_strength: float = 0.1
    """Weight of a teacher's state, as a multiple of the weight of its outputs; 0 leaves states out."""
    temperature: float = 1.0
    """Of the classes that a teacher and its student compare."""
    baselines: tuple[Literal["mean", "composition", "ecfp_forest"], ...] = ("mean", "composition", "ecfp_forest")
    """Rows that need no teacher: the mean label, ridge on counts of elements, fingerprints in a random forest."""

    learning_rate: float = 0.0
    """Of Adam; 0 takes 0.01, and 0.002 for a graph network."""
    weight_decay: float = 0.0
    """Strength of the L2 penalty."""
    dropout: float = 0.2
    """Of a molecule's state."""
    epochs: int = 0
    """Passes of a student over all training molecules; 0 takes 300 (of one step each), and 40 for a graph network."""
    search: int = 16
    """Settings tried for each row of students in every split, alone and distilled alike; one is chosen on validation. 1
    takes the ones given."""
    sweep: tuple[str, ...] = ()
    """Settings to try in all combinations instead, such as lr=3e-3,1e-2 gnn-strength=0.1,1,10."""

    out: Path | None = None
    """Folder of the run; by default runs/gallon-<data>-<time>."""
    resume: bool = False
    """Continue what is in --out."""
    smoke: bool = False
    """Shrink everything to about a minute, to see it work; the figures mean nothing."""


def rows_of(config: GALLON) -> dict[str, tuple[str, ...]]:
    """Rows of students, and who teaches each."""
    both = tuple(name for name in ("gnn", "lm") if name in config.teachers) or config.teachers
    rows: dict[str, tuple[str, ...]] = {"student_alone": (), "student_distilled": both}
    if len(config.teachers) > 1:
        rows |= {f"student_{name}": (name,) for name in config.teachers}
    if len(config.teachers) > len(both):
        rows["student_all"] = config.teachers
    return rows | {f"student_{name}": (name,) for name in (MODALITIES if config.modalities else ())}


def settings_of(config: GALLON, names: tuple[str, ...], teachers: list[str]) -> list[dict[str, Any]]:
    """What is tried for a row with some of the teachers, as its students' ``teach`` takes it; as many for every row."""
    default = {name: getattr(config, name) for name in (*SPACE, *TEACHER_SPACE, "temperature")}
    rates = SPACE["learning_rate"].values if config.student != "gnn" else GRAPH_RATES
    default["learning_rate"] = default["learning_rate"] or rates[1]
    used = SPACE | {"learning_rate": Choice(rates)}
    used |= {"state_strength": TEACHER_SPACE["state_strength"]} if names else {}
    used |= {_strength(name): STRENGTHS for name in names}
    if config.sweep:
        sweep = read_sweep(config.sweep, list(default))
        found = grid_settings({name: sweep[name] for name in sweep}, default)
    else:
        found = draw_settings(used, default, config.search)
    return [
        {
            **{name: each[name] for name in (*SPACE, "temperature")},
            "labels": np.array([each[_strength(name)] * (name in names) for name in teachers]),
            "states": np.array([each[_strength(name)] * each["state_strength"] * (name in names) for name in teachers]),
        }
        for each in found
    ]


def _strength(teacher: str) -> str:
    return f"{teacher.partition('_')[0]}_strength"


def check(config: GALLON) -> None:
    """Raises ConfigError for a value that cannot be used."""
    for field, (low, high) in RANGES.items():
        if not low <= (value := getattr(config, field)) <= high:
            mend = f"give {low} or more" if high == LARGE else f"give {low} to {high}"
            raise ConfigError(f"the value is {value}", field=f"--{field.replace('_', '-')}", mend=mend)
    for field in ("teachers", "parts"):
        given = getattr(config, field)
        if not given or len(set(given)) < len(given):
            what = f"{' '.join(given) or 'nothing'} is given"
            raise ConfigError(what, field=f"--{field}", mend="name each at most once, and at least one")
    if config.sweep and config.search != GALLON.search:
        raise ConfigError("settings are drawn or swept, not both", field="--sweep", mend="leave out --search")
    if config.modalities and "lm" not in config.teachers:
        raise ConfigError("no language model teaches", field="--modalities", mend="add lm to --teachers")
    for name, choice in read_sweep(config.sweep, [*SPACE, *TEACHER_SPACE, "temperature"]).items():
        for value in choice.values:
            check(replace(config, sweep=(), **{name: value}))


def shrunk(config: GALLON) -> GALLON:
    """The settings of a smoke run."""
    return replace(
        config,
        seeds=min(config.seeds, 2),
        epochs=2 if config.student == "gnn" else 20,
        gnn_epochs=2,
        gnn_width=16,
        gnn_layers=2,
        lm_epochs=1,
        max_tokens=min(config.max_tokens, 32),
        search=min(config.search, 2),
        sweep=(),
    )
