import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.text_classifier import _smoothed_cross_entropy
from jaxgkd.teachers.text_tuning import (
    TextClassifier,
    _optimizer,
    _Schedule,
    _step,
    _training_batches,
    untouched_features,
)
from jaxgkd.teachers.token_states import token_states, upper_part

TEXTS = [f"{'graph ' * (1 + i % 5)}{'network' if i % 3 else 'teacher'} {'abcdefgh'[i % 8]}" for i in range(40)]
LABELS = np.array([i % 3 > 0 for i in range(40)], np.int32)

pytestmark = pytest.mark.usefixtures("own_cache")  # compiled without optimisation, which takes most of the time


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder.load(str(bert_folder))


@pytest.fixture(scope="module")
def states(encoder, tmp_path_factory):
    return token_states(encoder, TEXTS, layer=1, max_tokens=12, root=tmp_path_factory.mktemp("stores"))


def test_untouched_features_are_the_pooled_states_of_the_model(encoder, states):
    features = untouched_features(upper_part(encoder.model, 1), states)[states.tokens.rows]
    batch = encoder.tokenizer.batch(TEXTS, max_tokens=12)
    wanted = encoder.model.pooled_states(*map(jnp.asarray, batch), layers=(2,), pooling="mean")[:, 0]
    np.testing.assert_allclose(features, wanted, rtol=0, atol=5e-3)


def test_training_batches_hold_every_node_once_and_each_epoch_another_order(states):
    nodes, random = np.arange(3, 38), np.random.default_rng(0)
    orders = []
    for _ in range(2):
        batches = list(_training_batches(states, nodes, LABELS, 8, random))
        assert len(batches) == 5
        seen = []
        for values, mask, labels, weights in batches:
            assert values.shape == (8, mask.shape[1], 16) and weights.shape == labels.shape == (8,)
            real = weights > 0
            seen += zip(mask[real].sum(axis=1).tolist(), labels[real].tolist(), strict=True)
        lengths = states.tokens.lengths[states.tokens.rows[nodes]].tolist()
        assert sorted(seen) == sorted(zip(lengths, LABELS[nodes].tolist(), strict=True))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_a_step_does_not_see_what_fills_the_batch(encoder, states):
    schedule = _Schedule(learning_rate=0.01, weight_decay=0.01, warmup=0.1, label_smoothing=0.1, steps=10)
    graphdef, params = nnx.split(TextClassifier(upper_part(encoder.model, 1), 2), nnx.Param)
    random, results = np.random.default_rng(0), []
    values, mask = states.batch(np.arange(6), (9, 12))
    weights = (np.arange(9) < 6).astype(np.float32)
    for _ in range(2):
        values[6:], mask[6:] = random.normal(size=(3, 12, 16)), 1
        labels = np.r_[0, 1, 0, 1, 0, 1, random.integers(2, size=3)].astype(np.int32)
        moments = _optimizer(schedule).init(params)
        batch = (values.copy(), mask.copy(), labels, weights)
        new, _, loss = _step(graphdef, _smoothed_cross_entropy, params, moments, schedule, batch)
        results.append((new, loss))
    assert float(results[0][1]) == pytest.approx(np.log(2), rel=1e-5)
    moved = nnx.to_pure_dict(results[0][0])["upper"]["layers"]
    assert {name: values.shape[0] for name, values in moved.items()} == dict.fromkeys(moved, 1)
    first = nnx.to_pure_dict(results[0][0])["head_kernel"]
    np.testing.assert_allclose(first, nnx.to_pure_dict(results[1][0])["head_kernel"], rtol=1e-4, atol=1e-6)


def test_the_step_size_rises_then_falls_to_zero_and_only_kernels_decay():
    params = {"up_kernel": jnp.ones(2), "up_bias": jnp.ones(2)}
    optimizer = _optimizer(_Schedule(learning_rate=0.5, weight_decay=0.1, warmup=0.2, label_smoothing=0.0, steps=20))
    moments, decayed = optimizer.init(params), []
    for _ in range(20):
        updates, moments = optimizer.update({name: jnp.zeros(2) for name in params}, moments, params)
        assert not updates["up_bias"].any()
        decayed.append(-float(updates["up_kernel"][0]) / 0.1)
    wanted = [0.5 * min((step + 1) / 4, (20 - step) / 16) for step in range(20)]
    np.testing.assert_allclose(decayed, wanted, rtol=1e-5)
