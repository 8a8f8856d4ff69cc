"""Settings of ``jaxgkd run bleg``: the flags, and what a search draws."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jaxgkd.data.brain_graphs import TOP_FRACTION, Sparsity, Weights
from jaxgkd.errors import ConfigError
from jaxgkd.nn.brain_gcn import Readout
from jaxgkd.nn.brain_students import BrainStudent
from jaxgkd.recipes.bleg_texts import TextKind
from jaxgkd.recipes.brain_baselines import Baseline
from jaxgkd.recipes.brain_views import Connectivity
from jaxgkd.training.search import Choice, draw_settings, grid_settings, read_sweep

#: Settings that a search draws for every row, and those it draws for the distilled one.
SPACE = {
    "learning_rate": Choice((5e-4, 1e-3, 2e-3)),
    "dropout": Choice((0.1, 0.3, 0.5)),
    "weight_decay": Choice((1e-3, 1e-2, 1e-1)),
}
#: Of an MLP, which has as many inputs as there are training subjects.
MLP_SPACE = {
    "learning_rate": Choice((1e-3, 3e-3, 1e-2)),
    "dropout": Choice((0.3, 0.5, 0.7)),
    "weight_decay": Choice((0.1, 1.0, 3.0, 10.0)),
}
STRENGTHS = Choice((0.0, 0.3, 1.0, 3.0, 10.0))
TAUGHT = {"states": "state_strength", "answers": "answer_strength"}
ROWS = ("student_alone", "student_distilled")
SETTINGS = (*SPACE, *TAUGHT.values(), "temperature")
_LARGE = 1e9
_RANGES = {
    **dict.fromkeys(("seeds", "width", "layers", "epochs", "batch", "search", "components", "max_tokens"), (1, _LARGE)),
    **dict.fromkeys(("learning_rate", "state_strength", "answer_strength", "weight_decay"), (0, _LARGE)),
    **dict.fromkeys(("k_shot", "text_epochs"), (0, _LARGE)),
    "folds": (2, _LARGE),
    "teacher_folds": (2, _LARGE),
    "temperature": (1e-3, _LARGE),
    "dropout": (0, 0.99),
    "label_ratio": (1e-6, 1),
    "amount": (1e-6, _LARGE),
}


@dataclass(frozen=True)
class BLEG:
    """What a language model reads about a brain teaches a network over its connections to tell two groups apart."""

    data: str = "simulated"
    """simulated (a documented cohort that no scanner has seen), a name under $JAXGKD_DATA/brain (abide), or a folder
    with scans and a table of subjects."""
    label: str = "label"
    """Column of the two groups in the table of subjects."""
    atlas: Literal["aal90", "aal116"] | None = None
    """aal90 or aal116 names the regions of scans that no table of regions lies beside."""
    connectivity: Connectivity = "correlation"
    """What linear rows, contrasts and students read of all pairs of regions: correlation, partial (correlation given
    all other regions), or tangent (how a subject lies to the mean of the fold's training subjects)."""
    shrinkage: tuple[float, ...] = (0.4, 0.6, 0.8)
    """Pull of correlations towards independence before partial or tangent; of several, every fold takes the one by
    which ridge regression validates best."""
    harmonise: bool = False
    """Take shifts and scales of sites out of the connectivity (ComBat), estimated from a fold's training subjects."""
    sparsity: Sparsity = "top"
    """Connections the graph keeps: the top share, those above a threshold, the nearest of every region, or a tree."""
    amount: float = TOP_FRACTION
    """The share, threshold or number of these connections."""
    weights: Weights = "binary"
    """Weights of these connections."""

    seeds: int = 1
    """Repeats of the folds, each with its own folds (where they are not sites) and initial weights."""
    folds: int = 5
    """Folds of a repeat, stratified by site and label."""
    split: Path | None = None
    """Table with the columns subject and split (train, valid, test) to use instead of folds."""
    leave_one_site_out: bool = False
    """Test every site with both groups and train on the others, instead of folds; a repeat draws other subjects that
    validate, and a site counts with the mean of its repeats."""
    k_shot: int = 0
    """Labels a group that train; the other training subjects are taught by their texts alone. 0 keeps all labels."""
    label_ratio: float = 1.0
    """Share of the training labels that train, stratified by site and label."""

    texts: str = "contrast"
    """What the language model reads: contrast (where a subject lies in what sets the groups of the other training
    subjects apart), conclusion (the first sentence of that: to which side, and how far), reference (what is unusual
    about it, without any label), none (no teacher), or a JSON lines file with "subject" and "text"."""
    shuffle_texts: bool = False
    """Give every subject the text of another one: a control, from which nothing can be learned."""
    teacher: str = "all-MiniLM-L6-v2"
    """Text encoder: a folder with config.json and safetensors, an installed package, or a Hugging Face id."""
    max_tokens: int = 128
    """Of a text; longer ones are cut, and counted."""
    components: int = 32
    """Principal components of the language model's states that a student is held against."""
    teacher_folds: int = 5
    """Parts of the training subjects; each is described by a head that never saw its labels."""
    stages: Literal["3", "2+3"] = "3"
    """3 teaches labels and the teacher's words together; 2+3 first lets every brain find its own text among others."""
    text_epochs: int = 10
    """Passes of that contrastive stage."""
    teaches: tuple[Literal["states", "answers"], ...] = ("states", "answers")
    """What the teacher adds to the loss: its states (MSE), its answers (KL)."""

    student: BrainStudent = "gcn"
    """gcn, bnt (attention over regions), brainnetcnn, or mlp over all connections, as principal coordinates of the
    fold's training subjects."""
    width: int = 64
    """Of its states."""
    layers: int = 2
    """Of messages, or of attention."""
    readout: Readout = "mean"
    """Of the gcn: the mean over regions, as published, or one that knows their places."""
    baselines: tuple[Baseline, ...] = ("ridge", "logistic")
    """Rows without graph or teacher: ridge, logistic, svm, on all connections."""

    epochs: int = 20
    """Passes over a fold's training subjects; the best on validation is kept."""
    batch: int = 64
    """Subjects of a step."""
    learning_rate: float = 1e-3
    """Of Adam; it falls to 0 as a cosine does."""
    weight_decay: float = 1e-2
    """Decoupled, as in AdamW."""
    dropout: float = 0.3
    """Of the adapter and the head."""
    state_strength: float = 1.0
    """Weight of the teacher's states beside the labels."""
    answer_strength: float = 1.0
    """Weight of the teacher's answers beside the labels."""
    temperature: float = 1.0
    """Of the groups that teacher and student compare."""
    search: int = 4
    """Settings tried for each row and fold, alone and distilled alike, chosen on the fold's validation subjects; 1
    takes the ones given."""
    sweep: tuple[str, ...] = ()
    """Settings to try in all combinations instead, such as lr=1e-3,2e-3 answer-strength=0,1,10."""

    out: Path | None = None
    """Folder of the run; by default runs/bleg-<data>-<time>."""
    resume: bool = False
    """Continue what is in --out."""
    smoke: bool = False
    """Shrink everything to about a minute, to see it work; the figures mean nothing."""


def tries_of(config: BLEG, row: str) -> list[dict[str, float]]:
    """What is tried for a row, as many settings for both; those of the distilled row hold strengths of 0 as well."""
    taught = [TAUGHT[name] for name in config.teaches] if row == "student_distilled" else []
    default = {name: float(getattr(config, name)) for name in SETTINGS}
    default |= {name: 0.0 for name in TAUGHT.values() if name not in taught}
    if config.sweep:
        sweep = read_sweep(config.sweep, SETTINGS)
        return grid_settings({name: each for name, each in sweep.items() if name in (*SPACE, *taught)}, default)
    space = MLP_SPACE if config.student == "mlp" else SPACE
    return draw_settings(space | dict.fromkeys(taught, STRENGTHS), default, config.search)


def check(config: BLEG) -> None:
    """Raises ConfigError for a value that cannot be used."""
    for field, (low, high) in _RANGES.items():
        if not low <= (value := getattr(config, field)) <= high:
            mend = f"give {low} or more" if high == _LARGE else f"give {low} to {high}"
            raise ConfigError(f"the value is {value}", field=f"--{field.replace('_', '-')}", mend=mend)
    if len(set(config.teaches)) < len(config.teaches) or not config.teaches:
        what = f"{' '.join(config.teaches) or 'nothing'} is given"
        raise ConfigError(what, field="--teaches", mend="name each at most once, and at least one")
    if not config.shrinkage or any(not 0 <= value <= 1 for value in config.shrinkage):
        what = f"the values are {' '.join(map(str, config.shrinkage)) or 'none'}"
        raise ConfigError(what, field="--shrinkage", mend="give one or more from 0 to 1")
    if config.sweep and config.search != BLEG.search:
        raise ConfigError("settings are drawn or swept, not both", field="--sweep", mend="leave out --search")
    if config.split is not None and (config.leave_one_site_out or config.seeds > 1):
        mend = "leave out --leave-one-site-out and --seeds"
        raise ConfigError("one split is given, there are no folds", field="--split", mend=mend)
    if config.k_shot and config.label_ratio < 1:
        raise ConfigError("labels are counted or shared, not both", field="--k-shot", mend="leave out --label-ratio")
    if config.texts == "none" and (config.shuffle_texts or config.stages == "2+3"):
        raise ConfigError("there are no texts", field="--texts", mend="leave out --shuffle-texts and --stages")
    for name, choice in read_sweep(config.sweep, SETTINGS).items():
        for value in choice.values:
            check(replace(config, sweep=(), **{name: value}))


def shrunk(config: BLEG) -> BLEG:
    """The settings of a smoke run."""
    small: dict[str, Any] = {"epochs": 2, "text_epochs": 1, "width": 8, "components": 8, "max_tokens": 32, "sweep": ()}
    return replace(config, **small, seeds=1, search=min(config.search, 2))


__all__ = ["BLEG", "ROWS", "SETTINGS", "TextKind", "check", "shrunk", "tries_of"]
