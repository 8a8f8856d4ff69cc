import stat

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.predict.output_file import SUFFIXES, OutputFile, check_output

PARTS = [
    {"node": ["a", "b"], "class": [None, None], "p": np.array([np.nan, 0.5], np.float32)},
    {"node": ["c"], "class": ["x, y"], "p": np.array([0.25], np.float32)},
]


def read(path):
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_become_one_table(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with OutputFile(path) as out:
        for part in PARTS:
            out.write(part)
        assert not path.exists()
    table = read(path)
    assert table["node"].tolist() == ["a", "b", "c"]
    assert table["class"].isna().tolist() == [True, True, False] and table["class"][2] == "x, y"
    np.testing.assert_array_equal(table["p"], [np.nan, 0.5, 0.25])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_units_are_kept_in_parquet(tmp_path):
    with OutputFile(tmp_path / "out.parquet", {"p": "eV"}) as out:
        out.write(PARTS[1])
    assert pyarrow.parquet.read_schema(tmp_path / "out.parquet").field("p").metadata == {b"unit": b"eV"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_of_a_table_that_broke_off(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), OutputFile(path) as out:
        out.write(PARTS[0])
        raise RuntimeError
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_files_that_cannot_be_written_are_refused_beforehand(tmp_path):
    with pytest.raises(ConfigError, match=r"'out\.txt' ends in none of \.csv, \.csv\.gz, \.parquet"):
        check_output(tmp_path / "out.txt", overwrite=False)
    with pytest.raises(ConfigError, match="No such file or directory"):
        check_output(tmp_path / "nowhere" / "out.csv", overwrite=False)
    path = tmp_path / "out.csv"
    check_output(path, overwrite=False)
    assert not list(tmp_path.iterdir())
    path.touch()
    with pytest.raises(ConfigError, match="add --overwrite"):
        check_output(path, overwrite=False)
    check_output(path, overwrite=True)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(tmp_path / "folder.csv", overwrite=True)
