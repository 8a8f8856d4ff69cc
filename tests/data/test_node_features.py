import numpy as np
import pytest
import scipy.sparse

from jaxgkd.data.node_features import read_features
from jaxgkd.errors import DataError

DENSE = np.array([[0.0, 2.0], [0.0, 0.0], [1.0, -3.0]])


def csr_parts(**changes):
    matrix = scipy.sparse.csr_array(DENSE)
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": (3, 2)} | changes


def test_dense_and_sparse_files_give_the_same(tmp_path):
    np.savez(tmp_path / "dense.npz", features=DENSE.astype(np.float16))
    np.savez_compressed(tmp_path / "parts.npz", **csr_parts())
    scipy.sparse.save_npz(tmp_path / "scipy.npz", scipy.sparse.csr_matrix(DENSE))
    # Out of order, with a value in two pieces and an explicit zero.
    untidy = csr_parts(data=[1, 1, 0, -3, 1], indices=[1, 1, 0, 1, 0], indptr=np.array([0, 3, 3, 5], np.uint64))
    np.savez(tmp_path / "untidy.npz", **untidy)
    for name in ("dense", "parts", "scipy", "untidy"):
        features = read_features(tmp_path / f"{name}.npz", 3)
        assert features.dtype == np.float32
        np.testing.assert_array_equal(features.toarray(), DENSE)
        np.testing.assert_array_equal(features.indices, [1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"features": np.eye(4)}, "there are 4 rows of features for 3 nodes"),
        ({"features": np.ones(3)}, "has 1 dimensions"),
        ({"features": np.ones((3, 0))}, "have no columns"),
        ({"features": np.array([[1, 2], [3, np.nan], [1, 1]])}, "row 1, column 1 .* not a finite"),
        ({"features": np.array([[1, 2], [3, 4], [1e300, 1]])}, "row 2, column 0 .* not a finite"),
        ({"features": np.array([["a"], ["b"], ["c"]])}, "field 'features': holds <U1 values"),
        ({"features": np.ones((3, 2), complex)}, "holds complex128 values"),
        ({"features": np.array([[None], [1], [2]], dtype=object)}, "not a readable NPZ file"),
        ({"other": np.ones(3)}, "no array 'data' and no array 'features'"),
        ({k: v for k, v in csr_parts().items() if k != "indptr"}, "no array 'indptr'"),
        (csr_parts(data=[1, np.inf, 1]), "row 2, column 0 .* not a finite"),
        (csr_parts(indices=[1, 0, 2]), "row 2 .* has a value in column 2 of 2"),
        (csr_parts(indices=[-1, 0, 1]), "row 0 .* has a value in column -1 of 2"),
        (csr_parts(shape=(4, 2)), "row pointers do not fit"),
        (csr_parts(indptr=[0, 2, 1, 3]), "row pointers do not fit"),
        (csr_parts(indptr=[0, 1, 1, 4]), "row pointers do not fit"),
        (csr_parts(indptr=[0.0, 1.0, 1.0, 3.0]), "field 'indptr': holds float64 values"),
        (csr_parts(shape=6), "right dimensions"),
    ],
)
def test_refused(tmp_path, arrays, match):
    path = tmp_path / "features.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=match) as caught:
        read_features(path, 3)
    assert "features.npz" in str(caught.value) and "; " in str(caught.value)


def test_files_that_are_no_archives(tmp_path):
    path = tmp_path / "features.npz"
    np.save(tmp_path / "one.npy", DENSE)
    np.savez(tmp_path / "good.npz", features=DENSE)
    good = (tmp_path / "good.npz").read_bytes()
    for content in (b"", b"text", (tmp_path / "one.npy").read_bytes(), good[:-30]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable NPZ file"):
            read_features(path, 3)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="is not a file"):
        read_features(path, 3)
