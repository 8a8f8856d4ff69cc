"""Kills extraction, training and describing at random moments, and compares what is left with an undisturbed run.

    python experiments/chaos/chaos.py                 # 20 kills of each, some minutes
    python experiments/chaos/chaos.py --kills 2 --only training

A child process does the work on small sizes. It is killed (SIGKILL) at a moment drawn from the time that an undisturbed
child takes after it has imported its packages, and started again on the same folder until it ends by itself; then a
folder is begun anew, until there were as many kills as asked for. What a child leaves at its end has to be the same to
the last bit as what the undisturbed one left, with nothing in it twice.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: written by experiments/chaos/chaos.py -->", "<!-- end of table -->"
LETTERS = "abcdefghijklmnop"


def extraction(folder: Path) -> None:
    """A small random encoder reads 3,000 texts; a chunk of the store is some hundred of them."""
    import jax
    import tokenizers
    from tokenizers import models, pre_tokenizers

    from jaxgkd import language
    from jaxgkd.teachers import extract

    shape = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"model_type": "bert", "intermediate_size": 128, "hidden_act": "gelu", "max_position_embeddings": 64}
    shape |= {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0}
    model = language.initialise(shape, key=jax.random.key(0))
    tokenizer = tokenizers.Tokenizer(models.WordLevel({c: i for i, c in enumerate("_" + LETTERS)}, unk_token="_"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    drawn = random.Random(0)
    prompts = ["".join(drawn.choices(LETTERS, k=drawn.randint(1, 60))) for _ in range(3000)]
    begun()
    extract(
        model,
        tokenizer,
        prompts,
        item_ids=[str(i) for i in range(len(prompts))],
        data_sha256="letters",
        teacher_id="random",
        weights_hash="seed 0",
        layers=(0, -1),
        pooling="mean",
        max_tokens=64,
        batch_tokens=512,
        folder=folder / "store",
        progress=False,
    )


def training(folder: Path) -> None:
    """Two rows of a run: settings searched and seeds trained over a whole graph, then over batches."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from rich.console import Console

    from jaxgkd.graphs import from_edges
    from jaxgkd.nn.encoders import make_student
    from jaxgkd.nn.node_problem import node_problem
    from jaxgkd.recipes.searched_fit import Budget, searched_fit
    from jaxgkd.training.batch_loop import BatchProblem, fit_batches
    from jaxgkd.training.checkpoint import leaves_by_name
    from jaxgkd.training.execution import Execution, executing
    from jaxgkd.training.run_dir import RunDirectory
    from jaxgkd.training.search import Choice

    drawn = np.random.default_rng(0)
    n, classes, seeds = 400, 4, [0, 1]
    ends = drawn.integers(n, size=(2, 1600)).astype(np.int32)
    graph, layout = from_edges(jnp.asarray(drawn.normal(size=(n, 32)), jnp.float32), *ends, n)
    part = drawn.integers(3, size=(len(seeds), n))
    run_data = {
        "train": jnp.asarray(part == 0),
        "valid": jnp.asarray(part == 1),
        "labels": jnp.asarray(drawn.integers(classes, size=(len(seeds), n)), jnp.int32),
        "class_weights": jnp.ones((len(seeds), classes)),
    }
    rows = [drawn.normal(size=(16, 8)).astype(np.float32) for _ in range(10)]
    on_batches = BatchProblem(
        init=lambda key: {"w": jax.random.normal(key, (8, 8))},
        loss=lambda params, key, settings, batch, shared: (
            jnp.mean((jnp.tanh(batch @ params["w"]) - jnp.roll(batch, 1, axis=1)) ** 2),
            {"loss/noise": jax.random.normal(key)},
        ),
        outputs=lambda params, batch: batch @ params["w"],
        optimizer=lambda settings, progress: optax.adam(settings["learning_rate"] * (1 - progress)),
    )

    def batched() -> dict:
        fitted = fit_batches(
            on_batches,
            jax.random.split(jax.random.key(1), 2),
            {"learning_rate": jnp.array([0.01, 0.03])},
            lambda epoch: (rows[i] for i in np.random.default_rng(epoch).permutation(len(rows))),
            n_batch=len(rows),
            epochs=15,
            score=lambda params: np.asarray(jnp.sum(params["w"] ** 2, axis=(1, 2))),
        )
        curves = {name.replace("/", "."): values for name, values in fitted.curves.items()}
        return {"params": leaves_by_name(fitted.params), "best_epoch": fitted.best_epoch, "curves": curves}

    begun()
    run_dir = RunDirectory(folder / "run", {"what": "chaos"}, resume=True)
    with executing(Execution(checkpoint_every=0.3)):
        searched_fit(
            "whole",
            node_problem(lambda key: make_student("gcn", 32, 16, 2, classes, key)),
            run_data,
            {"graph": graph, "layout": layout},
            seeds,
            default={"learning_rate": 0.01, "weight_decay": 5e-4, "dropout": 0.5},
            space={"learning_rate": Choice((0.003, 0.01, 0.03)), "dropout": Choice((0.2, 0.5, 0.8))},
            budget=Budget(epochs=100, patience=None, tries=2, search_seeds=1, finalists=2),
            run_dir=run_dir,
            console=Console(quiet=True),
        )
        run_dir.stage("batched", batched)


def describing(folder: Path) -> None:
    """`jaxgkd describe` writes what the template says of molecules out of RDKit's package."""
    from jaxgkd import cli

    begun()
    code = cli.main(["describe", "--data", "chembl2321810", "--limit", "600", "--out", str(folder / "texts.jsonl")])
    if code:
        raise SystemExit(code)


def content_of_store(folder: Path) -> dict[str, bytes]:
    from jaxgkd.teachers import Store

    store = Store.open(folder / "store")
    names = sorted(each.name for each in store.folder.glob("*.npy"))
    return {"states": store.as_array().tobytes(), **{name: (store.folder / name).read_bytes() for name in names}}


def content_of_run(folder: Path) -> dict[str, bytes]:
    import jax

    from jaxgkd.training.checkpoint import load_tree

    found = {}
    for stage in sorted((folder / "run" / "checkpoints").iterdir()):
        tree = load_tree(stage)
        # How long it took is the one thing that may differ.
        tree.pop("seconds", None)
        found |= {f"{stage.name}{jax.tree_util.keystr(p)}": v.tobytes() for p, v in jax.tree.leaves_with_path(tree)}
    return found


def content_of_answers(folder: Path) -> dict[str, bytes]:
    lines = (folder / "texts.jsonl").read_bytes().splitlines()
    if len(lines) != len(set(lines)):
        raise SystemExit(f"{folder}: an answer is there twice")
    return {str(i): line for i, line in enumerate(lines)}


WORK = {
    "extraction": (extraction, content_of_store),
    "training": (training, content_of_run),
    "describing": (describing, content_of_answers),
}


def begun() -> None:
    """A child says that its packages are loaded and the work begins."""
    print("begun", flush=True)


def start(kind: str, folder: Path) -> subprocess.Popen:
    """A child at work, its packages loaded."""
    command = [sys.executable, __file__, "--child", kind, "--folder", str(folder)]
    # The child alone, whose group of processes is killed with it.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    while (line := child.stdout.readline()) and line != "begun\n":
        pass
    return child


def finish(child: subprocess.Popen) -> None:
    child.communicate()
    if child.returncode:
        raise SystemExit(f"a child ended with code {child.returncode}")


def digest(contents: dict[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, content in contents.items():
        found.update(f"{name} {len(content)};".encode() + content)
    return found.hexdigest()


def torment(kind: str, kills: int, seed: int, work: Path) -> dict:
    """Kill children until there were so many kills; every folder that is finished is compared.

    Returns:
      the kills, the moments they came at as shares of the undisturbed time, and the finished folders.
    """
    moments, drawn = [], random.Random(f"{seed} {kind}")
    # Once to fill the compiler's cache, once to take the time.
    finish(start(kind, work / kind / "first"))
    child, at = start(kind, work / kind / "undisturbed"), time.monotonic()
    finish(child)
    seconds = time.monotonic() - at
    expected = WORK[kind][1](work / kind / "undisturbed")
    finished, folder, sittings = [], work / kind / "0", 0
    while len(moments) < kills or sittings:
        child, sittings = start(kind, folder), sittings + 1
        try:
            moment = drawn.uniform(0, seconds) if len(moments) < kills else None
            child.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            moments.append(round(moment / seconds, 3))
            continue
        finish(child)
        found = WORK[kind][1](folder)
        if digest(found) != digest(expected):
            differing = [name for name in {*found, *expected} if found.get(name) != expected.get(name)]
            raise SystemExit(f"{kind}: after {sittings} sittings {folder} differs in {sorted(differing)[:5]}")
        finished.append({"sittings": sittings, "sha256": digest(found)})
        folder, sittings = work / kind / str(len(finished)), 0
    return {
        "kills": len(moments),
        "undisturbed_seconds": round(seconds, 2),
        "undisturbed_sha256": digest(expected),
        "moments": moments,
        "finished": finished,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of work")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="*", choices=WORK, default=list(WORK), help="kinds of work")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "chaos.json", help="file of the result")
    parser.add_argument("--child", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        import jax

        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        WORK[arguments.child][0](arguments.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/cache"
        found = {kind: torment(kind, arguments.kills, arguments.seed, Path(folder)) for kind in arguments.only}
    before = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    facts = {"seed": arguments.seed, "date": time.strftime("%Y-%m-%d"), "jax": version("jax"), "cores": os.cpu_count()}
    result = before | facts | found
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table := table_of(result))
    if arguments.out.parent == HERE / "results":
        readme = HERE / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
        after = rest.partition(END)[2]
        readme.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def table_of(result: dict) -> str:
    """What was killed how often. Every folder that is counted here was equal; one that is not ends the script."""
    lines = [
        "| work | seconds undisturbed | kills | folders finished | most sittings of one | equal |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for kind in (each for each in WORK if each in result):
        found = result[kind]
        equal = all(each["sha256"] == found["undisturbed_sha256"] for each in found["finished"])
        most = max(each["sittings"] for each in found["finished"])
        counts = f"{found['undisturbed_seconds']} | {found['kills']} | {len(found['finished'])} | {most}"
        lines.append(f"| {kind} | {counts} | {'yes' if equal else 'no'} |")
    where = f"{result['date']}, {result['cores']} cores, jax {result['jax']}, moments drawn from seed {result['seed']}."
    return "\n".join([*lines, "", where])


if __name__ == "__main__":
    main()
