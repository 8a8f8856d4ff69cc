import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.text_tasks import PENALTIES, _probe, fit_tasks, smoothed_binary, squared
from jaxgkd.teachers.text_tuning import TuneSettings, untouched_features
from jaxgkd.teachers.token_states import token_states, upper_part

pytestmark = pytest.mark.usefixtures("own_cache")


def test_losses_are_means_over_the_labels_that_are_there():
    outputs, targets = np.array([[0.5, -1.0], [2.0, 3.0]]), np.array([[1.0, np.nan], [0.0, 1.0]])
    log = lambda p: -np.log(p)  # noqa: E731
    p = 1 / (1 + np.exp(-outputs))
    wanted = [log(p[0, 0]), (log(1 - p[1, 0]) + log(p[1, 1])) / 2]
    arrays = jnp.asarray(outputs), jnp.asarray(targets)
    np.testing.assert_allclose(smoothed_binary(*arrays, 0.0), wanted, rtol=1e-5)
    np.testing.assert_allclose(squared(*arrays, 0.0), [0.25, (4.0 + 4.0) / 2], rtol=1e-5)
    # Smoothed by 0.2, a positive counts as 0.9 of one.
    np.testing.assert_allclose(smoothed_binary(*arrays, 0.2)[0], 0.9 * log(p[0, 0]) + 0.1 * log(1 - p[0, 0]), rtol=1e-5)
    assert float(squared(jnp.ones((1, 1)), jnp.full((1, 1), jnp.nan), 0.0)[0]) == 0.0


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_first_layer_is_the_best_penalised_fit_of_each_task(kind):
    random = np.random.default_rng(0)
    features = random.normal(1, [0.2, 1, 4], size=(90, 3))
    noise = random.normal(size=(90, 2)) * [0.5, 3.0]
    targets = features[:, 1:] * [1.0, 0.25] - 1 + noise
    if kind == "classification":
        targets = (targets > 0).astype(float)
    targets[::7, 0] = np.nan
    seen, valid = np.arange(90) % 3 == 0, np.arange(90) % 3 == 1
    inputs = (features - features[seen].mean(axis=0)) / features[seen].std(axis=0)
    kernel, bias = _probe(jnp.asarray(features, jnp.float32), jnp.asarray(targets, jnp.float32), seen, valid, kind)
    found = features @ np.asarray(kernel) + np.asarray(bias)
    for task in range(2):
        known = ~np.isnan(targets[:, task])

        def errors(flat, rows, task=task, known=known):
            rows, outputs = rows & known, inputs @ flat[:3] + flat[3]
            y = targets[rows, task]
            if kind == "regression":
                return np.square(outputs[rows] - y).mean()
            return (np.logaddexp(0, outputs[rows]) - y * outputs[rows]).mean()

        n = (seen & known).sum()
        heads = [
            minimize(lambda flat, c=c: errors(flat, seen) + 0.5 * c * (flat[:3] ** 2).sum() / n, np.zeros(4)).x  # noqa: B023
            for c in PENALTIES
        ]
        best = heads[int(np.argmin([errors(head, valid) for head in heads]))]
        np.testing.assert_allclose(found[:, task], inputs @ best[:3] + best[3], atol=0.03)


def test_tuning_keeps_the_epoch_that_validates_best_and_does_not_read_hidden_labels(bert_folder, tmp_path):
    encoder = TextEncoder.load(str(bert_folder))
    texts = [f"{'graph ' * (1 + i % 4)}{'network' if i % 3 else 'teacher'}" for i in range(24)]
    targets = np.stack([[float(i % 3 > 0), float(i % 2)] for i in range(24)])
    targets[5] = np.nan
    states = token_states(encoder, texts, layer=1, max_tokens=12, root=tmp_path)
    upper = upper_part(encoder.model, 1)
    seen, valid = np.arange(24) < 14, (np.arange(24) >= 14) & (np.arange(24) < 20)

    def tuned(targets):
        return fit_tasks(
            states,
            upper,
            untouched_features(upper, states),
            targets,
            seen,
            valid,
            "classification",
            lambda outputs: float(((outputs > 0) == targets[valid]).mean()),
            TuneSettings(tuned_layers=1, epochs=2, batch_size=8, learning_rate=1e-3),
            seed=(0, 0),
            on_progress=lambda epoch, score: None,
        )

    one = tuned(targets)
    assert one.scores[one.best_epoch][0] == max(score for score, _ in one.scores) and len(one.scores) == 3
    other = targets.copy()
    other[20:] = 1 - other[20:]
    rows = np.arange(len(states.tokens.lengths))
    for first, second in zip(one.read_out(states, rows), tuned(other).read_out(states, rows), strict=True):
        np.testing.assert_array_equal(first, second)
