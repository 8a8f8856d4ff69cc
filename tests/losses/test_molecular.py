from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgkd import losses

# Compiled as one program each: operation by operation the same tests take five times as long.
STATIC = ("distance", "stop_teacher_gradient")
molecule_alignment = jax.jit(losses.molecule_alignment, static_argnames=STATIC)
atom_alignment = jax.jit(losses.atom_alignment, static_argnames=(*STATIC, "coordinate"))

DISTANCES, COORDINATES = ("mse", "l1", "cosine"), {"none": 0, "mean": 1, "size": 2}
# The third molecule has no atoms, two atoms of padding follow the last one.
SIZES, N, WIDTH, LONGEST = np.array([3, 1, 0, 5, 2], np.int32), 13, 4, 7
STARTS = np.cumsum(SIZES) - SIZES
WHERE = np.array([True, True, True, False, True])


def distances(student, teacher, distance):
    student, teacher = np.float64(student), np.float64(teacher)
    match distance:
        case "mse":
            return np.mean((student - teacher) ** 2, axis=-1)
        case "l1":
            return np.mean(np.abs(student - teacher), axis=-1)
    lengths = np.linalg.norm(student, axis=-1) * np.linalg.norm(teacher, axis=-1)
    return 1 - np.sum(student * teacher, axis=-1) / lengths


def atom_oracle(student, teacher, distance, coordinate):
    """One molecule after another, in float64."""
    values = []
    for start, size in zip(STARTS, SIZES, strict=True):
        atoms = slice(start, start + size)
        total = distances(student[atoms], teacher[atoms], distance).sum()
        values.append(total / max(size, 1) ** COORDINATES[coordinate])
    return np.array(values)


def as_rows(flat, longest=LONGEST, fill=0.0):
    rows = np.full((len(SIZES), longest, flat.shape[-1]), fill, flat.dtype)
    for row, start, size in zip(rows, STARTS, SIZES, strict=True):
        row[:size] = flat[start : start + size]
    return rows


@pytest.fixture
def atoms(normal):
    return normal(0, N, WIDTH), 2.0 * normal(0, N, WIDTH) + normal(1, N, WIDTH) + np.float32(1)


@pytest.mark.parametrize("distance", DISTANCES)
def test_molecule_alignment_is_its_equation_in_every_layer(distance, normal, check_gradients):
    student, teacher = normal(0, 3, 5, WIDTH), normal(1, 3, 5, WIDTH) + np.float32(1)
    expected = distances(student, teacher, distance)
    np.testing.assert_allclose(molecule_alignment(student, teacher, distance=distance), expected, rtol=1e-5)
    masked = molecule_alignment(student, teacher, distance=distance, where=WHERE)
    np.testing.assert_allclose(masked, np.where(WHERE, expected, 0), rtol=1e-5)
    one_layer = molecule_alignment(student[1], teacher[1], distance=distance)
    np.testing.assert_allclose(one_layer, expected[1], rtol=1e-5)
    check_gradients(
        lambda *arrays: molecule_alignment(*arrays, distance=distance, where=WHERE, stop_teacher_gradient=False),
        student,
        teacher,
    )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("coordinate", COORDINATES)
def test_atom_alignment_is_its_equation_in_both_layouts(distance, coordinate, atoms):
    options = {"distance": distance, "coordinate": coordinate}
    expected = atom_oracle(*atoms, distance, coordinate)
    np.testing.assert_allclose(atom_alignment(*atoms, SIZES, **options), expected, rtol=1e-5)
    rows = list(map(as_rows, atoms))
    np.testing.assert_allclose(atom_alignment(*rows, SIZES, **options), expected, rtol=1e-5)
    masked = np.where(WHERE, expected, 0)
    np.testing.assert_allclose(atom_alignment(*atoms, SIZES, where=WHERE, **options), masked, rtol=1e-5)
    np.testing.assert_allclose(atom_alignment(*rows, SIZES, where=WHERE, **options), masked, rtol=1e-5)


@pytest.mark.parametrize(("distance", "coordinate"), [("mse", "none"), ("l1", "size"), ("cosine", "mean")])
@pytest.mark.parametrize("layout", ["flat", "rows"])
def test_gradients_of_atom_alignment_are_finite_differences(distance, coordinate, layout, atoms, check_gradients):
    arrays = atoms if layout == "flat" else list(map(as_rows, atoms))

    def loss(student, teacher):
        options = {"distance": distance, "coordinate": coordinate, "stop_teacher_gradient": False}
        return atom_alignment(student, teacher, SIZES, where=WHERE, **options)

    check_gradients(loss, *arrays)


@pytest.mark.parametrize("distance", DISTANCES)
def test_padding_and_masked_molecules_take_no_part(distance, atoms):
    """Whatever padding holds, values and gradients of the others are those without it, and its own are 0."""
    of_molecule = np.append(np.repeat(np.arange(len(SIZES)), SIZES), [len(SIZES)] * 2)
    dead = np.append(~WHERE, True)[of_molecule]
    rubbish = np.where(np.arange(N) % 2, np.nan, np.inf).astype(np.float32)[:, None]
    spoilt = [np.where(dead[:, None], rubbish, array) for array in atoms]

    def summed(student, teacher):
        options = {"distance": distance, "coordinate": "size", "stop_teacher_gradient": False}
        values = atom_alignment(student, teacher, SIZES, where=WHERE, **options)
        return values.sum(), values

    run = jax.value_and_grad(summed, (0, 1), has_aux=True)
    (_, clean), clean_gradients = run(*atoms)
    (_, values), gradients = run(*spoilt)
    np.testing.assert_array_equal(values, clean)
    assert not values[~WHERE].any()
    for gradient, other in zip(gradients, clean_gradients, strict=True):
        np.testing.assert_array_equal(gradient, other)
        assert not np.any(np.asarray(gradient)[dead])
        assert np.all(np.any(np.asarray(gradient)[~dead], axis=1))
    # The same in rows, where padding fills up every row.
    rows = [as_rows(array, fill=np.float32(np.nan)) for array in spoilt]
    (_, values), gradients = run(*rows)
    np.testing.assert_allclose(values, clean, rtol=1e-6)
    for gradient, other in zip(gradients, clean_gradients, strict=True):
        np.testing.assert_allclose(gradient, as_rows(np.asarray(other)), rtol=1e-6)


@jax.jit
def coordinated(states, n_node):
    """Values [g] of student and teacher states, stacked, and the gradient of the student's."""

    def summed(student):
        values = losses.atom_alignment(student, states[1], n_node, coordinate="size")
        return values.sum(), values

    (_, values), gradient = jax.value_and_grad(summed, has_aux=True)(states[0])
    return values, gradient


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 6), min_size=6, max_size=6), order=st.permutations(range(6)))
def test_a_molecule_has_the_same_loss_in_every_batch(sizes, order):
    """Alone, in any order, with any padding, in rows of any length: one value and one gradient a molecule."""
    random = np.random.default_rng(sum(sizes))
    molecules = [random.normal(size=(2, size, WIDTH)).astype(np.float32) for size in sizes]

    def outputs(members):
        """Of a batch of the shape that all share, six molecules of 40 atoms in all."""
        states = np.full((2, 40, WIDTH), np.nan, np.float32)
        together = np.concatenate([molecules[i] for i in members], axis=1)
        states[:, : together.shape[1]] = together
        n_node = np.zeros(6, np.int32)
        n_node[: len(members)] = [sizes[i] for i in members]
        return coordinated(states, n_node)

    values, gradient = outputs(order)
    start = 0
    for value, i in zip(values, order, strict=True):
        alone, its_gradient = outputs([i])
        np.testing.assert_array_equal(alone, [value, 0, 0, 0, 0, 0])
        np.testing.assert_array_equal(its_gradient[: sizes[i]], gradient[start : start + sizes[i]])
        start += sizes[i]
    rows = np.full((2, 6, 9, WIDTH), np.nan, np.float32)
    for row, i in enumerate(order):
        rows[:, row, : sizes[i]] = molecules[i]
    in_rows, _ = coordinated(rows, np.array([sizes[i] for i in order], np.int32))
    np.testing.assert_allclose(in_rows, values, rtol=1e-5)


def test_coordination_takes_the_size_out_of_the_gradient():
    """Of equal atoms the summed loss grows with N, its mean does not, and its coordinated form falls as 1/N."""
    n_node = np.array([2, 8], np.int32)
    student, teacher = np.full((10, WIDTH), 3.0, np.float32), np.ones((10, WIDTH), np.float32)
    ratios = {}
    for coordinate in COORDINATES:
        small, large = atom_alignment(student, teacher, n_node, coordinate=coordinate)
        ratios[coordinate] = float(large / small)
    assert ratios == {"none": 4.0, "mean": 1.0, "size": 0.25}


def test_layers_and_batches_by_vmap(atoms, normal):
    layers = [np.stack([array, array[::-1]]) for array in atoms]
    mapped = jax.vmap(atom_alignment, in_axes=(0, 0, None))(*layers, SIZES)
    for i in range(2):
        np.testing.assert_allclose(mapped[i], atom_alignment(layers[0][i], layers[1][i], SIZES), rtol=1e-6)


@pytest.mark.usefixtures("untyped")
def test_wrong_arguments():
    states, n_node = jnp.zeros((3, 5)), jnp.array([1, 2])
    for loss in (molecule_alignment, partial(atom_alignment, n_node=n_node)):
        with pytest.raises(ValueError, match=r"student \[3, 5\] and teacher \[3, 4\]"):
            loss(states, jnp.zeros((3, 4)))
        with pytest.raises(ValueError, match="teacher must hold floating-point numbers"):
            loss(states, jnp.zeros((3, 5), int))
        with pytest.raises(ValueError, match="distance must be one of mse, l1, cosine, but it is 'l2'"):
            loss(states, states, distance="l2")
        with pytest.raises(ValueError, match=r"where must have shape \[[23]\]"):
            loss(states, states, where=jnp.ones(4, bool))
        with pytest.raises(ValueError, match="where must be boolean"):
            loss(states, states, where=jnp.ones(3 if loss is molecule_alignment else 2))
    with pytest.raises(ValueError, match=r"student must have rank 2 or more, but its shape is \[5\]"):
        molecule_alignment(states[0], states[0])
    with pytest.raises(ValueError, match=r"student must have shape \[n, d\] or \[g, L, d\], but its shape is \[5\]"):
        atom_alignment(states[0], states[0], n_node)
    with pytest.raises(ValueError, match=r"n_node must have shape \[3\]"):
        atom_alignment(states[:, None], states[:, None], n_node)
    with pytest.raises(ValueError, match="n_node must hold integers"):
        atom_alignment(states, states, jnp.ones(2))
    with pytest.raises(ValueError, match="coordinate must be one of none, mean, size, but it is 'atoms'"):
        atom_alignment(states, states, n_node, coordinate="atoms")
