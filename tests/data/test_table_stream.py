import gzip

import pyarrow
import pyarrow.parquet
import pytest

from jaxgkd.data.table_stream import read_header, stream_table
from jaxgkd.data.tables import read_table
from jaxgkd.errors import DataError

TEXT = 'node,text,n\na,"one, two\nthree",1\n\nb,,2\nc,ü,3\n'


@pytest.fixture(params=["t.csv", "t.csv.gz", "t.parquet"])
def path(request, tmp_path):
    path = tmp_path / request.param
    if request.param == "t.csv":
        path.write_text(TEXT, encoding="utf-8")
    elif request.param == "t.csv.gz":
        path.write_bytes(gzip.compress(TEXT.encode()))
    else:
        columns = {"node": ["a", "b", "c"], "text": ["one, two\nthree", None, "ü"], "n": [1, 2, 3]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("at_a_time", [1, 2, 100])
def test_chunks_hold_what_the_whole_table_holds(path, at_a_time):
    whole = read_table(path)
    chunks = list(stream_table(path, ["n", "text"], at_a_time=at_a_time))
    assert max(map(len, chunks)) <= at_a_time
    assert [row for chunk in chunks for row in chunk.rows] == whole.rows
    for name in ("n", "text"):
        assert [cell for chunk in chunks for cell in chunk.column(name)] == whole.column(name)
    assert list(read_header(path).columns) == ["node", "text", "n"]


@pytest.mark.parametrize("text", ["node,text\na," + "x" * 140_000 + "\n", 'node,text\ra,"x\ry"\rb,z\r'])
def test_long_cells_and_old_line_ends(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, newline="")
    whole = read_table(tmp_path / "t.csv")
    [chunk] = stream_table(tmp_path / "t.csv", ["node", "text"])
    assert (chunk.rows, chunk.columns) == (whole.rows, whole.columns)


def test_what_is_wrong_is_named(path, tmp_path):
    with pytest.raises(DataError, match="there is no column 'label'"):
        list(stream_table(path, ["label"]))
    with pytest.raises(DataError, match="does not exist"):
        read_header(tmp_path / f"other-{path.name}")
    path.write_bytes(path.read_bytes()[:10] + b"\xff\xfe")
    with pytest.raises(DataError):
        list(stream_table(path, ["node"]))
