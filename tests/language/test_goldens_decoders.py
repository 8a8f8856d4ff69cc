"""Every causal family against its reference, compiled as for users."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd.language import load
from jaxgkd.language.decoder_network import head_logits

GOLDENS = Path(__file__).parent / "goldens"
FAMILIES = ["llama", "llama3_rope", "mistral", "qwen2", "qwen3", "gemma2", "gpt2", "biogpt"]


@pytest.fixture(scope="module", params=FAMILIES)
def golden(request):
    with np.load(GOLDENS / request.param / "expected.npz") as expected:
        return load(GOLDENS / request.param), dict(expected)


@pytest.mark.parametrize("side", ["right", "left"])
def test_hidden_states_and_logits_are_the_reference(golden, side):
    model, expected = golden
    ids, mask = expected["input_ids"], expected[f"mask_{side}"]
    hidden, real = np.asarray(model.hidden_states(ids, mask)), mask > 0
    assert hidden.shape == expected[f"hidden_{side}"].shape
    np.testing.assert_allclose(hidden[:, real], expected[f"hidden_{side}"][:, real], rtol=0, atol=1e-5)
    logits = np.asarray(model.logits(ids, mask))
    assert logits.shape == (4, 24, 160)
    np.testing.assert_allclose(logits[real], expected[f"logits_{side}"][real], rtol=0, atol=1e-5)


def test_bfloat16_is_within_two_hundredths(request, golden):
    small = load(GOLDENS / request.node.callspec.params["golden"], dtype="bfloat16")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(small.weights()))
    _, expected = golden
    ids, mask = expected["input_ids"], expected["mask_right"]
    hidden, real = small.hidden_states(ids, mask), mask > 0
    assert hidden.dtype == jnp.bfloat16
    logits = head_logits(small.config, small.weights(), hidden[-1])
    assert logits.dtype == jnp.float32

    def distance(values, reference):
        return np.linalg.norm(np.float32(values)[real] - reference[real]) / np.linalg.norm(reference[real])

    for layer, states in enumerate(expected["hidden_right"]):
        assert distance(hidden[layer], states) < 2e-2
    assert distance(logits, expected["logits_right"]) < 2e-2
