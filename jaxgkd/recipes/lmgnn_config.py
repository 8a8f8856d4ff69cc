"""Settings of ``jaxgkd run lmgnn``: the flags, their ranges and what a search draws."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jaxgkd.errors import ConfigError
from jaxgkd.recipes.node_batches import one_for_each
from jaxgkd.training.search import Choice, read_sweep

Stage = Literal["lm", "cotrain", "glem", "student"]
#: What the search draws from, the same for every row.
SPACE = {
    "learning_rate": Choice((0.001, 0.003, 0.01)),
    "weight_decay": Choice((1e-5, 1e-4, 1e-3)),
    "dropout": Choice((0.1, 0.3, 0.5)),
}
LARGE = 1e9
# Training a language model takes far longer than training a GNN on what it says.
_LM_SEEDS = 3
RANGES = {
    **dict.fromkeys(
        (
            "seeds",
            "max_tokens",
            "tuned_layers",
            "lm_batch_size",
            "width",
            "layers",
            "lm_nodes_per_batch",
            "batch_size",
            "refresh_every",
            "edges_per_step",
            "n_negatives",
            "n_candidates",
            "epochs",
            "search",
            "search_seeds",
        ),
        (1, LARGE),
    ),
    **dict.fromkeys(
        (
            "lm_seeds",
            "batch_nodes",
            "lm_steps",
            "lora_rank",
            "cotrain_steps",
            "freeze_steps",
            "refresh_texts",
            "patience",
            "learning_rate",
            "lm_learning_rate",
            "cotrain_learning_rate",
            "weight_decay",
        ),
        (0, LARGE),
    ),
    "dropout": (0, 0.99),
    "pseudo_weight": (0, 1),
}


@dataclass(frozen=True)
class LMGNN:
    """Language models and GNNs trained together on heterogeneous graphs."""

    data: str = "scipy-docs"
    """scipy-docs, a name under $JAXGKD_DATA/hetero (imdb, wikispeedia), or a folder with metadata.json."""
    task: Literal["auto", "node_classification", "node_regression", "edge_classification", "link_prediction"] = "auto"
    """Which of the graph's tasks; by default its first."""
    without: tuple[str, ...] = ()
    """Relations that pass no messages."""
    mentions: bool = False
    """Add a relation: whose text names the title of whom. Not for edges that were read from these texts."""
    seeds: int = 5
    """Seeds 0, 1, … of initial weights and batches; the split is the data's, or drawn once."""
    lm_seeds: int = 0
    """For how many of them the language model is trained; rows that need it have no values for the others. 0 is for 3,
    or for all where there are fewer."""

    teacher: str = "all-MiniLM-L6-v2"
    """Text encoder: a folder with config.json and safetensors, an installed package, or a Hugging Face id."""
    max_tokens: int = 64
    """Of a text; longer ones are cut, and counted."""
    tuned_layers: int = 2
    """Uppermost layers of the language model that are trained; what lies below is run once."""
    stages: tuple[Stage, ...] = ("lm", "cotrain", "glem", "student")
    """Beside the GNN on the frozen language model: lm fine-tunes it on the task, cotrain trains both through the GNN,
    glem lets both label for each other in turn, student leaves a language model that has learned from the GNN. The last
    two are for node classification; all but lm start from what it gives."""
    start: Path | None = None
    """Folder of a run of the same data, task and language model, whose fine-tuned language models are used, and its
    GNNs on the frozen and the tuned one where their settings are the same."""

    supervision: Literal["task", "links", "both"] = "task"
    """Of the fine-tuning (stage 1): what the task asks for; or which texts are linked, by whatever relation passes
    messages, and a head on the task learns when the language model is done; or links first, then the task."""
    lm_steps: int = 300
    """Of the fine-tuning, for each kind of supervision."""
    lm_batch_size: int = 16
    """Texts a step of the fine-tuning, all read with gradients: of as many nodes, of half as many edges, or of links
    with up to six negatives each."""
    lm_learning_rate: float = 5e-5
    """Of AdamW on the language model, in all stages."""
    lora_rank: int = 0
    """Train adapters of this rank beside the tuned layers' queries and values, in all stages; 0 trains all weights."""
    rematerialise: bool = False
    """Compute the tuned layers once more in the backward pass instead of keeping what is inside: less memory."""

    encoder: Literal["rgcn", "rgat", "hgt", "sage"] = "rgcn"
    """Kind of GNN."""
    width: int = 64
    """Of every hidden state."""
    layers: int = 2
    """Convolutions."""

    cotrain_steps: int = 200
    """Of training both (stage 3)."""
    batch_size: int = 256
    """Nodes, or edges, a step of stage 3."""
    lm_nodes_per_batch: int = 8
    """Texts a step that the language model reads with gradients in stage 3, of links' negatives too."""
    cotrain_learning_rate: float = 3e-4
    """Of the GNN in stage 3."""
    freeze_steps: int = 0
    """Of stage 3, before which the language model stays as it is."""
    refresh_every: int = 50
    """Steps of stage 3 after which the texts that were read longest ago are read again."""
    refresh_texts: int = 512
    """How many of them; 0 reads none again before validation."""
    pseudo_weight: float = 0.5
    """Weight of the labels that glem lets one give the other."""

    score: Literal["dot", "distmult", "rotate", "transe_l1", "transe_l2"] = "distmult"
    """Of links."""
    loss: Literal["cross_entropy", "log_sigmoid", "self_adversarial", "contrastive", "bpr"] = "contrastive"
    """Of links."""
    negatives: Literal["auto", "uniform", "joint", "in_batch", "candidates"] = "auto"
    """Of links: by default candidates where a relation gives them, else uniform. Those of in_batch are products of
    matrices where the score is dot or distmult; distances of all pairs of a step take a vector each."""
    n_negatives: int = 16
    """For every edge."""
    candidates: str = "auto"
    """What an edge is ranked among: uniform, or a relation whose receivers a sender may lead to; by default one that
    holds every edge of the task, and others."""
    n_candidates: int = 100
    """For every edge, where they are uniform."""
    edges_per_step: int = 2048
    """Training edges that a step of the GNN asks for; they pass no messages in it."""

    batch_nodes: int = 0
    """Train on so many nodes, or edges, a step and sampled neighbours around them, which bound the memory of a step, in
    all stages; an epoch is then one pass over the training part. 0 takes the whole graph in every step. Embeddings and
    edges of the whole graph stay in memory either way, and validation and answers read all of them."""
    fan_outs: tuple[int, ...] = (10,)
    """Neighbours of every relation that each layer takes, or one number for all layers; -1 takes all."""

    learning_rate: float = 0.003
    """Of Adam on the GNN."""
    weight_decay: float = 1e-4
    """L2 penalty."""
    dropout: float = 0.3
    """Of the GNN's inputs and hidden states."""
    epochs: int = 200
    """Steps of the GNN, at most; nodes are all asked for in each."""
    patience: int = 60
    """Steps without a better validation score after which a run stops; 0 never stops early."""
    search: int = 1
    """Settings tried on validation for each row that learns on embeddings; 1 takes the ones given."""
    search_seeds: int = 1
    """Seeds that every try is trained with."""
    sweep: tuple[str, ...] = ()
    """Settings to try in all combinations instead, such as lr=1e-3,1e-2 dropout=0.1,0.5."""

    out: Path | None = None
    """Folder of the run; by default runs/lmgnn-<data>-<time>."""
    resume: bool = False
    """Continue what is in --out."""
    smoke: bool = False
    """Shrink everything to about a minute, to see it work; the figures mean nothing."""


def check(config: LMGNN) -> None:
    """Raises ConfigError for a value that cannot be used; the message names the flag."""
    if config.sweep:
        for name, choice in read_sweep(config.sweep, list(SPACE)).items():
            for value in choice.values:
                check(replace(config, sweep=(), **{name: value}))
    for field, (low, high) in RANGES.items():
        if not low <= (value := getattr(config, field)) <= high:
            mend = f"give {low} or more" if high == LARGE else f"give {low} to {high}"
            raise ConfigError(f"the value is {value}", field=f"--{field.replace('_', '-')}", mend=mend)
    if config.encoder in ("rgat", "hgt") and config.width % 4:
        what = f"a width of {config.width} does not divide into 4 heads"
        raise ConfigError(what, field="--width", mend="use a multiple of 4")
    if config.score == "rotate" and config.width % 2:
        raise ConfigError("complex numbers take an even width", field="--width", mend="use a multiple of 2")
    if config.stages and "lm" not in config.stages:
        raise ConfigError("the stages start without lm", field="--stages", mend="add lm, or name none")
    one_for_each(config.fan_outs, config.layers)
    if config.batch_nodes and config.negatives == "in_batch":
        what = "the negatives of sampled blocks are drawn before what is in them"
        raise ConfigError(what, field="--negatives", mend="use uniform, joint or candidates, or no --batch-nodes")
    if config.lm_seeds > config.seeds:
        what = f"there are {config.seeds} seeds and {config.lm_seeds} for the language model"
        raise ConfigError(what, field="--lm-seeds", mend="use at most as many")


def resolved(config: LMGNN) -> LMGNN:
    """The settings with the number of seeds that ``lm_seeds`` 0 stands for."""
    return replace(config, lm_seeds=config.lm_seeds or min(_LM_SEEDS, config.seeds))


def shrunk(config: LMGNN) -> LMGNN:
    """The settings of ``--smoke``. Raises ConfigError for a sweep that cannot be read, though none is tried."""
    read_sweep(config.sweep, list(SPACE))
    return replace(
        config,
        seeds=min(config.seeds, 2),
        lm_seeds=min(config.lm_seeds, 2),
        max_tokens=min(config.max_tokens, 16),
        lm_steps=min(config.lm_steps, 10),
        cotrain_steps=min(config.cotrain_steps, 10),
        epochs=min(config.epochs, 5 if config.batch_nodes else 20),
        width=min(config.width, 16),
        search=1,
        sweep=(),
    )
