"""Settings of ``jaxgkd run lingugkd``: the flags, and what a search draws."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxgkd.errors import ConfigError
from jaxgkd.nn.distilled import TERMS, Weighting
from jaxgkd.training.search import Choice, read_sweep

#: What the search draws from: the first three for every row, the others for a row with a teacher.
SPACE = {
    "learning_rate": Choice((0.003, 0.01)),
    "weight_decay": Choice((1e-4, 5e-4, 2e-3)),
    "dropout": Choice((0.2, 0.4, 0.6, 0.8)),
}
TEACHER_SPACE = {
    "label": Choice((0.1, 0.3, 1.0)),
    "temperature": Choice((1.0, 2.0)),
    "local": Choice((0.01, 0.03, 0.1)),
    "global": Choice((0.01, 0.03, 0.1)),
}

#: Flag → numeric setting of a run, all of which may differ between the runs of one compiled program.
SETTINGS = {name: name for name in (*SPACE, "temperature", "align_temperature")} | {
    f"{name}_strength": name for name in ("label", *TERMS)
}

LARGE = 1e9
#: Smallest and largest value of every numeric setting.
RANGES = {
    **dict.fromkeys(
        ("seeds", "hops", "width", "epochs", "search", "search_seeds", "folds", "max_tokens", "parts"), (1, LARGE)
    ),
    **dict.fromkeys(("shots", "positions", "aligned_nodes", "patience", "batch_nodes"), (0, LARGE)),
    **dict.fromkeys(("learning_rate", "weight_decay"), (0, LARGE)),
    **dict.fromkeys(("label_strength", *(f"{term}_strength" for term in TERMS)), (0, LARGE)),
    **dict.fromkeys(("temperature", "align_temperature"), (0.001, LARGE)),
    "dropout": (0, 0.99),
    "confidence": (0, 1),
}


@dataclass(frozen=True)
class LinguGKD:
    """An LLM teaches a GNN on a text graph."""

    data: str = "scipy-docs"
    """scipy-docs, a name under $JAXGKD_DATA/text (cora, wikispeedia), or a folder with nodes and edges files."""
    text_columns: tuple[str, ...] = ()
    """Columns of the nodes file to read as text; by default title, abstract, text, name and keywords."""
    label: str = "label"
    """Column of the nodes file that holds the classes."""
    split: Literal["60-20-20", "public", "inductive"] = "60-20-20"
    """Seeded and stratified; given by the data; or seeded with the test nodes absent from the training graph."""
    shots: int = 0
    """Keep this many training labels a class (few-shot); 0 keeps all."""
    label_free: bool = False
    """Use no label: train and select on the teacher's confident zero-shot predictions; labels only score."""
    protocol: Literal["clean", "paper"] = "clean"
    """clean, or the published one with its faults: selection on test nodes, heads that saw the nodes they describe."""
    seeds: int = 10
    """Seeds 0, 1, …; each sets a split (unless the data gives it) and the initial weights."""

    teacher: str = "all-MiniLM-L6-v2"
    """Language model, text encoder or causal: a folder with config.json and safetensors, an installed package, or a
    Hugging Face id."""
    hops: int = 2
    """Largest hop of the prompts, and the student's number of layers."""
    max_tokens: int = 128
    """Tokens of a prompt; longer texts are cut, and counted in the report."""
    heads: tuple[Literal["gcn", "gat", "sage", "gin", "mlp"], ...] = ("gcn", "sage", "mlp")
    """Heads on the language model's features, averaged: graph networks, or an MLP that sees each node alone."""
    tune: Literal["none", "lm"] = "none"
    """lm tunes the language model on the training labels, no node described by its own: minutes a split. Of an encoder
    the upper layers; of a causal model adapters, on prompts of every hop, and its answers count as one head more."""
    base_bits: Literal[0, 8, 4] = 0
    """Bits of a causal model's frozen weights while adapters are tuned beside them; 0 keeps the checkpoint's. 8 and 4
    (NF4) save memory and need the package qwix."""
    folds: int = 5
    """Cross-fitting folds of the heads; 1 describes training nodes by a head that saw their labels."""

    student: Literal["gcn", "gat", "sage", "gin", "mlp"] = "gcn"
    """Kind of student."""
    width: int = 64
    """Width of every hidden state of the student."""
    norm: Literal["batch", "none"] = "batch"
    """Normalisation between the student's layers; small training sets often do better without."""
    readout: Literal["last", "all"] = "last"
    """Layers that the student's logits read: the last, or all, by which it can tell a node from its neighbours."""
    positions: int = 0
    """Width of spectral positions in the graph added to the student's input (both rows); 0 adds none."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in the label term."""

    terms: tuple[Literal["soft", "local", "global", "relational"], ...] = ("soft", "local", "global")
    """What the teacher adds: soft labels, node and graph-part alignment per layer, pairwise similarities."""
    taught: Literal["all", "labelled", "unlabelled"] = "all"
    """Nodes on which the teacher is imitated."""
    layer_weighting: Weighting = "softmax"
    """Weights of the layers: a learned softmax as published, by uncertainty, or fixed."""
    term_weighting: Weighting = "fixed"
    """Weights of the terms: as given below, or learned."""
    confidence: float = 0.9
    """Teacher probability from which an unlabelled node counts as of a class in the alignment."""
    aligned_nodes: int = 256
    """Nodes drawn each epoch for the alignment; 0 takes all."""
    parts: int = 128
    """Connected parts of the graph that the global alignment reads out."""
    label_strength: float = 1.0
    """Weight of the labels' cross-entropy in the distilled student."""
    soft_strength: float = 1.0
    """Weight of the soft labels."""
    local_strength: float = 0.1
    """Weight of the node alignment."""
    global_strength: float = 0.1
    """Weight of the graph-part alignment."""
    relational_strength: float = 1.0
    """Weight of the relational term."""
    temperature: float = 1.0
    """Temperature of the soft labels."""
    align_temperature: float = 0.07
    """Temperature of the alignment."""

    learning_rate: float = 0.01
    """Of Adam."""
    weight_decay: float = 5e-4
    """L2 penalty."""
    dropout: float = 0.4
    """Of the student's input and hidden states."""
    epochs: int = 200
    """At most."""
    batch_nodes: int = 0
    """Train on mini-batches of this many nodes and their sampled neighbours, in memory that the batch bounds, so that
    graphs of hundreds of thousands of nodes train, without the term global, which compares parts of the whole graph; 0
    takes the whole graph in every step."""
    fan_outs: tuple[int, ...] = (10,)
    """Neighbours of a node that each layer takes in a mini-batch, or one number for all layers; -1 takes all."""
    patience: int = 60
    """Epochs without a better validation score after which a run stops; 0 never stops early."""
    search: int = 1
    """Settings tried for each row, alone and distilled alike, chosen on validation; 1 takes the ones given."""
    search_seeds: int = 3
    """Seeds that every try is trained with."""
    sweep: tuple[str, ...] = ()
    """Settings to try in all combinations instead, such as lr=1e-3,1e-2 dropout=0.4,0.6, in one compiled program."""
    reference: bool = False
    """Add a row: the same student on the language model's features of the texts instead of the shallow inputs."""

    out: Path | None = None
    """Folder of the run; by default runs/lingugkd-<data>-<time>."""
    resume: bool = False
    """Continue what is in --out."""
    smoke: bool = False
    """Shrink everything to about a minute, to see it work; the figures mean nothing."""


def check(config: LinguGKD) -> None:
    """Raises ConfigError, with the flag, for settings that are out of range or contradict each other."""
    if config.sweep:
        if config.search > 1:
            raise ConfigError("settings are drawn or swept, not both", field="--sweep", mend="leave out --search")
        for name, choice in read_sweep(config.sweep, list(SETTINGS)).items():
            for value in choice.values:
                check(replace(config, sweep=(), **{name: value}))
    for field, (low, high) in RANGES.items():
        if not low <= (value := getattr(config, field)) <= high:
            mend = f"give {low} or more" if high == LARGE else f"give {low} to {high}"
            raise ConfigError(f"the value is {value}", field=f"--{field.replace('_', '-')}", mend=mend)
    if len(set(config.heads)) != len(config.heads) or not config.heads:
        raise ConfigError("a head is named twice or none is named", field="--heads", mend="name each kind once")
    if len(set(config.terms)) != len(config.terms) or not config.terms:
        raise ConfigError(
            "a term is named twice or none is named", field="--terms", mend=f"choose from {', '.join(TERMS)}"
        )
    if config.student == "gat" and config.width % 4:
        raise ConfigError(
            f"a width of {config.width} does not divide into 4 heads", field="--width", mend="use a multiple of 4"
        )
    if config.positions and config.split == "inductive":
        what = "positions come from the whole graph, which inductive training must not see"
        raise ConfigError(what, field="--positions", mend="leave it out, or choose another --split")
    if config.base_bits and config.tune != "lm":
        what = "only a model that adapters are tuned beside is kept in few bits"
        raise ConfigError(what, field="--base-bits", mend="add --tune lm, or leave it out")
    if config.label_free and (config.shots or config.protocol == "paper"):
        raise ConfigError(
            "label-free runs use no labels", field="--label-free", mend="leave out --shots and --protocol paper"
        )


def shrunk(config: LinguGKD) -> LinguGKD:
    """The settings of ``--smoke``: everything runs, nothing long enough to mean something."""
    return replace(
        config,
        seeds=min(config.seeds, 2),
        epochs=min(config.epochs, 40),
        heads=config.heads[:1],
        folds=min(config.folds, 2),
        search=1,
        sweep=(),
    )
