"""A small decoder learns the classes of Cora's papers from nothing: python experiments/language/learning.py

JAXGKD_DATA names the folder with text/cora. A Llama of random weights, with a tokenizer trained on the papers' own
words, is tuned in full on hop prompts of 200 papers with their classes as responses. Adapters beside it then learn
other classes of the same papers, drawn without any sense, so that all they can do is remember. What is said of the
base's bits, of decoding with a cache and of scores is checked on the tuned model. Writes results/learning.json and the
table of the README.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from jaxgkd import language
from jaxgkd.data.text_graphs import TextGraph, load_text_graph
from jaxgkd.language.lora import linear_maps
from jaxgkd.teachers.prompts import INSTRUCTIONS, instruction_prompts
from jaxgkd.teachers.rings import distance_rings
from jaxgkd.training.memory import keep_freed_memory
from jaxgkd.training.run_dir import environment

HERE = Path(__file__).parent
BEGIN, END_OF_TABLE = "<!-- table: written by experiments/language/learning.py -->", "<!-- end of table -->"
END = "<end>"

CASE = {
    "papers": 200,
    "hops": 1,
    "vocabulary": 2048,
    "max_tokens": 128,
    "width": 64,
    "layers": 2,
    "epochs": 40,
    "adapter_epochs": 60,
    "rank": 16,
    "decoded_papers": 32,
    "decoded_tokens": 12,
}


def train_tokenizer(graph: TextGraph, vocabulary: int) -> tokenizers.Tokenizer:
    """Byte-level BPE of the papers' texts, class names and instruction; nothing is downloaded."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*graph.texts, *graph.class_names, *INSTRUCTIONS], trainer)
    return tokenizer


def right_answers(model: Any, prompts: language.TokenBatch, answers: list[list[int]], labels: np.ndarray) -> dict:
    """Share of papers whose class the model writes word by word, and whose class it finds the likeliest of all."""
    end = answers[0][-1]
    said = language.generate(model, *prompts, max_new_tokens=max(map(len, answers)), stop_tokens=(end,))
    written = [row[: list(row).index(end) + 1].tolist() if end in row else [] for row in np.asarray(said.tokens)]
    scores = np.asarray(language.score_candidates(model, *prompts, answers))
    return {
        "generated": float(np.mean([written[i] == answers[label] for i, label in enumerate(labels)])),
        "scored": float(np.mean(scores.argmax(axis=1) == labels)),
    }


def decoded_anew(model: Any, prompts: language.TokenBatch, n: int) -> np.ndarray:
    """[b, n] most probable tokens, the whole text run anew for each."""
    b, t = prompts.input_ids.shape
    lengths = prompts.attention_mask.sum(axis=1)
    ids = np.pad(prompts.input_ids, ((0, 0), (0, n)))
    for step in range(n):
        mask = (np.arange(t + n) < (lengths + step)[:, None]).astype(np.int32)
        logits = np.asarray(model.logits(ids, mask))
        ids[np.arange(b), lengths + step] = logits[np.arange(b), lengths + step - 1].argmax(axis=1)
    return np.stack([ids[row, length : length + n] for row, length in enumerate(lengths)])


def scored_alone(model: Any, prompts: language.TokenBatch, answer: list[int]) -> np.ndarray:
    """[b] log-likelihood of one answer, read off the logits of prompt and answer as one text."""
    b, t = prompts.input_ids.shape
    lengths, rows = prompts.attention_mask.sum(axis=1), np.arange(b)
    ids = np.pad(prompts.input_ids, ((0, 0), (0, len(answer))))
    for i, token in enumerate(answer):
        ids[rows, lengths + i] = token
    mask = (np.arange(t + len(answer)) < (lengths + len(answer))[:, None]).astype(np.int32)
    log_probs = np.asarray(jax.nn.log_softmax(model.logits(ids, mask)), np.float64)
    return sum(log_probs[rows, lengths + i - 1, token] for i, token in enumerate(answer))


def run(case: dict) -> dict[str, Any]:
    """Everything that is claimed, measured once.

    Args:
      case: sizes, see ``CASE``.

    Returns:
      Accuracies (shares), differences and seconds.
    """
    graph = load_text_graph(Path(os.environ["JAXGKD_DATA"]) / "text" / "cora")
    tokenizer = train_tokenizer(graph, case["vocabulary"])
    rng = np.random.default_rng(0)
    nodes = np.sort(rng.choice(graph.n_node, case["papers"], replace=False))
    rings = distance_rings(graph.senders, graph.receivers, graph.n_node, hops=case["hops"], nodes=nodes)
    asked = instruction_prompts(graph, tokenizer, hop=case["hops"], rings=rings, max_tokens=case["max_tokens"])
    encoded = [np.array(each.ids, np.int32) for each in tokenizer.encode_batch(list(asked.texts))]
    prompts = language.pad(encoded, padding_id=0)
    answers = [[*tokenizer.encode(name).ids, tokenizer.token_to_id(END)] for name in graph.class_names]
    labels, drawn = graph.labels[nodes], rng.permutation(graph.labels[nodes])

    model = language.initialise(
        {
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": case["width"],
            "num_hidden_layers": case["layers"],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 2 * case["width"],
            "max_position_embeddings": 512,
        },
        key=jax.random.key(0),
    )
    before = right_answers(model, prompts, answers, labels)

    def pairs(of: np.ndarray) -> list[tuple[np.ndarray, list[int]]]:
        return [(prompt, answers[label]) for prompt, label in zip(encoded, of, strict=True)]

    def losses(into: list[float]):
        return lambda epoch, loss: into.append(round(loss, 4))

    settings = language.TuningSettings(epochs=case["epochs"], batch_size=8, learning_rate=1e-3, multiple=32)
    full_losses: list[float] = []
    begun = time.perf_counter()
    base = language.tune_model(model, pairs(labels), settings, key=jax.random.key(1), on_epoch=losses(full_losses))
    full_seconds = time.perf_counter() - begun

    bits = [np.array(leaf) for leaf in jax.tree.leaves(base.weights())]
    after = right_answers(base, prompts, answers, labels)
    lora = language.LoraConfig(rank=case["rank"], targets=tuple(linear_maps(base)))
    settings = language.TuningSettings(epochs=case["adapter_epochs"], batch_size=8, learning_rate=2e-3, multiple=32)
    adapter_losses: list[float] = []
    begun = time.perf_counter()
    adapters = language.tune_adapters(
        base, pairs(drawn), settings, lora, key=jax.random.key(2), on_epoch=losses(adapter_losses)
    )
    adapter_seconds = time.perf_counter() - begun
    same_bits = all(
        np.array_equal(one.view(np.uint32), np.asarray(other).view(np.uint32))
        for one, other in zip(bits, jax.tree.leaves(base.weights()), strict=True)
    )

    few = language.TokenBatch(*(array[: case["decoded_papers"]] for array in prompts))
    cached = np.asarray(language.generate(base, *few, max_new_tokens=case["decoded_tokens"]).tokens)
    scores = np.asarray(language.score_candidates(base, *few, answers))
    alone = np.stack([scored_alone(base, few, answer) for answer in answers], axis=1)
    return {
        "case": case,
        "parameters": model.n_parameters,
        "adapter_parameters": sum(leaf.size for leaf in jax.tree.leaves(adapters)),
        "prompt_tokens": {"longest": int(asked.n_tokens.max()), "prompts_cut": asked.n_truncated},
        "papers_whose_class_changed": int((labels != drawn).sum()),
        "before_tuning": before,
        "tuned": after,
        "tuned_on_other_classes": right_answers(base, prompts, answers, drawn),
        "adapted_on_other_classes": right_answers(language.adapt(base, adapters, lora), prompts, answers, drawn),
        "merged_on_other_classes": right_answers(language.merge(base, adapters, lora), prompts, answers, drawn),
        "base_bits_unchanged": same_bits,
        "base_after_adapters": right_answers(base, prompts, answers, labels),
        "tokens_decoded_alike": float((cached == decoded_anew(base, few, case["decoded_tokens"])).mean()),
        "largest_score_difference": float(np.abs(scores - alone).max()),
        "losses": {"tuned": full_losses, "adapted": adapter_losses},
        "seconds": {"tuning": round(full_seconds, 1), "adapters": round(adapter_seconds, 1)},
    }


def table(found: dict[str, Any]) -> list[str]:
    """Lines of the README's table."""

    def shares(name: str) -> str:
        return " | ".join(f"{100 * found[name][how]:.1f}" for how in ("generated", "scored"))

    rows = {
        "random weights": "before_tuning",
        "tuned in full": "tuned",
        "the same, after adapters were trained beside it": "base_after_adapters",
        "tuned in full, on the drawn classes": "tuned_on_other_classes",
        "with adapters, on the drawn classes": "adapted_on_other_classes",
        "with adapters merged into it, on the drawn classes": "merged_on_other_classes",
    }
    case, made = found["case"], found["environment"]
    used = ", ".join(f"{package} {made['versions'][package]}" for package in ("jax", "flax", "transformers", "numpy"))
    return [
        "| model | class written, % | class scored highest, % |",
        "|---|--:|--:|",
        *(f"| {what} | {shares(name)} |" for what, name in rows.items()),
        "",
        f"{case['papers']} papers, prompts of {found['prompt_tokens']['longest']} tokens at most; "
        f"{found['parameters']:,} weights, {found['adapter_parameters']:,} in adapters of rank {case['rank']}. "
        f"{found['papers_whose_class_changed']} papers have another class among the drawn ones. Weights of the base "
        f"{'are the same to the last bit' if found['base_bits_unchanged'] else 'CHANGED'} after adapters were trained. "
        f"Greedy decoding with a cache gives {100 * found['tokens_decoded_alike']:.0f} % of the tokens that running "
        f"the whole text anew for each gives ({case['decoded_papers']} papers, {case['decoded_tokens']} tokens). "
        f"Scores of classes differ from those of one text after another by at most "
        f"{found['largest_score_difference']:.1e} nats. "
        f"Tuning took {found['seconds']['tuning']:.0f} s, adapters {found['seconds']['adapters']:.0f} s.",
        "",
        f"{found['date']}, {made['processors']} processors; {used}.",
    ]


def main() -> None:
    keep_freed_memory()
    made = {name: value for name, value in environment().items() if name in ("processors", "versions")}
    found = run(CASE) | {"date": time.strftime("%Y-%m-%d"), "environment": made}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "learning.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END_OF_TABLE)
    readme.write_text("\n".join([before + BEGIN, "", *table(found), "", END_OF_TABLE]) + after, encoding="utf-8")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
