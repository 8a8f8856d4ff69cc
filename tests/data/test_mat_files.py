import io

import numpy as np
import pytest
import scipy.io

from jaxgkd.data.mat_files import read_mat

ARRAYS = {
    "double": np.array([[1.5, -2.0, np.nan], [np.inf, 0.0, 1e300]]),
    "single": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "small": np.array([[1.0, 2.0], [3.0, 300.0]]),
    **{
        kind: np.array([[0, 1, 100]], kind) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
    },
    "logical": np.array([[True, False]]),
    "complex": np.array([[1 + 2j, 3 - 4j]]),
    "empty": np.zeros((0, 3)),
}


def saved(arrays, **options) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_scipy_reads(compressed):
    content = saved({**ARRAYS, "x" * 31: np.ones((1, 1))}, do_compression=compressed)
    found, wanted = read_mat(content), scipy.io.loadmat(io.BytesIO(content))
    assert found.keys() == {name for name in wanted if not name.startswith("__")}
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name])
        assert array.dtype.kind == ("b" if name == "logical" else wanted[name].dtype.kind)


def test_text_and_what_is_passed_over():
    content = saved({"ids": np.array(["01", "002"]), "cell": np.array([1, "a"], object), "struct": {"a": 1.0}})
    found = read_mat(content)
    assert list(found) == ["ids"]
    assert found["ids"].tolist() == ["01", "002"]


def test_version_4():
    content = saved({"a": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": np.array([[5, 6]], np.int16)}, format="4")
    found = read_mat(content)
    np.testing.assert_array_equal(found["a"], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(found["b"], [[5, 6]])


def test_a_file_that_is_cut_short_or_lies_is_refused():
    content = saved({"a": np.arange(12.0).reshape(3, 4)})
    for length in range(140, len(content)):
        try:
            assert read_mat(content[:length]) == {}
        except ValueError:
            continue
    at = content.index(np.array([3, 4], np.int32).tobytes())
    for shape in ((3, 5), (-1, 4), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(ValueError, match="shape"):
            read_mat(content[:at] + np.array(shape, np.int32).tobytes() + content[at + 8 :])
