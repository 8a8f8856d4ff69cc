"""The contract that every loss keeps: masks, padding, order, constant teachers, jit, vmap and mapped axes."""

import os
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgkd import losses

N, WIDTH = 12, 5
LABELS = np.random.default_rng(0).integers(-1, 3, N).astype(np.int32)
SENDERS, RECEIVERS = np.random.default_rng(1).integers(0, N, (2, 40)).astype(np.int32)


def plain(loss, student, teacher, *, ids, **settings):
    return loss(student, teacher, **settings)


def labelled(loss, student, teacher, *, ids, **settings):
    return loss(student, teacher, labels=jnp.array(LABELS)[ids], **settings)


def on_graph(loss, student, teacher, *, ids, **settings):
    place = jnp.argsort(ids)
    return loss(student, teacher, place[SENDERS], place[RECEIVERS], **settings)


def atoms_of_one(loss, student, teacher, *, ids, **settings):
    """Every item is a molecule of one atom."""
    return loss(student, teacher, jnp.ones_like(ids), **settings)


# One value per item from student [n, d], teacher [n, d] and ids [n], which say what item each row is.
PER_ITEM = {
    "soft_target_kl": partial(plain, partial(losses.soft_target_kl, temperature=2.0)),
    "decoupled_kl": partial(labelled, losses.decoupled_kl),
    "hidden_mse": partial(plain, losses.hidden_mse),
    "hidden_cosine": partial(plain, losses.hidden_cosine),
    "molecule_alignment": partial(plain, losses.molecule_alignment),
    "molecule_alignment, l1": partial(plain, partial(losses.molecule_alignment, distance="l1")),
    "atom_alignment": partial(atoms_of_one, partial(losses.atom_alignment, coordinate="size", distance="cosine")),
    "info_nce": partial(plain, losses.info_nce),
    "info_nce, labels": partial(labelled, partial(losses.info_nce, temperature=0.5)),
    "info_nce, labels, blocks": partial(labelled, partial(losses.info_nce, temperature=0.5, block_size=5)),
    "info_nce, cold blocks": partial(plain, partial(losses.info_nce, temperature=0.02, block_size=5)),
    "relational_distance": partial(plain, losses.relational_distance),
    "relational_angle": partial(plain, losses.relational_angle),
    "relational_angle, blocks": partial(plain, partial(losses.relational_angle, block_size=5)),
    "similarity_preserving": partial(plain, losses.similarity_preserving),
    "similarity_preserving, blocks": partial(plain, partial(losses.similarity_preserving, block_size=5)),
    "local_structure": partial(on_graph, losses.local_structure),
}
PER_SET = {"linear_cka": partial(plain, losses.linear_cka)}
ALL = PER_ITEM | PER_SET
GATHERING = [name for name in ALL if name.startswith(("info_nce", "relational", "similarity", "linear_cka"))]


def batches():
    """Five batches that are worked on together under ``vmap``, each (student, teacher, where, ids)."""
    random = np.random.default_rng(2)
    student, teacher = random.normal(size=(2, N, WIDTH)).astype(np.float32)
    where, ids, order = np.arange(N) % 4 != 1, np.arange(N, dtype=np.int32), random.permutation(N).astype(np.int32)
    rubbish = np.where(ids % 3 == 0, np.nan, np.where(ids % 3 == 1, np.inf, 1e3))[:, None].astype(np.float32)
    halves = np.repeat(np.array([[0.0], [1.0]], np.float32), N // 2, axis=0) * np.ones(WIDTH, np.float32)
    return {
        "clean": (student, teacher, where, ids),
        "rubbish": (*(np.where(where[:, None], array, rubbish) for array in (student, teacher)), where, ids),
        "permuted": tuple(array[order] for array in (student, teacher, where, ids)),
        "nothing left": (student, teacher, np.zeros(N, bool), ids),
        "equal and zero": (halves, np.zeros_like(teacher), where, ids),
    }


BATCHES = batches()


@cache
def results(name):
    """For each batch the values and the gradients of student, teacher and teacher held constant.

    All tests read the same compiled run, for compiling is what they spend their time on.
    """

    def of_sum(student, teacher, where, ids, stop_teacher_gradient):
        settings = dict(where=where, ids=ids, stop_teacher_gradient=stop_teacher_gradient)
        values = ALL[name](student, teacher, **settings)
        return jnp.sum(values), values

    def outputs(*batch):
        (_, values), gradients = jax.value_and_grad(of_sum, (0, 1), has_aux=True)(*batch, False)
        return values, *gradients, jax.grad(of_sum, 1, has_aux=True)(*batch, True)[0]

    stacked = [np.stack(arrays) for arrays in zip(*BATCHES.values(), strict=True)]
    run = jax.jit(jax.vmap(outputs))(*stacked)
    return {batch: [np.asarray(array[i]) for array in run] for i, batch in enumerate(BATCHES)}


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ALL)
def test_vmap_and_half_precision_change_nothing(name):
    student, teacher, where, ids = map(jnp.array, BATCHES["clean"])
    rounded = [array.astype(jnp.bfloat16) for array in (student, teacher)]
    widened = [array.astype(jnp.float32) for array in rounded]
    pairs = [(student, teacher), widened, rounded]
    alone, of_widened, of_rounded = jax.jit(lambda: [ALL[name](*pair, where=where, ids=ids) for pair in pairs])()
    close(results(name)["clean"][0], alone)
    assert of_rounded.dtype == jnp.float32
    close(of_rounded, of_widened)


@pytest.mark.parametrize("name", ALL)
def test_masked_items_take_no_part(name):
    """They have value 0 and gradient 0 and change no one else's, whatever they hold."""
    where = BATCHES["clean"][2]
    for one, other in zip(results(name)["rubbish"][:3], results(name)["clean"][:3], strict=True):
        close(one, other)
        if one.ndim:
            assert not np.any(one[~where])
            assert np.any(one[where])


@pytest.mark.parametrize("name", ALL)
def test_nothing_left_gives_zero(name):
    assert not any(np.any(array) for array in results(name)["nothing left"])


@pytest.mark.parametrize("name", ALL)
def test_order_does_not_matter(name):
    order = BATCHES["permuted"][3]
    for one, other in zip(results(name)["permuted"], results(name)["clean"], strict=True):
        close(one, other[order] if other.ndim else other)


@pytest.mark.parametrize("name", ALL)
def test_equal_items_and_zero_vectors_have_finite_gradients(name):
    """Lengths and distances of 0 are where square roots and divisions go wrong."""
    assert all(np.all(np.isfinite(array)) for array in results(name)["equal and zero"])


@pytest.mark.parametrize("name", ALL)
def test_the_teacher_is_constant_unless_asked_for(name):
    _, _, gradient, constant = results(name)["clean"]
    assert np.any(gradient)
    assert not np.any(constant)


@pytest.mark.parametrize("name", GATHERING)
def test_a_mapped_axis_is_one_large_batch(name):
    """Three shards under ``vmap`` with a named axis give what all items give at once."""

    def values(student, teacher, where, ids):
        return ALL[name](student, teacher, where=where, ids=ids, axis_name="devices")

    shards = [jnp.reshape(array, (3, N // 3, *array.shape[1:])) for array in BATCHES["clean"]]
    sharded = jax.jit(jax.vmap(values, axis_name="devices"))(*shards)
    expected = results(name)["clean"][0]
    close(sharded.reshape(-1) if expected.ndim else sharded, expected if expected.ndim else np.full(3, expected))


def run(*arguments):
    """A fresh Python that finds the same jaxgkd."""
    environment = os.environ | {"PYTHONPATH": str(Path(losses.__file__).parents[2])}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_imports_are_light():
    heavy = "{'flax', 'transformers', 'rdkit', 'jraph'}"
    assert run("-c", f"import sys, jaxgkd.losses; print(*{heavy} & set(sys.modules))") == []


def test_shard_map_on_four_devices():
    """In a process of its own, since the number of devices is fixed when jax starts."""
    names = ["dense", "blocks", "linear_cka", "similarity_preserving", "distance", "angle"]
    assert run(str(Path(__file__).with_name("on_four_devices.py"))) == names
