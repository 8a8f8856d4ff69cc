"""Settings of ``jaxgkd run ccmd``: the flags, what a search draws, and which rows there are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jaxgkd.data.molecule_splits import MoleculeSplitKind
from jaxgkd.errors import ConfigError
from jaxgkd.training.search import Choice, draw_settings, grid_settings, read_sweep

#: Settings that a search draws for every row, and those it draws for rows with a teacher.
SPACE = {"learning_rate": Choice((0.001, 0.002, 0.004)), "weight_decay": Choice((0.0, 0.01))}
TEACHER_SPACE = {"global_strength": Choice((0.1, 0.3, 1.0)), "local_strength": Choice((0.1, 0.3, 1.0))}

#: Rows of the published ablation beside the two students: which layers the global term has, and whether there is a
#: local one, and how it is weighted by size.
ABLATION = {
    "global_last": "+ global, last layer",
    "global_all": "+ global, all layers",
    "local_mean": "+ local mean",
    "global_local_mean": "+ global + local mean",
}
LARGE = 1e9
RANGES = {
    **dict.fromkeys(
        ("seeds", "n_conformers", "width", "layers", "heads", "epochs", "search", "search_seeds"),
        (1, LARGE),
    ),
    **dict.fromkeys(
        (
            "learning_rate",
            "weight_decay",
            "global_strength",
            "local_strength",
            "coordinate_power",
            "max_atoms",
            "batch_size",
        ),
        (0, LARGE),
    ),
    "dropout": (0, 0.99),
}


@dataclass(frozen=True)
class CCMD:
    """A network that sees molecules in 3D teaches one that sees them in 2D."""

    data: str = "egfr"
    """egfr or chembl2321810 (inside RDKit's package), a name under $JAXGKD_DATA/molecules (qm7, esol, lipo, …), or a
    .csv file with a column of SMILES, an .sdf file, or a folder with one of each."""
    label: tuple[str, ...] = ()
    """Columns to predict; by default the one it can be. "all" takes all that can be."""
    task: Literal["auto", "regression", "classification"] = "auto"
    """Kind of the labels; by default classification where all are 0 or 1."""
    offset: Literal["mean", "composition"] = "mean"
    """What numbers are counted from before they are scaled: their mean, or a ridge on counts of elements, which leaves
    networks and the forest less to learn of sums over atoms, such as energies. Both are fitted on the training part."""
    metric: Literal["auto", "mae", "rmse", "auroc"] = "auto"
    """What validates and is reported, the mean over tasks; by default mae or auroc."""
    hydrogens: Literal["auto", "implicit", "explicit"] = "auto"
    """Whether hydrogens are atoms of the graphs; by default where the coordinates come in an SD file."""
    max_atoms: int = 0
    """Molecules with more atoms are left out and listed; 0 keeps all."""
    split: MoleculeSplitKind = "random"
    """80/10/10 drawn from the seed, or by scaffold."""
    splits_file: Path | None = None
    """JSON file with the splits to use instead: one for all seeds, or one a seed."""
    seeds: int = 5
    """Seeds 0, 1, …; each sets a split (unless given), initial weights and the order of batches."""

    conformers: Literal["auto", "given", "rdkit", "mixed"] = "auto"
    """The teacher's coordinates: those of the data, RDKit's, or both by turns; by default the data's if it has any."""
    n_conformers: int = 1
    """Conformers made of each molecule, one of which is drawn for every batch."""
    teacher: Literal["transformer", "schnet"] = "transformer"
    """Kind of teacher."""
    student: Literal["transformer", "gine"] = "transformer"
    """Kind of student: attention over all atoms, or messages along bonds with a virtual atom."""
    width: int = 64
    """Of every state of teacher and student."""
    layers: int = 4
    """Of teacher and student."""
    heads: int = 8
    """Of attention."""
    projection: Literal["none", "linear"] = "none"
    """Whether a linear map lies between the student's states and what is compared with the teacher's."""
    distance: Literal["mse", "l1", "cosine"] = "mse"
    """Between states."""
    global_strength: float = 0.3
    """Weight of the states of molecules, in every layer."""
    local_strength: float = 0.3
    """Weight of the states of atoms, in every layer; relative to the plain mean at the mean size of the molecules."""
    coordinate_power: float = 2.0
    """p of the factor N^-p in front of the sum over a molecule's N atoms: 2 as published, 1 the mean, 0 the sum."""
    ablation: bool = False
    """Add the other rows of the published ablation."""
    baselines: tuple[Literal["mean", "composition", "ecfp_forest"], ...] = ("mean", "composition", "ecfp_forest")
    """Rows that need no training: the mean label, ridge on counts of elements, fingerprints in a random forest."""

    learning_rate: float = 0.003
    """Peak of AdamW's."""
    weight_decay: float = 0.0
    """Of AdamW."""
    dropout: float = 0.0
    """Of what attention and MLPs add."""
    batch_size: int = 0
    """Molecules; 0 takes 128, and less where that would leave an epoch fewer than 32 steps, but at least 16."""
    epochs: int = 40
    """Of students."""
    teacher_epochs: int = 0
    """Of the teacher; 0 takes those of the students."""
    ensemble: int = 1
    """Students a row and seed whose predictions are averaged; their spread is kept as the uncertainty."""
    search: int = 1
    """Settings tried for each row, alone and distilled alike, chosen on validation; 1 takes the ones given."""
    search_seeds: int = 1
    """Seeds that every try is trained with."""
    sweep: tuple[str, ...] = ()
    """Settings to try in all combinations instead, such as lr=5e-4,1e-3 global-strength=0.1,1."""
    start: Path | None = None
    """Folder of a finished run whose distilled student (of its first seed) the students start from, outputs aside."""

    out: Path | None = None
    """Folder of the run; by default runs/ccmd-<data>-<time>."""
    resume: bool = False
    """Continue what is in --out."""
    smoke: bool = False
    """Shrink everything to about a minute, to see it work; the figures mean nothing."""


def tries_of(config: CCMD, row: str) -> list[dict[str, Any]]:
    """The numeric settings that are tried for a row; the student alone has none of a teacher's."""
    default = {name: getattr(config, name) for name in (*SPACE, "dropout", *TEACHER_SPACE)}
    used = SPACE if row == "student_alone" else SPACE | TEACHER_SPACE
    if not config.sweep:
        return draw_settings(used, default, config.search)
    sweep = read_sweep(config.sweep, list(default))
    return grid_settings({name: sweep[name] for name in sweep if name in used or name == "dropout"}, default)


def check(config: CCMD) -> None:
    """Raises ConfigError for a value that cannot be used."""
    for field, (low, high) in RANGES.items():
        if not low <= (value := getattr(config, field)) <= high:
            mend = f"give {low} or more" if high == LARGE else f"give {low} to {high}"
            raise ConfigError(f"the value is {value}", field=f"--{field.replace('_', '-')}", mend=mend)
    if config.width % config.heads:
        what = f"a width of {config.width} does not divide into {config.heads} heads"
        raise ConfigError(what, field="--width", mend="use a multiple of --heads")
    if config.sweep and config.search > 1:
        raise ConfigError("settings are drawn or swept, not both", field="--sweep", mend="leave out --search")
    for name, choice in read_sweep(config.sweep, [*SPACE, "dropout", *TEACHER_SPACE]).items():
        for value in choice.values:
            check(replace(config, sweep=(), **{name: value}))


def shrunk(config: CCMD) -> CCMD:
    """The settings of a smoke run."""
    return replace(
        config,
        seeds=min(config.seeds, 2),
        epochs=min(config.epochs, 4),
        teacher_epochs=min(config.teacher_epochs, 4),
        width=16,
        heads=2,
        layers=2,
        search=1,
        sweep=(),
        ensemble=min(config.ensemble, 2),
    )
