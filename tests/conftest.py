"""What tests of several packages need: a run directory of simulated numbers, a small language model, a text graph,
and the folder of a run with untrained students."""

import csv
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest
import tokenizers
import transformers
from flax import nnx
from hypothesis import settings
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from safetensors.numpy import save_file
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from jaxgkd import cli, language
from jaxgkd.data import bag_of_words
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.nn.encoders import make_student
from jaxgkd.nn.named_weights import student_weights
from jaxgkd.recipes.kept_nodes import VOCABULARY
from jaxgkd.training.statistics import paired_difference
from jaxgkd.training.student_folder import KeptStudent, read_student, write_student
from jaxgkd.training.summary import write_summary

# Most of the time of the tests is XLA's, and most of that goes into making programs fast that run once. Processes that
# tests start find it in their environment.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
QUICKER_CODE = "--xla_cpu_use_fusion_emitters=false"


def pytest_configure(config: pytest.Config) -> None:
    """The older way of making code for a CPU takes half the time; XLA aborts on a flag it does not know (any more)."""
    flags = os.environ.get("XLA_FLAGS", "")
    if hasattr(config, "workerinput") or QUICKER_CODE in flags:
        return
    asked = {**os.environ, "XLA_FLAGS": f"{flags} {QUICKER_CODE}".strip()}
    tried = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=asked, capture_output=True)
    if tried.returncode == 0:
        os.environ["XLA_FLAGS"] = asked["XLA_FLAGS"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long runs of options that a shorter test covers in part are made where JAXGKD_THOROUGH is set."""
    if not os.environ.get("JAXGKD_THOROUGH"):
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip(reason="set JAXGKD_THOROUGH to make long runs too"))


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Forgets compiled programs before they are too many for a process.

    Each of them maps some pieces of memory. Linux gives a process 65,530, and XLA crashes where it gets no other.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


# The same examples every time, so that a failure is the change's; `--hypothesis-profile=default` draws others.
settings.register_profile("repeated", derandomize=True)
settings.load_profile("repeated")

LONG = "Fast transforms and spectral estimates of"
WORDS = ["graph", "neural", "network", "teacher", "student", "learns", "from", "text", "papers", "molecules", "links"]
SHORT_NAMES = ("algebra", "clusters", "fitting", "images", "optimizers", "signals", "sparse graphs")


def long_names(classes: int) -> list[str]:
    return [f"{LONG[: 40 - len(tail)].rstrip()} {tail}" for tail in (f"topic {i + 1}" for i in range(classes))]


def make_summary(
    *,
    seeds: int = 5,
    teacher: float = 0.876,
    alone: float = 0.832,
    distilled: float = 0.858,
    noise: float = 0.006,
    metric: str = "accuracy",
    higher_is_better: bool = True,
    baselines: dict[str, float] | None = None,
) -> dict:
    random = np.random.default_rng(7)
    shared = noise * random.normal(size=seeds)
    means = {"teacher": teacher, "student_alone": alone, "student_distilled": distilled, **(baselines or {})}
    results = {}
    for row, mean in means.items():
        test = mean + shared + 0.5 * noise * random.normal(size=seeds)
        results[row] = {"valid": (test + 0.3 * noise * random.normal(size=seeds)).tolist(), "test": test.tolist()}
    difference = paired_difference(results["student_distilled"]["test"], results["student_alone"]["test"])
    return {
        "recipe": "lingugkd",
        "data": {"name": "scipy-docs", "sha256": "3f" * 32, "split": "60/20/20 drawn by the seed", "nodes": 2486},
        "protocol": "Node classification; the epoch is chosen by validation accuracy and tested once",
        "teacher": "all-MiniLM-L6-v2 with logistic regression on neighbour means",
        "student": {"name": "GCN", "layers": 2, "width": 128},
        "metric": metric,
        "higher_is_better": higher_is_better,
        "seeds": list(range(seeds)),
        "results": results,
        "difference": difference,
        "cost": {
            "teacher_parameters": 22_713_216,
            "student_parameters": 51_348,
            "teacher_ms_per_item": 12.3456789,
            "student_ms_per_item": 0.0213,
            "extract_seconds": 41.2,
            "train_seconds": 205.0,
            "peak_memory_mb": 1312.5,
        },
        "versions": {"jaxgkd": "0.1.0", "jax": "0.10.2", "flax": "0.12.8"},
        "command": "jaxgkd run lingugkd --data scipy-docs --seeds 5",
        "notes": ["The student sees the name and the summary line only"],
    }


def write_metrics(path: Path, *, seeds: int = 5, epochs: int = 300, layers: int = 3, gain: float = 0.026) -> None:
    random = np.random.default_rng(11)
    lines = []
    for seed in range(seeds):
        for row, best, speed in (("student_alone", 0.832, 30.0), ("student_distilled", 0.832 + gain, 17.0)):
            shift = 0.006 * random.normal()
            for epoch in range(5, epochs + 1, 5):
                value = best + shift - 0.6 * np.exp(-epoch / speed) + 0.004 * random.normal()
                line = {"row": row, "seed": seed, "epoch": epoch, "valid": value, "train_loss": np.exp(-epoch / 40)}
                if row == "student_distilled":
                    logits = np.linspace(0, 0.9, layers) * (1 - np.exp(-epoch / 90)) + 0.04 * shift * epoch
                    weights = np.exp(logits) / np.exp(logits).sum()
                    line |= {f"layer_weight/{i}": float(weight) for i, weight in enumerate(weights)}
                lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_predictions(
    *, seeds: int = 5, n: int = 1500, classes: int = 7, dimensions: int = 32, regression: bool = False
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    share = 1 / np.arange(2, classes + 2)
    labels = random.choice(classes, size=n, p=share / share.sum()).astype(np.int16)
    degree = np.minimum(random.pareto(1.3, size=n) * 2, 120).astype(np.int32)
    split = np.stack([random.choice([1, 2, 3], size=n, p=[0.6, 0.2, 0.2]) for _ in range(seeds)]).astype(np.uint8)
    difficulty = random.uniform(0.0, 0.15, size=classes)[labels]
    arrays = {"labels": labels, "degree": degree, "split": split}
    rows = {"teacher": (0.95, 0.0), "student_alone": (0.74, 0.06), "student_distilled": (0.88, 0.03)}
    for row, (base, per_degree) in rows.items():
        right = random.random((seeds, n)) < np.minimum(base + per_degree * np.log2(1 + degree), 0.98) - difficulty
        anything = random.integers(classes, size=(seeds, n))
        wrong = np.where(random.random((seeds, n)) < 0.6, (labels + 1) % classes, anything)
        arrays[f"pred/{row}"] = np.where(right, labels, wrong).astype(np.int16)
    centres = random.normal(size=(classes, dimensions))
    embedding = centres[labels] + 0.55 * random.normal(size=(n, dimensions))
    arrays["embedding"] = embedding.astype(np.float16)
    if regression:
        arrays = {"labels": embedding[:, 0].astype(np.float32), "split": split, "embedding": arrays["embedding"]}
    return arrays


def make_run(
    path: Path,
    summary: dict | None = None,
    *,
    class_names: list[str] | tuple[str, ...] = SHORT_NAMES,
    metrics: dict | None = None,
    predictions: dict[str, np.ndarray] | None = None,
) -> Path:
    """A run directory with everything in it; ``metrics={}`` or ``predictions={}`` leaves the file out."""
    path.mkdir(parents=True)
    summary = make_summary() if summary is None else summary
    seeds = len(summary["seeds"])
    write_summary(path / "summary.json", summary)
    config = {"class_names": list(class_names), "data": {"counts": {"train": 1491, "valid": 497, "test": 498}}}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps({"device": "cpu", "cores": 2}), encoding="utf-8")
    if metrics is None or metrics:
        write_metrics(path / "metrics.jsonl", **({"seeds": seeds} | (metrics or {})))
    if predictions is None:
        predictions = make_predictions(seeds=seeds, classes=len(class_names))
    if predictions:
        np.savez_compressed(path / "predictions.npz", **predictions)
    return path


@pytest.fixture
def run_directory(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory below the test's own folder."""

    def make(name: str = "run", **settings) -> Path:
        return make_run(tmp_path / name, **settings)

    return make


@pytest.fixture
def summary() -> Callable[..., dict]:
    return make_summary


@pytest.fixture
def predictions() -> Callable[..., dict[str, np.ndarray]]:
    return make_predictions


@pytest.fixture
def names() -> Callable[[int], list[str]]:
    """Class names of about 40 characters."""
    return long_names


def texts_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text of a figure that shows, with the box it covers in dots."""
    figure.canvas.draw()
    boxes = []
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible():
            axis_ticks = [
                tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
            ]
            if any(text in (tick.label1, tick.label2) and not _tick_shows(tick) for tick in axis_ticks):
                continue
            boxes.append((text.get_text(), text.get_window_extent()))
    return boxes


def _tick_shows(tick) -> bool:
    low, high = sorted(tick.axes.get_xlim() if tick in tick.axes.xaxis.get_major_ticks() else tick.axes.get_ylim())
    return low - 1e-9 <= tick.get_loc() <= high + 1e-9


def assert_readable(figure: Figure) -> None:
    """No text leaves the figure and no two texts overlap."""
    boxes = texts_of(figure)
    assert boxes
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{text!r} leaves the figure: {box}"
    for position, (text, box) in enumerate(boxes):
        for other, other_box in boxes[position + 1 :]:
            # Boxes include the room above small letters: let neighbours share a sliver of it.
            overlap = Bbox.intersection(box, other_box)
            touching = overlap is not None and overlap.width > 1 and overlap.height > 3
            assert not touching, f"{text!r} and {other!r} overlap: {box}, {other_box}"


@pytest.fixture
def readable() -> Callable[[Figure], None]:
    return assert_readable


@pytest.fixture(scope="session")
def wordpiece():
    """A WordPiece tokenizer with BERT's special tokens over a few words and all letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    marks = list(".,;:#()0123456789")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *letters, *(f"##{letter}" for letter in letters), *marks]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    return tokenizer


@pytest.fixture(scope="session")
def byte_bpe():
    """A byte-level BPE tokenizer without special tokens, whose merges reach across punctuation and line ends."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    corpus = [" ".join(WORDS), "; ".join(WORDS), "\nLinked directly: ".join(WORDS), ".\n\n### Response:\n".join(WORDS)]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@pytest.fixture(scope="session")
def bert_folder(wordpiece, tmp_path_factory):
    """A checkpoint folder of a random two-layer BERT with the WordPiece tokenizer."""
    folder, d = tmp_path_factory.mktemp("bert"), 16
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": wordpiece.get_vocab_size(),
        "hidden_size": d,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * d,
        "hidden_act": "gelu",
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {f"embeddings.{name}_embeddings": (rows, d) for name, rows in (("position", 40), ("token_type", 2))}
    shapes |= {"embeddings.word_embeddings": (config["vocab_size"], d), "embeddings.LayerNorm": (d,)}
    for layer in (f"encoder.layer.{i}." for i in range(2)):
        shapes |= {f"{layer}attention.self.{name}": (d, d) for name in ("query", "key", "value")}
        shapes |= {f"{layer}attention.output.dense": (d, d), f"{layer}intermediate.dense": (2 * d, d)}
        shapes |= {f"{layer}output.dense": (d, 2 * d)}
        shapes |= {f"{layer}attention.output.LayerNorm": (d,), f"{layer}output.LayerNorm": (d,)}
    rng = np.random.default_rng(0)
    tensors = {f"{name}.weight": rng.normal(size=shape) / 2 for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": rng.normal(size=s[:1]) / 2 for name, s in shapes.items() if "_embeddings" not in name}
    save_file({name: values.astype(np.float32) for name, values in tensors.items()}, folder / "model.safetensors")
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    copy = tokenizers.Tokenizer.from_str(wordpiece.to_str())
    transformers.PreTrainedTokenizerFast(tokenizer_object=copy, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def causal_folder(byte_bpe, tmp_path_factory):
    """A checkpoint folder of a random two-layer Llama with the byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("parent") / "causal"
    values = {
        "model_type": "llama",
        "vocab_size": byte_bpe.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 256,
        "initializer_range": 0.5,
    }
    language.save(language.initialise(values, key=jax.random.key(0)), folder)
    copy = tokenizers.Tokenizer.from_str(byte_bpe.to_str())
    # The last of its tokens fills up batches, where the mask says that it does not count.
    last = byte_bpe.id_to_token(byte_bpe.get_vocab_size() - 1)
    transformers.PreTrainedTokenizerFast(tokenizer_object=copy, pad_token=last).save_pretrained(folder)
    return folder


# Words of each class of the text graph below, and words that all share.
TOPICS = {
    "graph": ("graph", "neural", "network"),
    "student": ("student", "teacher", "learns"),
    "molecules": ("molecules", "links", "papers"),
}


def write_text_graph(
    folder: Path,
    *,
    n_per_class: int = 20,
    split: bool = False,
    features: bool = False,
    change: Callable[[list[dict[str, str]], list[tuple[str, str]]], None] | None = None,
    seed: int = 0,
) -> Path:
    """A folder with a graph of three classes whose texts and links tell them apart, but not without fail.

    Args:
      split: add a column with 8 training, 6 validation and 6 test nodes of every 20 of a class.
      features: add ``features.npz``, counts of words.
      change: edits the rows of both tables before they are written.
    """
    random = np.random.default_rng(seed)
    everything = [word for topic in TOPICS.values() for word in topic]
    nodes, edges = [], []
    for i in range(3 * n_per_class):
        label = list(TOPICS)[i % 3]
        own = random.choice(TOPICS[label], size=4).tolist() + random.choice(everything, size=3).tolist()
        part = ("train",) * 8 + ("valid",) * 6 + ("test",) * 6
        row = {
            "node": f"n{i}",
            "title": " ".join(own[:2]),
            "abstract": " ".join(random.permutation(own)),
            "label": label,
        }
        nodes.append(row | ({"split": part[i // 3 % 20]} if split else {}))
        for _ in range(2):
            same = 3 * int(random.integers(n_per_class)) + i % 3
            other = same if random.random() < 0.8 else int(random.integers(3 * n_per_class))
            edges.append((f"n{i}", f"n{other}"))
    if change is not None:
        change(nodes, edges)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "nodes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(nodes[0]))
        writer.writeheader()
        writer.writerows(nodes)
    with open(folder / "edges.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("src", "dst"), *edges])
    if features:
        counts = [[row["abstract"].split().count(word) for word in everything] for row in nodes]
        np.savez(folder / "features.npz", features=np.array(counts, np.float32))
    return folder


@pytest.fixture(scope="session")
def text_graph_folder() -> Callable[..., Path]:
    """Writes a text graph: ``text_graph_folder(folder, split=True, …)``."""
    return write_text_graph


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory) -> Iterator[Path]:
    """The user's cache folder is an empty one, which stays for all tests of a file."""
    from jax.experimental.compilation_cache import compilation_cache

    folder = tmp_path_factory.mktemp("cache")
    options = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: jax.config.values[name] for name in options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield folder
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture
def node_run(tmp_path, text_graph_folder) -> Callable[..., tuple[Path, Path]]:
    """Writes the folder of a run with two untrained students of a kind, and a graph; returns both."""

    def node_run(kind: str, *, features: bool = False, change=None) -> tuple[Path, Path]:
        data = text_graph_folder(tmp_path / "topics", features=features, change=change)
        vocabulary = bag_of_words.fit(load_text_graph(data).texts)
        d_in = 9 if features else len(vocabulary.terms)
        readout = "all" if kind == "gat" else "last"
        models = [make_student(kind, d_in, 8, 2, 3, jax.random.key(i), norm="batch", readout=readout) for i in (0, 1)]
        members = [student_weights(*nnx.split(model, nnx.Param, ...)[1:]) for model in models]
        run = tmp_path / "run"
        run.mkdir()
        for name in ("config.json", "summary.json"):
            (run / name).write_text("{}")
        kept = KeptStudent(
            recipe="lingugkd",
            reads={
                "data": "text graph",
                "inputs": "features" if features else "words",
                "width": d_in,
                "edges": kind != "mlp",
                "text_columns": [],
                "label": "label",
                "positions": 0,
            },
            model={
                "kind": kind,
                "d_in": d_in,
                "width": 8,
                "layers": 2,
                "classes": 3,
                "norm": "batch",
                "readout": readout,
            },
            says={"kind": "classes", "names": ["graph", "molecules", "student"]},
            members=[{"seed": 0, "valid": 0.5}, {"seed": 1, "valid": 0.75}],
            chosen=[1],
            why="best accuracy on its own validation nodes",
            weights={name: np.stack([one[name] for one in members]) for name in members[0]},
            files={} if features else {VOCABULARY: vocabulary.to_json().encode()},
        )
        write_student(run, kept)
        return run, data

    return node_run


@pytest.fixture
def predicts_itself(tmp_path) -> Callable[[Path, Path], dict[str, np.ndarray]]:
    """Asks the distilled student that a run over molecules keeps about the run's own data, and compares with the run.

    Nothing of the run is there but its student. Returns what was predicted, by column.
    """

    def predicts_itself(run: Path, data: Path) -> dict[str, np.ndarray]:
        alone = tmp_path / f"alone-{run.name}"
        shutil.copytree(run / "student", alone / "student")
        for name in ("config.json", "summary.json"):
            shutil.copy(run / name, alone)
        kept = read_student(alone)
        out = tmp_path / f"{run.name}.parquet"
        assert cli.main(["predict", str(alone), "--data", str(data), "--out", str(out)]) == 0
        table = pandas.read_parquet(out)
        with np.load(run / "predictions.npz", allow_pickle=False) as arrays:
            expected = arrays["pred/student_distilled"][kept.members[kept.chosen[0]]["seed"]]
        column = "p" if kept.says["kind"] == "binary" else "predicted"
        for i, task in enumerate(kept.says["tasks"]):
            np.testing.assert_allclose(table[f"{column}_{task}"], expected[:, i], rtol=1e-5, atol=1e-5)
        return {name: table[name].to_numpy() for name in table}

    return predicts_itself
