"""Whatever is in a file, a reader gives what is in it or says in one sentence what is wrong: no other exception, no
warning, no waiting. Few examples by default; JAXGKD_FUZZ=100 tries a hundred times as many, within the hour.
"""

import gzip
import json
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from rdkit import Chem
from rdkit.Chem import AllChem

from jaxgkd import language
from jaxgkd.data.brain_descriptions import read_subject_descriptions
from jaxgkd.data.brain_sets import load_brain_set
from jaxgkd.data.hetero_files import load_hetero_graph
from jaxgkd.data.molecule_descriptions import read_descriptions
from jaxgkd.data.molecule_splits import make_molecule_split, read_splits_file, save_molecule_split
from jaxgkd.data.molecules import Molecules, load_molecules
from jaxgkd.data.splits import load_split, make_split, save_split
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import JaxgkdError
from jaxgkd.graphs.compressed import open_compressed, write_compressed
from jaxgkd.recipes.bleg_texts import read_texts
from jaxgkd.report.comparison import compare_runs
from jaxgkd.report.console import console_table
from jaxgkd.report.run_directory import read_run
from jaxgkd.teachers import Manifest, Store, StoreWriter, item_ids_hash
from jaxgkd.teachers.answers import read_answers
from jaxgkd.teachers.manifest import seal_of
from jaxgkd.training.checkpoint import load_tree, save_tree
from tests.damage import Files, at_most, changes, files_of, write_files
from tests.made_graphs import write_text_graph
from tests.made_runs import make_predictions, make_run, make_summary
from tests.recipes.hetero_folder import write_films

TIMES = int(os.environ.get("JAXGKD_FUZZ", "1"))
SECONDS = 20.0


def check(read: Callable[[Path], object], files: Files, changed) -> None:
    """Reads a damaged folder: what it holds comes back, or one sentence that is no page long."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_files(Path(scratch) / "data", files, changed)
        try:
            with at_most(SECONDS):
                read(folder)
        except JaxgkdError as error:
            sentence = str(error)
            assert sentence.endswith(".")
            assert len(sentence.replace(scratch, "")) < 1200
            assert "\n" not in sentence
            sentence.encode()


def molecule_with_hydrogens(smiles: str) -> Chem.Mol:
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(molecule, randomSeed=7)
    return molecule


SMILES = ("CCO", "c1ccccc1O", "CC(=O)[O-].[Na+]", "N[C@@H](C)C(=O)O", "C", "CCN", "OCC", "C1CC1", "CCCl", "BrCC")
MOLECULES = "id,smiles,y,split\n" + "".join(f"m{i},{text},{i / 2},\n" for i, text in enumerate(SMILES))
SUBJECTS = "subject,site,age,sex,label\n01,A,10,M,HC\n02,A,11,F,ASD\n03,B,12,M,HC\n04,B,,F,ASD\n"


def text_graph(folder: Path) -> None:
    write_text_graph(folder, n_per_class=3, split=True, features=True)
    (folder / "classes.json").write_text('["graph", "molecules", "student"]')


def numbered_graph(folder: Path) -> None:
    (folder / "nodes.csv").write_text("node,text,label\n" + "".join(f"{i},text {i},{i % 2}\n" for i in range(6)))
    (folder / "edges.csv").write_text("src,dst\n0,1\n1,2\n2,3\n4,5\n")
    (folder / "classes.json").write_text('{"0": "theory", "1": "practice"}')
    scipy.sparse.save_npz(folder / "features.npz", scipy.sparse.csr_array(np.eye(6, 4, dtype=np.float32)))


def gzipped_graph(folder: Path) -> None:
    numbered_graph(folder)
    for name in ("nodes.csv", "edges.csv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()


def parquet_graph(folder: Path) -> None:
    numbered_graph(folder)
    for name in ("nodes", "edges"):
        pd.read_csv(folder / f"{name}.csv").to_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()


def films(folder: Path) -> None:
    write_films(folder, n=12)
    np.savez(folder / "features_movie.npz", features=np.eye(12, dtype=np.float32))


def sdf(folder: Path, name: str = "m.sdf") -> None:
    blocks = []
    for i, smiles in enumerate(SMILES):
        molecule = molecule_with_hydrogens(smiles)
        molecule.SetProp("_Name", f"m{i}")
        blocks.append(f"{Chem.MolToMolBlock(molecule)}> <y>\n{i}\n\n$$$$\n")
    (folder / name).write_text("".join(blocks[:4]))


def molecules_of(folder: Path, name: str, **options):
    with tempfile.TemporaryDirectory() as cache:
        return load_molecules(folder / name, labels=("y",), workers=1, root=Path(cache), **options)


def table_with_structures(folder: Path) -> None:
    (folder / "m.csv").write_text("".join(MOLECULES.splitlines(True)[:5]))
    sdf(folder)


def molecule_splits(folder: Path) -> None:
    (folder / "m.csv").write_text(MOLECULES)
    molecules = molecules_of(folder, "m.csv")
    save_molecule_split(make_molecule_split(molecules, "random"), molecules, folder / "saved.json")
    (folder / "given.json").write_text('[{"train": "0-4, 6", "val": [5, 7], "test": [8, 9]}]')


@cache
def molecules() -> Molecules:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "m.csv").write_text(MOLECULES)
        return molecules_of(Path(place), "m.csv")


def read_molecule_splits(folder: Path) -> None:
    for name in ("given.json", "saved.json"):
        try:
            read_splits_file(folder / name, molecules())
        except JaxgkdError:
            if name == "saved.json":
                raise


def node_split(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        graph = load_text_graph(write_text_graph(Path(place) / "g", n_per_class=5))
    save_split(make_split(graph, "60-20-20"), folder / "split.json")


def texts_of_molecules(folder: Path) -> None:
    lines = [json.dumps({"smiles": text, "text": f"A molecule {text}.", "model": "m"}) for text in SMILES]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")


def read_texts_of_molecules(folder: Path) -> None:
    read_descriptions(folder / "texts.jsonl", molecules(), missing="smiles", workers=1)


def answers(folder: Path) -> None:
    lines = [json.dumps({"smiles": text, "text": "A molecule.", "model": "m", "prompt_tokens": 3}) for text in SMILES]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")


def texts_of_subjects(folder: Path) -> None:
    lines = [{"subject": f"0{i}", "text": "Strong links."} for i in (1, 2, 3)]
    lines.append({"subject": "04", "key_features": ["one", "two"], "conclusion": "An end."})
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def brain_series(n: int = 4, time: int = 12, r: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, time, r)).astype(np.float32)


def brain_file(folder: Path) -> None:
    (folder / "subjects.csv").write_text(SUBJECTS)
    (folder / "regions.csv").write_text("name,network\na,Vis\nb,Vis\nc,\n")
    np.savez(folder / "connectivity.npz", correlation=correlations(), subject=np.array(["01", "02", "03", "04"]))


def correlations() -> np.ndarray:
    return np.stack([np.corrcoef(one.T) for one in brain_series()]).astype(np.float32)


def brain_folder(folder: Path) -> None:
    (folder / "subjects.csv").write_text(SUBJECTS)
    (folder / "classes.json").write_text('["HC", "ASD"]')
    (folder / "series").mkdir(parents=True)
    one, two, three, four = brain_series()
    np.savetxt(folder / "series" / "01.csv", one, delimiter=",", header="1a,2a,3a", comments="")
    np.savetxt(folder / "series" / "02.1D", two, header="#1a #2a #3a", comments="")
    np.save(folder / "series" / "03.npy", three)
    scipy.io.savemat(folder / "series" / "04.mat", {"ROISignals": four})


def brain_upper(folder: Path) -> None:
    (folder / "subjects.csv").write_text(SUBJECTS)
    upper = correlations()[:, *np.triu_indices(3, 1)]
    scipy.io.savemat(folder / "fc.mat", {"fc_upper": upper, "subject": np.array(["01", "02", "03", "04"])})


def brain_array(folder: Path) -> None:
    (folder / "subjects.csv").write_text(SUBJECTS)
    np.save(folder / "series.npy", brain_series())


@cache
def brains():
    with tempfile.TemporaryDirectory() as place:
        brain_array(Path(place))
        return load_brain_set(place)


ITEMS = [f"paper-{i}" for i in range(5)]


def store(folder: Path) -> None:
    hashes = dict.fromkeys(("weights_hash", "tokenizer_hash", "prompt_hash", "data_sha256"), "a hash")
    manifest = Manifest(
        teacher_id="a teacher",
        **hashes,
        item_ids_hash=item_ids_hash(ITEMS),
        n_items=5,
        n_rows=5,
        pooling="mean",
        layers=(0, 2),
        width=3,
        max_tokens=16,
        extras={"log_probs": (4,)},
    )
    with StoreWriter(folder, manifest, ITEMS) as writer:
        for start, stop in ((0, 3), (3, 5)):
            rows = stop - start
            writer.write(start, np.ones((rows, 2, 3), np.float32), log_probs=np.zeros((rows, 4), np.float32))
        writer.finish({"seconds": 1.0})
    (folder / ".lock").unlink()


def read_store(folder: Path) -> None:
    opened = Store.open(folder)
    for name in opened.manifest.arrays():
        opened.as_array(name)


def read_resealed_store(folder: Path) -> None:
    """As one that another version wrote: whole, but of another content."""
    path = folder / "manifest.json"
    try:
        document = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        document.pop("seal", None)
        path.write_text(json.dumps(document | {"seal": seal_of(document)}))
    read_store(folder)


def checkpoint(folder: Path) -> None:
    values = {"model_type": "bert", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 1}
    values |= {"num_attention_heads": 2, "intermediate_size": 4, "max_position_embeddings": 8}
    folder.rmdir()
    language.save(language.initialise(values, key=jax.random.key(0)), folder)


def adapters(folder: Path) -> None:
    model, config = decoder(), language.LoraConfig(rank=2, alpha=4.0)
    folder.rmdir()
    made = language.initial_adapters(model, config, key=jax.random.key(0))
    language.save_adapters(made, config, model, folder, base_name="b")


@cache
def decoder():
    values = {"model_type": "llama", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 1}
    values |= {"num_attention_heads": 2, "intermediate_size": 4, "max_position_embeddings": 8}
    return language.initialise(values, key=jax.random.key(0))


def tree(folder: Path) -> None:
    save_tree(folder / "stage", {"a": {"b": np.arange(3.0)}, "c": np.ones((2, 2), np.float32)})


def compressed(folder: Path) -> None:
    ends = np.array([0, 1, 2]), np.array([1, 2, 0])
    write_compressed(folder / "graph", {"a": 3}, {("a", "to", "a"): lambda: [ends]})


def run(folder: Path) -> None:
    names = ("one", "two", "three")
    predictions = make_predictions(seeds=2, n=30, classes=3, dimensions=2)
    folder.rmdir()
    made = make_summary(seeds=2)
    make_run(folder, made, class_names=names, metrics={"epochs": 10, "layers": 2}, predictions=predictions)


def read_report(folder: Path) -> None:
    found = read_run(folder)
    console_table(found.summary)
    compare_runs([folder, folder])


#: Name → what makes a whole folder, what reads it, and how many examples are tried by default.
READERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], int]] = {
    "text graph": (text_graph, load_text_graph, 60),
    "numbered text graph": (numbered_graph, load_text_graph, 40),
    "gzipped text graph": (gzipped_graph, load_text_graph, 30),
    "Parquet text graph": (parquet_graph, load_text_graph, 30),
    "typed graph": (films, load_hetero_graph, 60),
    "table of molecules": (
        lambda folder: (folder / "m.csv").write_text(MOLECULES),
        lambda folder: molecules_of(folder, "m.csv"),
        40,
    ),
    "SD file": (sdf, lambda folder: molecules_of(folder, "m.sdf", hydrogens="explicit"), 40),
    "table with an SD file": (
        table_with_structures,
        lambda folder: molecules_of(folder, "m.csv", sdf=folder / "m.sdf"),
        30,
    ),
    "splits of molecules": (molecule_splits, read_molecule_splits, 40),
    "split of nodes": (node_split, lambda folder: load_split(folder / "split.json", 15), 40),
    "texts of molecules": (texts_of_molecules, read_texts_of_molecules, 30),
    "answers": (answers, lambda folder: read_answers(folder / "texts.jsonl"), 30),
    "descriptions of subjects": (
        texts_of_subjects,
        lambda folder: read_subject_descriptions(folder / "texts.jsonl", brains()),
        30,
    ),
    "texts of subjects": (
        texts_of_subjects,
        lambda folder: read_texts(folder / "texts.jsonl", ["01", "02", "03", "04"]),
        40,
    ),
    "brains in a file": (brain_file, load_brain_set, 60),
    "brains in a folder": (brain_folder, load_brain_set, 60),
    "brains in a MAT file": (brain_upper, load_brain_set, 40),
    "brains in an array": (brain_array, load_brain_set, 40),
    "store": (store, read_store, 30),
    "store, sealed again": (store, read_resealed_store, 60),
    "checkpoint": (checkpoint, language.load, 30),
    "adapters": (adapters, lambda folder: language.load_adapters(folder, decoder()), 20),
    "stage of a run": (tree, lambda folder: load_tree(folder / "stage"), 15),
    "compressed graph": (compressed, lambda folder: open_compressed(folder / "graph"), 40),
    "run": (run, read_report, 60),
}


def whole(name: str) -> Files:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        READERS[name][0](folder)
        return files_of(folder)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(own_cache):
    return own_cache


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_refused_in_one_sentence_or_read(name):
    _, read, few = READERS[name]
    files = whole(name)
    with tempfile.TemporaryDirectory() as scratch:
        read(write_files(Path(scratch) / "data", files))

    @settings(
        max_examples=TIMES * few // 2,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(changes(files))
    def holds(changed):
        check(read, files, changed)

    holds()
