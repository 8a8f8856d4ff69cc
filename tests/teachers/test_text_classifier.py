import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.optimize import minimize

from jaxgkd.teachers.hops import TextEncoder
from jaxgkd.teachers.text_classifier import PENALTIES, _probe, fit_classifier
from jaxgkd.teachers.text_tuning import TuneSettings, untouched_features
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


def test_the_first_head_is_the_logistic_regression_that_knows_best_how_certain_to_be():
    random = np.random.default_rng(0)
    features = random.normal(2, [0.1, 1, 5, 1], size=(90, 4))
    labels = (features[:, 1] + random.normal(size=90) > 2).astype(np.int32)
    seen, valid = np.arange(90) % 3 == 0, np.arange(90) % 3 == 1
    inputs = (features - features[seen].mean(axis=0)) / features[seen].std(axis=0)

    def errors(flat, rows):
        logits = (inputs @ flat[:8].reshape(4, 2) + flat[8:])[rows]
        return (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(rows.sum()), labels[rows]]).mean()

    heads = [
        minimize(lambda flat, c=c: errors(flat, seen) + 0.5 * c * (flat[:8] ** 2).sum() / seen.sum(), np.zeros(10)).x
        for c in PENALTIES
    ]
    scores = [errors(head, valid) for head in heads]
    best = heads[int(np.argmin(scores))]
    # One of the inner penalties, well apart from its neighbours, or nothing would be chosen here.
    assert 0 < np.argmin(scores) < len(scores) - 1 and np.diff(np.sort(scores))[0] > 1e-3
    wanted = inputs @ best[:8].reshape(4, 2) + best[8:]
    kernel, bias = _probe(jnp.asarray(features, jnp.float32), labels, seen, valid, 2)
    logits = np.asarray(features @ kernel + bias)
    np.testing.assert_allclose(np.diff(logits, axis=1), np.diff(wanted, axis=1), atol=0.02)


def test_what_is_kept_is_the_best_epoch_and_the_lower_layers_have_no_part_in_it(encoder, states):
    upper = upper_part(encoder.model, 1)
    before = {name: np.array(values) for name, values in upper.weights()["layers"].items()}
    seen, valid = np.arange(40) < 25, np.arange(40) >= 25
    settings = TuneSettings(tuned_layers=1, epochs=2, batch_size=8)
    fitted, report = fit_classifier(
        states,
        upper,
        untouched_features(upper, states),
        LABELS,
        seen,
        valid,
        2,
        settings,
        seed=(0, 0),
        on_progress=lambda epoch, score: None,
    )
    for name, values in upper.weights()["layers"].items():
        assert np.array_equal(before[name], values)
    # Embeddings and lower layers are not among what is trained.
    trained = nnx.to_pure_dict(fitted.params)
    assert trained.keys() == {"upper", "head_kernel", "head_bias"} and not trained["upper"].get("embeddings")
    assert all(values.shape == before[name].shape for name, values in trained["upper"]["layers"].items())
    rows = np.arange(len(states.tokens.lengths))
    _, logits = fitted.read_out(states, rows)
    accuracy = (logits[states.tokens.rows].argmax(axis=1) == LABELS)[valid].mean()
    scores = report["valid_accuracy"]
    assert accuracy == pytest.approx(max(scores)) and scores.index(max(scores)) == report["best_epoch"]
