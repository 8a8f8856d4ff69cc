import gzip

import numpy as np
import pytest
import scipy.io

from jaxgkd.data.brain_files import read_arrays, read_scan
from jaxgkd.errors import DataError

VALUES = np.arange(12.0).reshape(4, 3) / 7


def table(mark, header=""):
    return header + "\n".join(mark.join(f"{value:.17g}" for value in row) for row in VALUES) + "\n"


@pytest.mark.parametrize(
    ("name", "text", "header"),
    [
        ("a.csv", table(","), None),
        ("a.csv", table(",", "x,y,z\n"), ("x", "y", "z")),
        ("a.tsv", table("\t", '"x"\t"y"\t"z"\n'), ("x", "y", "z")),
        ("a.txt", table("  "), None),
        # As pandas writes a table, rows numbered in a column without a name.
        (
            "a.csv",
            "\n".join(map(",".join, zip(("", *"0123"), table(",", "x,y,z\n").split(), strict=True))),
            ("x", "y", "z"),
        ),
        ("a.1D", table("\t", "#2001\t#2002\t#2101\n"), ("2001", "2002", "2101")),
        ("a.1D", table(" ", "# made by something\n"), None),
        ("a.csv", "\ufeff" + table(";") + "\n\n", None),
    ],
)
def test_text(tmp_path, name, text, header):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.values, VALUES)
    assert scan.header == header


def test_binary_files(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    scipy.io.savemat(tmp_path / "a.mat", {"ROISignals": VALUES, "other": VALUES + 1, "cells": np.array(["a"], object)})
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(table(",").encode()))
    for name in ("a.npy", "a.mat", "a.csv.gz"):
        np.testing.assert_array_equal(read_scan(tmp_path / name).values, VALUES)
    assert "cells" not in read_arrays(tmp_path / "a.mat")


def test_bad_text(tmp_path):
    path = tmp_path / "a.csv"
    for text, said in (
        ("1,2\n3\n", "row 2: has 1 columns where the first row has 2"),
        ("1,2\n3,x\n", "row 2: 'x' is not a number"),
        ("", "holds no numbers"),
        ("a,b\n", "no numbers below its header"),
        (",b\n0.5,2\n0.25,3\n", "row 1: the first column has no name"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_scan(path)
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(DataError, match="not UTF-8"):
        read_scan(path)
    with pytest.raises(DataError, match="does not exist"):
        read_scan(tmp_path / "none.csv")


def test_bad_binary_files(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "whole.npz", a=VALUES)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:100])
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file" + b"\0" * 500)
    (tmp_path / "odd.mat").write_bytes(b"nothing of the kind")
    scipy.io.savemat(tmp_path / "two.mat", {"one": VALUES, "other": VALUES})
    np.save(tmp_path / "words.npy", np.array([["a", "b"], ["c", "d"]]))
    np.save(tmp_path / "line.npy", np.arange(3.0))
    for name, said in (
        ("objects.npy", "Python objects"),
        ("cut.npz", "not a readable NPZ"),
        ("new.mat", "version 7.3; save it with the option -v7"),
        ("odd.mat", "not a readable MAT"),
        ("two.mat", r"holds 2 matrices \(one, other\)"),
        ("words.npy", "holds <U1 values"),
        ("line.npy", "holds no matrix"),
    ):
        with pytest.raises(DataError, match=said):
            read_scan(tmp_path / name)
    with pytest.raises(DataError, match="not an NPZ, NPY or MAT"):
        read_arrays(tmp_path / "a.h5") if (tmp_path / "a.h5").write_bytes(b"x") else None
