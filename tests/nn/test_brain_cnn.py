import jax
import numpy as np

from jaxgkd.nn.brain_cnn import edge_to_edge


def test_an_edge_sums_its_row_and_its_column():
    random = np.random.default_rng(0)
    matrix, rows, columns = random.normal(size=(2, 4, 4)), random.normal(size=(4, 3)), random.normal(size=(4, 3))
    wanted = np.zeros((2, 4, 4, 3))
    for n in range(2):
        for i in range(4):
            for j in range(4):
                for k in range(4):
                    wanted[n, i, j] += matrix[n, i, k] * rows[k] + matrix[n, k, j] * columns[k]
    found = jax.jit(edge_to_edge)(*(x.astype(np.float32) for x in (matrix, rows, columns)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
