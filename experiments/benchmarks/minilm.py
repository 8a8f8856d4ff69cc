"""MiniLM over the texts of Cora: python experiments/benchmarks/minilm.py [TEXTS]

JAXGKD_DATA names the folder with text/cora. Title and abstract of every paper, 256 tokens at most, from strings to one
mean-pooled vector a text in float32, tokenising included, and on our side a checked store on disk. Hugging Face's model
is run by PyTorch on batches of 64 in two ways: texts sorted by length first, and as they come. With a number, only so
many texts, evenly spread, are read.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import record, take_turns

CLAIM = "all-MiniLM-L6-v2 over the texts of Cora, tokenised, encoded and mean-pooled in float32, compilation left out"
CASE = {"texts": 2708, "max_tokens": 256, "batch": 64}
REPETITIONS = 2


def texts(case: dict) -> list[str]:
    from jaxgkd.data.text_graphs import load_text_graph

    everything = load_text_graph(Path(os.environ["JAXGKD_DATA"]) / "text" / "cora").texts
    return [everything[i] for i in np.linspace(0, len(everything) - 1, case["texts"]).astype(int)]


def jaxgkd(case: dict):
    from jaxgkd.teachers.extract import extract
    from jaxgkd.teachers.hops import TextEncoder

    encoder, prompts = TextEncoder.load("all-MiniLM-L6-v2"), texts(case)

    def work():
        with tempfile.TemporaryDirectory() as folder:
            store = extract(
                encoder.model,
                encoder.tokenizer,
                prompts,
                item_ids=[str(i) for i in range(len(prompts))],
                data_sha256="0" * 64,
                teacher_id=encoder.name,
                weights_hash=encoder.weights_hash,
                layers=(-1,),
                pooling="mean",
                max_tokens=case["max_tokens"],
                folder=Path(folder) / "store",
                dtype="float32",
                progress=False,
            )
            work.report = store.report
            return store.as_array()[:, 0]

    return work


def _hugging_face(case: dict, *, sort: bool):
    import torch
    import transformers

    from jaxgkd.language import resolve

    torch.set_num_threads(2)
    folder, prompts = resolve("all-MiniLM-L6-v2"), texts(case)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def encode(some: list[int]):
        batch = tokenizer(
            [prompts[i] for i in some],
            padding=True,
            truncation=True,
            max_length=case["max_tokens"],
            return_tensors="pt",
        )
        mask = batch["attention_mask"][:, :, None].float()
        states = model(**batch).last_hidden_state
        return ((states * mask).sum(1) / mask.sum(1)).numpy()

    def work():
        order = np.arange(len(prompts))
        if sort:
            cut = tokenizer(prompts, truncation=True, max_length=case["max_tokens"])["input_ids"]
            order = np.argsort([-len(ids) for ids in cut], kind="stable")
        vectors = np.empty((len(prompts), model.config.hidden_size), np.float32)
        for start in range(0, len(prompts), case["batch"]):
            some = order[start : start + case["batch"]]
            vectors[some] = encode(some.tolist())
        return vectors

    work.warm = lambda: encode(list(range(min(case["batch"], len(prompts)))))
    return work


def hugging_face_sorted(case: dict):
    return _hugging_face(case, sort=True)


def hugging_face_unsorted(case: dict):
    return _hugging_face(case, sort=False)


def products(rows: int = 2048, width: int = 384, inner: int = 1536) -> dict[str, int]:
    """GFLOP/s of the model's largest matrix product alone: what no arrangement of the rest can beat."""
    import jax
    import torch

    torch.set_num_threads(2)
    left, right = (np.ones(shape, np.float32) for shape in ((rows, width), (width, inner)))
    ours, theirs = (jax.device_put(left), jax.device_put(right)), (torch.from_numpy(left), torch.from_numpy(right))
    multiply = jax.jit(lambda left, right: left @ right)
    fastest = {}
    for name, run in {
        "jax": lambda: jax.block_until_ready(multiply(*ours)),
        "torch": lambda: torch.matmul(*theirs),
    }.items():
        times = []
        for _ in range(50):
            begun = time.perf_counter()
            run()
            times.append(time.perf_counter() - begun)
        fastest[name] = round(2e-9 * rows * width * inner / min(times))
    return fastest


def agreement(case: dict) -> dict:
    """Largest difference between the vectors of both, what the padding came to, and what compiling takes."""
    work = jaxgkd(case)
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        ours = work()
        times.append(time.perf_counter() - begun)
    theirs = hugging_face_sorted(case)()
    return {
        "case": case,
        "largest_difference": float(np.abs(ours - theirs).max()),
        "compile_seconds": round(times[0] - times[1], 2),
        "shapes": work.report["shapes"],
        "padded_share": round(1 - work.report["n_tokens"] / work.report["n_padded_tokens"], 4),
    }


if __name__ == "__main__":
    case = CASE | ({"texts": int(sys.argv[1])} if len(sys.argv) > 1 else {})
    sides = {side.__name__: side for side in (jaxgkd, hugging_face_sorted, hugging_face_unsorted)}
    seconds = take_turns(sides, case, repetitions=REPETITIONS)
    facts = {
        "command": " ".join(["python experiments/benchmarks/minilm.py", *sys.argv[1:]]),
        "exactness": agreement(case | {"texts": 128}),
        "gflop_per_second_of_products": products(),
    }
    record("minilm", CLAIM, [{"case": case, "seconds": seconds}], **facts)
