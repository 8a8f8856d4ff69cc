import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tokenizers import processors

import jaxgkd
from jaxgkd import language
from jaxgkd.errors import ConfigError, DataError, StoreError
from jaxgkd.teachers import Store, StoreWriter, extract
from jaxgkd.teachers import extract as extract_function
from jaxgkd.teachers.token_batches import tokenizer_hash
from tests.teachers.letters import letters

extract_module = sys.modules[extract_function.__module__]


class TinyTeacher(nnx.Module):
    """Two mixing layers: every state depends on all real tokens of its prompt, and on padding if that leaks in."""

    def __init__(self, seed=0):
        self.width, self.n_layers, self.max_tokens = 6, 2, 40
        self.embedding = nnx.Param(jax.random.normal(jax.random.key(seed), (60, 6)))
        self.kernels = nnx.Param(jax.random.normal(jax.random.key(seed + 1), (2, 6, 6)))

    def pooled_states(self, input_ids, attention_mask, *, layers, pooling):
        weight = attention_mask[..., None] / attention_mask.sum(axis=1)[:, None, None]
        states = [self.embedding[...][input_ids]]
        for kernel in self.kernels[...]:
            states.append(jnp.tanh(states[-1] @ kernel + (states[-1] * weight).sum(axis=1, keepdims=True)))
        chosen = jnp.stack([states[layer] for layer in layers], axis=1)
        if pooling == "mean":
            return (chosen * weight[:, None]).sum(axis=2)
        last = attention_mask.sum(axis=1) - 1
        return chosen[:, :, 0] if pooling == "cls" else chosen[jnp.arange(len(last)), :, last]


def words(n, seed=0, longest=30):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdefghijklmnop"), size=rng.integers(0, longest))) for _ in range(n)]


def arguments(prompts, **changes):
    return {
        "item_ids": [f"item-{i}" for i in range(len(prompts))],
        "data_sha256": "the data",
        "teacher_id": "tiny",
        "weights_hash": "the weights",
        "layers": (0, -1),
        "pooling": "mean",
        "max_tokens": 24,
        "dtype": "float32",
        "progress": False,
        **changes,
    }


def one_by_one(prompts, max_tokens, *, layers, pooling):
    """The states of each prompt computed alone in float64, without any padding."""
    tokenizer = letters()
    tokenizer.enable_truncation(max_tokens)
    model = TinyTeacher()
    embedding, kernels = (np.asarray(each[...], np.float64) for each in (model.embedding, model.kernels))
    pooled = []
    for prompt in prompts:
        states = [embedding[tokenizer.encode(prompt).ids]]
        for kernel in kernels:
            states.append(np.tanh(states[-1] @ kernel + states[-1].mean(axis=0)))
        pool = {
            "mean": lambda state: state.mean(axis=0),
            "cls": lambda state: state[0],
            "last": lambda state: state[-1],
        }
        pooled.append([pool[pooling](states[layer]) for layer in layers])
    return np.array(pooled)


FEW_TOKENS = (96, 100)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Batches and a price of shapes so small that a few prompts make several of each."""
    monkeypatch.setattr(extract_module, "CPU_TOKENS", FEW_TOKENS)


def test_a_model_is_compiled_once_a_shape_however_often_it_is_asked(tmp_path, monkeypatch):
    traced = []
    pooled_states = TinyTeacher.pooled_states

    def counted(self, input_ids, attention_mask, **kwargs):
        traced.append(input_ids.shape)
        return pooled_states(self, input_ids, attention_mask, **kwargs)

    monkeypatch.setattr(TinyTeacher, "pooled_states", counted)
    model, prompts = TinyTeacher(), words(20, seed=11)
    for name in ("first", "second"):
        # A width of its own keeps programs of other tests out of the count.
        options = arguments(prompts, layers=(1, 0, 1), folder=tmp_path / name, max_tokens=23)
        store = extract(model, letters(), prompts, **options)
    assert sorted(traced) == sorted(tuple(shape) for shape in store.report["shapes"])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_states_are_those_of_each_prompt_alone_in_the_items_order(tmp_path, pooling):
    prompts = words(30)
    store = extract(TinyTeacher(), letters(), prompts, folder=tmp_path, **arguments(prompts, pooling=pooling))
    expected = one_by_one(prompts, 24, layers=(0, 2), pooling=pooling)
    np.testing.assert_allclose(store.as_array(), expected, rtol=0, atol=2e-6)
    assert store.item_ids[3] == "item-3" and store.manifest.layers == (0, 2)
    assert store.manifest.tokenizer_hash == tokenizer_hash(letters())


def test_the_report_counts_what_was_done(tmp_path):
    prompts = ["abc", "b" * 30, "", "abc", "c" * 29, "b" * 31]
    store = extract(TinyTeacher(), letters(), prompts, folder=tmp_path, **arguments(prompts, max_tokens=20))
    report = store.report
    # "abc" twice, and b·30 and b·31 are the same 20 tokens once cut: 5 + 20 + 2 + 20 tokens remain.
    assert (report["n_distinct"], report["n_truncated"], report["n_tokens"]) == (4, 3, 47)
    np.testing.assert_array_equal(store.read([0, 1]), store.read([3, 5]))
    assert report["seconds"] > 0 and report["tokens_per_second"] == pytest.approx(47 / report["seconds"], rel=0.1)
    assert all(b * t <= 96 for b, t in report["shapes"])
    assert (
        report["n_padded_tokens"] >= 47 and report["n_padded_tokens"] % np.gcd.reduce(np.prod(report["shapes"], 1)) == 0
    )


def test_compiled_shapes_are_those_reported(tmp_path):
    compiled = []

    class Counting(TinyTeacher):
        def pooled_states(self, input_ids, attention_mask, **how):
            compiled.append(input_ids.shape)
            return super().pooled_states(input_ids, attention_mask, **how)

    prompts = words(400, longest=38)
    store = extract(Counting(), letters(), prompts, folder=tmp_path, **arguments(prompts, max_tokens=40))
    assert sorted(compiled) == [tuple(shape) for shape in store.report["shapes"]] and 1 < len(compiled) <= 8
    # Short prompts come in larger batches of about as many tokens.
    assert all(48 < b * t <= 96 for b, t in compiled) and len({b for b, _ in compiled}) > 1


def test_a_finished_store_is_found_by_content_and_not_computed_again(tmp_path):
    prompts = words(20)
    first = extract(TinyTeacher(), letters(), prompts, root=tmp_path, **arguments(prompts))

    class Idle(TinyTeacher):
        def pooled_states(self, *args, **how):
            raise AssertionError("computed again")

    again = extract(Idle(), letters(), prompts, root=tmp_path, **arguments(prompts, teacher_id="another name"))
    assert again.folder == first.folder and again.report == first.report
    other = extract(TinyTeacher(), letters(), prompts[::-1], root=tmp_path, **arguments(prompts))
    assert other.folder != first.folder
    np.testing.assert_array_equal(other.as_array(), first.as_array()[::-1])
    damaged = first.folder / "chunk-00000.npy"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    extract(TinyTeacher(), letters(), prompts, root=tmp_path, **arguments(prompts))
    assert damaged.read_bytes() == whole


def test_a_folder_with_something_else_is_refused(tmp_path):
    prompts = words(20)
    extract(TinyTeacher(), letters(), prompts, folder=tmp_path, **arguments(prompts))
    with pytest.raises(StoreError, match="made from other data"):
        extract(TinyTeacher(), letters(), prompts, folder=tmp_path, **arguments(prompts, data_sha256="others"))
    with pytest.raises(StoreError, match="made from other prompts"):
        extract(TinyTeacher(), letters(), words(20, seed=1), folder=tmp_path, **arguments(prompts))


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"layers": (3,)}, ConfigError, r"field 'layers': \(3,\) is not within 0\.\.2"),
        ({"layers": ()}, ConfigError, "field 'layers'"),
        ({"max_tokens": 41}, ConfigError, "field 'max_tokens': the model reads 40 tokens"),
        ({"max_tokens": 2}, ConfigError, "field 'max_tokens': 2 tokens hold no text; allow more than 2"),
        ({"item_ids": ["a"]}, ConfigError, "field 'item_ids': 1 ids for 5 prompts"),
        ({"dtype": "int8"}, ConfigError, "field 'dtype'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, error, message):
    prompts = words(5)
    with pytest.raises(error, match=message):
        extract(TinyTeacher(), letters(), prompts, folder=tmp_path / "new", **arguments(prompts, **changes))
    assert not (tmp_path / "new").exists()


def test_a_prompt_without_any_token_is_refused(tmp_path):
    bare = letters()
    bare.post_processor = processors.Sequence([])
    with pytest.raises(DataError, match="prompt 1 has no token"):
        extract(TinyTeacher(), bare, ["a", ""], folder=tmp_path, **arguments(["a", ""]))


def test_values_beyond_float16_are_refused_by_item(tmp_path):
    model = TinyTeacher()
    model.embedding[...] = model.embedding[...].at[letters().encode("z").ids[1]].mul(1e6)
    prompts = ["abc", "z", "bc"]
    with pytest.raises(StoreError, match="of item 'item-1' is not finite as float16"):
        extract(model, letters(), prompts, folder=tmp_path, **arguments(prompts, dtype="float16", layers=(0,)))


def test_the_model_and_the_tokenizer_are_left_as_they_were(tmp_path):
    model, tokenizer = TinyTeacher(), letters()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    before = tokenizer.to_str()
    extract(model, tokenizer, ["abcdef"], folder=tmp_path, **arguments(["abcdef"]))
    assert tokenizer.to_str() == before and tokenizer_hash(tokenizer) == tokenizer_hash(letters())
    np.testing.assert_array_equal(model.embedding[...], TinyTeacher().embedding[...])


def test_progress_is_silent_without_a_terminal_and_lines_go_to_who_asks(tmp_path, capfd, monkeypatch):
    prompts = words(60)
    extract(TinyTeacher(), letters(), prompts, folder=tmp_path / "a", **arguments(prompts, progress=True))
    assert capfd.readouterr() == ("", "")
    lines = []
    monkeypatch.setattr(extract_module, "SECONDS_BETWEEN_LINES", 0.0)
    store = extract(
        TinyTeacher(), letters(), prompts, folder=tmp_path / "b", on_line=lines.append, **arguments(prompts)
    )
    total = f"{store.report['n_tokens']:,}"
    assert lines[-1].startswith(f"{total} of {total} tokens") and lines[-1].endswith(" 0 s left") and len(lines) > 3
    monkeypatch.setattr(extract_module, "Console", lambda stderr: terminal)
    terminal = extract_module.Progress(console=None).console.__class__(force_terminal=True, stderr=True)
    extract(TinyTeacher(), letters(), prompts, folder=tmp_path / "c", **arguments(prompts, progress=True))
    assert "tokens/s" in capfd.readouterr().err


def test_a_checkpoint_s_states_are_those_of_each_prompt_alone(bert_folder, tmp_path):
    model, tokenizer = language.load(bert_folder), language.load_tokenizer(bert_folder)
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(["graph", "neural", "x", "papers;"], size=n)) for n in [3, 0, 30, 14, 50] * 6]
    store = extract(model, tokenizer, prompts, folder=tmp_path, **arguments(prompts, max_tokens=40, layers=(0, 2)))
    ids = tokenizer.encode(prompts, max_tokens=40)
    assert store.report["n_truncated"] > 0 and len(store.report["shapes"]) > 1
    # The first five are one of each length.
    for i, alone in enumerate(ids[:5]):
        mask = np.ones((1, len(alone)), np.int32)
        expected = model.pooled_states(jnp.array(alone[None]), jnp.array(mask), layers=(0, 2), pooling="mean")
        np.testing.assert_allclose(store.read([i]), expected, rtol=0, atol=2e-5)


KILLED_PROMPTS = words(900, seed=5)
KILLED_ARGUMENTS = arguments(KILLED_PROMPTS, dtype="float16")


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    undisturbed = extract(TinyTeacher(), letters(), KILLED_PROMPTS, folder=tmp_path / "whole", **KILLED_ARGUMENTS)
    environment = {**os.environ, "PYTHONPATH": str(Path(jaxgkd.__file__).parents[1])}
    child = subprocess.Popen([sys.executable, __file__, tmp_path / "killed"], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "killed" / "chunk-00002.npy").exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    chunks = sorted(path.name for path in undisturbed.folder.glob("chunk-*.npy"))
    assert len(chunks) > len(list((tmp_path / "killed").glob("chunk-*.npy"))) >= 3
    with pytest.raises(StoreError, match="is not finished"):
        Store.open(tmp_path / "killed")
    first = (tmp_path / "killed" / chunks[0]).stat().st_mtime_ns
    resumed = extract(TinyTeacher(), letters(), KILLED_PROMPTS, folder=tmp_path / "killed", **KILLED_ARGUMENTS)
    assert (tmp_path / "killed" / chunks[0]).stat().st_mtime_ns == first
    for name in [*chunks, "rows.npy", "items.json"]:
        assert (tmp_path / "killed" / name).read_bytes() == (undisturbed.folder / name).read_bytes()
    np.testing.assert_array_equal(resumed.as_array(), undisturbed.as_array())
    assert {**resumed.report, "seconds": 0, "tokens_per_second": 0} == {
        **undisturbed.report,
        "seconds": 0,
        "tokens_per_second": 0,
    }


def test_a_run_can_go_on_with_other_batches(tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    written = SimpleNamespace(chunks=0)
    real_write = StoreWriter.write

    def write_two(self, *args, **kwargs):
        if written.chunks == 2:
            raise Stopped
        written.chunks += 1
        real_write(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", write_two)
        with pytest.raises(Stopped):
            extract(TinyTeacher(), letters(), KILLED_PROMPTS, folder=tmp_path, **KILLED_ARGUMENTS)
    changed = {**KILLED_ARGUMENTS, "batch_tokens": 200}
    store = extract(TinyTeacher(), letters(), KILLED_PROMPTS, folder=tmp_path, **changed)
    expected = one_by_one(KILLED_PROMPTS[:40], 24, layers=(0, 2), pooling="mean")
    np.testing.assert_allclose(store.read(np.arange(40)), expected, rtol=0, atol=2e-3)


if __name__ == "__main__":
    # The run that test_a_killed_run_goes_on_to_the_same_bytes kills, slowed down so that it is met half way.
    extract_module.CPU_TOKENS = FEW_TOKENS
    quick_write = StoreWriter.write
    StoreWriter.write = lambda self, *args, **kwargs: (quick_write(self, *args, **kwargs), time.sleep(0.3))[0]
    extract(TinyTeacher(), letters(), KILLED_PROMPTS, folder=Path(sys.argv[1]), **KILLED_ARGUMENTS)
