from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.language import LoraConfig, TuningSettings, generate, initialise, load, merge, tune_adapters, tune_model
from jaxgkd.language.instruction import instruction_batch
from jaxgkd.language.lora import initial_adapters, linear_maps
from jaxgkd.language.tuning import TuningState, optimiser_of, tuning_step

GOLDENS = Path(__file__).parent / "goldens"
LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
END = 1
CLASSES = [[2, 3, END], [4, END], [2, 5, 6, END], [7, END]]
GENERATOR = np.random.default_rng(0)
PROMPTS = [GENERATOR.integers(8, 64, size=GENERATOR.integers(5, 14)) for _ in range(32)]
FIRST, SECOND = GENERATOR.integers(4, size=(2, 32))
SETTINGS = TuningSettings(epochs=40, batch_size=16, learning_rate=5e-3, multiple=32)


def pairs_of(labels):
    return [(prompt, np.array(CLASSES[label])) for prompt, label in zip(PROMPTS, labels, strict=True)]


@pytest.fixture(scope="module")
def base():
    return tune_model(initialise(LLAMA, key=jax.random.key(0)), pairs_of(FIRST), SETTINGS, key=jax.random.key(1))


def right_answers(model, labels):
    """Share of prompts that the model, left to itself, answers with the class and the end."""
    width = max(map(len, PROMPTS))
    ids, mask = np.zeros((2, len(PROMPTS), width), int)
    for row, prompt in enumerate(PROMPTS):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
    said = generate(model, ids, mask, max_new_tokens=4, stop_tokens=(END,))
    answers = [list(map(int, row[: list(row).index(END) + 1])) if END in row else [] for row in np.asarray(said.tokens)]
    return np.mean([answer == CLASSES[label] for answer, label in zip(answers, labels, strict=True)])


def test_a_random_decoder_learns_its_pairs_and_adapters_learn_others_beside_it(base):
    assert right_answers(base, FIRST) == 1
    assert right_answers(base, SECOND) < 0.6
    before = jax.tree.map(np.array, base.weights())
    lora = LoraConfig(rank=8, dropout=0.05, targets=tuple(linear_maps(base)))
    losses = []
    adapters = tune_adapters(
        base, pairs_of(SECOND), SETTINGS, lora, key=jax.random.key(2), on_epoch=lambda epoch, loss: losses.append(loss)
    )
    assert len(losses) == 40 and losses[-1] < 0.5 * losses[0]
    assert right_answers(merge(base, adapters, lora), SECOND) > 0.9
    jax.tree.map(np.testing.assert_array_equal, base.weights(), before)
    assert right_answers(base, FIRST) == 1


def test_training_again_from_the_same_key_is_the_same_to_the_last_bit():
    begin = initialise(LLAMA, key=jax.random.key(0))
    weights = jax.tree.map(np.array, begin.weights())
    settings = TuningSettings(epochs=2, batch_size=8, noise=5.0, learning_rate=1e-3)
    first, second = (tune_model(begin, pairs_of(FIRST), settings, key=jax.random.key(3)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first.weights(), second.weights())
    jax.tree.map(np.testing.assert_array_equal, begin.weights(), weights)
    assert first.config_json == begin.config_json


@pytest.fixture(scope="module")
def steps():
    """A function that runs steps of plain gradient descent over batches, and what it begins with."""
    model = initialise(LLAMA, key=jax.random.key(0))
    lora = LoraConfig(rank=2, dropout=0.2)
    adapters = initial_adapters(model, lora, key=jax.random.key(1))
    adapters = jax.tree.map(lambda array: array + 0.05, adapters)

    # Made once: a step is compiled for the very optimiser it is given.
    optimisers = {1: optax.sgd(0.1), 2: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()}

    def run(batches, *, with_lora=True, every=1, seed=0, **settings):
        optimiser = optimisers[every]
        trained = jax.tree.map(jnp.copy, adapters if with_lora else model.weights())
        state, frozen = TuningState(trained, optimiser.init(trained)), model.weights() if with_lora else {}
        losses = []
        for batch in batches:
            options = {"lora": LoraConfig(rank=2, dropout=0.2 if settings.get("noise") else 0.0) if with_lora else None}
            state, loss = tuning_step(
                state,
                frozen,
                batch,
                jax.random.key(seed),
                config=model.config,
                settings=TuningSettings(**settings),
                optimiser=optimiser,
                **options,
            )
            losses.append(float(loss))
        return state.trained, losses

    return run


def batches_of(*sizes, rows=None):
    pairs, batches, start = pairs_of(FIRST), [], 0
    for size in sizes:
        batches.append(
            instruction_batch(pairs[start : start + size], max_tokens=64, multiple=32, rows=rows, response_tokens=4)
        )
        start += size
    return batches


@pytest.mark.parametrize("with_lora", [False, True])
def test_accumulated_gradients_are_those_of_one_large_batch(steps, with_lora):
    whole, _ = steps(batches_of(16), with_lora=with_lora)
    parts, _ = steps(batches_of(8, 8), with_lora=with_lora, every=2)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_empty_rows_do_not_count(steps):
    whole, losses = steps(batches_of(6))
    padded, losses_padded = steps(batches_of(6, rows=8))
    np.testing.assert_allclose(losses, losses_padded, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(padded), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_rematerialisation_gives_the_same_step(steps):
    plain, frugal = steps(batches_of(8))[0], steps(batches_of(8), rematerialise=True)[0]
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(frugal), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_noise_and_dropout_hang_on_the_key(steps):
    batch = batches_of(8)
    _, quiet = steps(batch)
    _, noisy = steps(batch, noise=20.0)
    _, other = steps(batch, noise=20.0, seed=1)
    assert len({quiet[0], noisy[0], other[0]}) == 3
    assert steps(batch, noise=20.0)[1] == noisy


def test_one_program_serves_all_steps(steps):
    tuning_step.clear_cache()
    steps(batches_of(8, 8, 8))
    assert tuning_step._cache_size() == 1


@pytest.mark.parametrize("updates", [1, 2, 40])
def test_the_rate_rises_and_falls_and_is_never_nothing(updates):
    optimiser = optimiser_of(TuningSettings(learning_rate=0.5, warmup=0.1, clip=1e9), updates)
    weights = jnp.zeros(())
    state, sizes = optimiser.init(weights), []
    for _ in range(updates):
        # The first moments of equal gradients cancel out of Adam's update: what is left is the rate.
        change, state = optimiser.update(jnp.ones(()), state, weights)
        sizes.append(-float(change))
    top = int(np.argmax(sizes))
    assert sizes[top] == pytest.approx(0.5, rel=1e-4) and top == max(1, round(0.1 * updates)) - 1
    assert min(sizes) > 1e-4
    assert sizes == sorted(sizes[: top + 1]) + sorted(sizes[top + 1 :], reverse=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 0), ("accumulate", 0), ("learning_rate", 0.0), ("warmup", 1.5), ("noise", -1.0)],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError) as caught:
        TuningSettings(**{field: value})
    assert caught.value.field == field


def test_pairs_that_do_not_fit_the_model_are_refused(base):
    for pairs, message in [
        ([], "no pairs"),
        ([([3], [64])], "pair number 0 holds a token id outside"),
        ([([3], [4]), ([-1], [4])], "pair number 1 holds a token id outside"),
        ([([3] * 64, [4])], "65 tokens long and 64 fit"),
        ([([3], [])], "response of pair number 0 is empty"),
    ]:
        with pytest.raises(DataError, match=message):
            tune_model(base, pairs, SETTINGS, key=jax.random.key(0))


def test_half_precision_is_for_frozen_weights():
    model = load(GOLDENS / "llama", dtype="bfloat16")
    pairs = pairs_of(FIRST)[:4]
    settings = TuningSettings(epochs=1, batch_size=4)
    with pytest.raises(ConfigError, match="load the model in float32"):
        tune_model(model, pairs, settings, key=jax.random.key(0))
    adapters = tune_adapters(model, pairs, settings, LoraConfig(rank=2), key=jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters)} == {jnp.dtype("float32")}
    assert all(np.abs(adapter["b"]).max() > 0 for adapter in adapters.values())
