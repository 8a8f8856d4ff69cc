from pathlib import Path

import numpy as np
import pytest

from jaxgkd.data.brain_scans import checked_correlations, read_scan_array, read_scan_folder, series_correlations
from jaxgkd.errors import DataError

FILE = Path("scans")


def series(n=4, time=20, r=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, time, r)).astype(np.float32)


def matrices(**kwargs):
    return np.stack([np.corrcoef(one.T) for one in series(**kwargs)]).astype(np.float32)


def test_the_same_from_every_form_of_array(tmp_path):
    rows, columns = np.triu_indices(3, 1)
    ids = np.array(["a", "b", "c", "d"])
    np.savez(tmp_path / "upper.npz", fc_upper=matrices()[:, rows, columns], subject=ids)
    np.savez(tmp_path / "matrix.npz", correlation=matrices(), subjects=ids)
    np.savez(tmp_path / "series.npz", series=series(), subject=ids)
    np.save(tmp_path / "matrix.npy", matrices())
    np.save(tmp_path / "upper.npy", matrices()[:, rows, columns])
    np.save(tmp_path / "series.npy", series())
    for path in sorted(tmp_path.iterdir()):
        scans = read_scan_array(path)
        np.testing.assert_allclose(scans.correlations, matrices(), atol=1e-6)
        assert scans.subjects == (None if path.suffix == ".npy" else ("a", "b", "c", "d"))
        assert (scans.series is not None) == ("series" in path.name)
        assert scans.notes == ()


def test_a_folder_of_series(tmp_path):
    for i, one in enumerate(series()):
        np.savetxt(tmp_path / f"s{i}.1D", one[: 20 - i], header="#x\t#y\t#z", comments="", delimiter="\t")
    scans = read_scan_folder(tmp_path, "series")
    assert scans.subjects == ("s0", "s1", "s2", "s3")
    assert scans.header == ("x", "y", "z")
    assert [len(one) for one in scans.series] == [20, 19, 18, 17]
    assert scans.notes == ("series of 17 to 20 time points",)
    np.testing.assert_allclose(scans.correlations[0], matrices()[0], atol=1e-6)


def test_a_folder_of_matrices(tmp_path):
    for i, one in enumerate(matrices()):
        np.save(tmp_path / f"s{i}.npy", one)
    np.testing.assert_allclose(read_scan_folder(tmp_path, "correlation").correlations, matrices(), atol=1e-7)
    np.save(tmp_path / "s4.npy", series()[0])
    with pytest.raises(DataError, match=r"s4.npy: is a matrix of 20 × 3"):
        read_scan_folder(tmp_path, "correlation")


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="holds no scans"):
        read_scan_folder(tmp_path, "series")
    for i, one in enumerate(series()):
        np.savetxt(tmp_path / f"s{i}.csv", one, delimiter=",")
    np.savetxt(tmp_path / "s4.csv", series(r=4)[0], delimiter=",")
    with pytest.raises(DataError, match=r"s4.csv: has 4 regions where most subjects have 3"):
        read_scan_folder(tmp_path, "series")
    np.savetxt(tmp_path / "s4.csv", series()[0], header="x,y,z", comments="", delimiter=",")
    np.savetxt(tmp_path / "s3.csv", series()[0], header="y,x,z", comments="", delimiter=",")
    with pytest.raises(DataError, match=r"s4.csv, row 1: names other columns than s3.csv"):
        read_scan_folder(tmp_path, "series")
    (tmp_path / "s1.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match="subject s1 is there twice"):
        read_scan_folder(tmp_path, "series")


def test_constant_and_missing_regions_count():
    values = list(series())
    values[0][:, 1] = 5.0
    values[2][:, 0] = np.nan
    found, notes = series_correlations(values, "abcd", FILE)
    assert notes == ("2 missing or constant regions in 2 subjects, with correlation 0 to all others",)
    np.testing.assert_array_equal(found[0, 1], [0, 1, 0])
    np.testing.assert_array_equal(found[2, 0], [1, 0, 0])
    assert (found[1] != 0).all()
    given = matrices()
    given[3, 1, :] = given[3, :, 1] = np.nan
    found, notes = checked_correlations(given, "abcd", FILE)
    assert notes == ("1 missing or constant region in 1 subject, with correlation 0 to all others",)
    np.testing.assert_array_equal(found[3, 1], [0, 1, 0])
    np.testing.assert_array_equal(found[:3], checked_correlations(matrices(), "abcd", FILE)[0][:3])


def test_the_diagonal_is_not_read():
    given = matrices()
    given[:, np.arange(3), np.arange(3)] = [0, np.nan, np.inf]
    np.testing.assert_array_equal(checked_correlations(given, "abcd", FILE)[0][:, [0, 1, 2], [0, 1, 2]], 1)


def test_half_precision_is_forgiven():
    found, notes = checked_correlations(matrices().astype(np.float16).astype(np.float32) * 1.0005, "abcd", FILE)
    assert notes == ()
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((2, 0, 1), np.nan, "subject c has no number between regions 1 and 2"),
        ((1, 2, 0), 0.99, r"the matrix of subject b is not symmetric \(by up to"),
        ((3, (0, 1), (1, 0)), 1.7, "subject d has a value of size 1.7, which no correlation has"),
    ],
)
def test_bad_matrices(place, value, said):
    given = matrices()
    given[place] = value
    with pytest.raises(DataError, match=said):
        checked_correlations(given, "abcd", FILE)


def test_a_subject_without_anything_is_refused():
    values = list(series())
    values[1][:] = np.nan
    with pytest.raises(DataError, match="every region of subject b is missing or constant; leave the subject out"):
        series_correlations(values, "abcd", FILE)
    given = matrices()
    given[2] = np.nan
    with pytest.raises(DataError, match="every region of subject c"):
        checked_correlations(given, "abcd", FILE)


def test_bad_series():
    values = list(series())
    values[1][3, 2] = np.nan
    with pytest.raises(DataError, match="subject b has a NaN in the series of region 3"):
        series_correlations(values, "abcd", FILE)
    with pytest.raises(DataError, match="subject a has 4 time points"):
        series_correlations([series()[0][:4]], "a", FILE)


def test_bad_arrays(tmp_path):
    path = tmp_path / "a.npz"
    for content, said in (
        ({"other": matrices()}, "holds other; save one array"),
        ({"correlation": matrices(), "series": series()}, "holds correlation and series"),
        ({"correlation": matrices()[0]}, r"'correlation': is float32 \[3, 3\]"),
        ({"correlation": matrices(), "subject": np.array(["a"])}, "has 4 scans and 1 subjects"),
        ({"correlation": matrices(), "subject": np.array(["1", "2", "01", "3"])}, "subject 01 is there twice"),
        ({"fc_upper": np.zeros((2, 4))}, "'fc_upper': has 4 columns"),
        ({"correlation": matrices()[:, :2]}, r"matrices of shape \[2, 3\]"),
    ):
        np.savez(path, **content)
        with pytest.raises(DataError, match=said):
            read_scan_array(path)
