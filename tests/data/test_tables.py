import csv
import gzip
import os
from pathlib import Path

import pytest

from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import DataError

NODES = (
    "node,title,abstract,label,split\n10,One,first text,a,train\n11,Two,,b,val\n12,,third text,a,\n13,Four,x,,test\n"
)
EDGES = "src,dst\n10,11\n11,12\n12,10\n"
BASE = {"nodes.csv": NODES, "edges.csv": EDGES}


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_rows_are_counted_as_a_spreadsheet_does(tmp_path):
    # Row 2 holds a line break, row 3 is blank, row 4 holds two more line breaks, row 5 is ragged.
    nodes = 'node,text,label\r\n1,"two\nlines",0\r\n\r\n2,"three\r\n\r\nlines",1\r\n3,short\r\n'
    with pytest.raises(DataError, match="has 2 cells") as caught:
        load_text_graph(write(tmp_path, {"nodes.csv": nodes, "edges.csv": "src,dst\n1,2\n"}))
    assert caught.value.row == 5
    good = write(tmp_path, {"nodes.csv": nodes.replace("short", "ok,1")})
    assert load_text_graph(good).texts == ("two\nlines", "three\r\n\r\nlines", "ok")


def test_bad_encoding_is_placed_after_quoted_line_breaks(tmp_path):
    nodes = b'node,text,label\n1,"two\nlines",0\n2,"\n\xff",1\n'
    with pytest.raises(DataError, match="not UTF-8") as caught:
        load_text_graph(write(tmp_path, {"nodes.csv": nodes, "edges.csv": EDGES}))
    assert caught.value.row == 3


def test_cells_may_be_long_and_the_limit_of_the_csv_module_is_restored(tmp_path):
    before = csv.field_size_limit()
    nodes = f"node,text,label\n0,{'x' * 300_000},0\n1,b,1\n"
    graph = load_text_graph(write(tmp_path, {"nodes.csv": nodes, "edges.csv": "src,dst\n0,1\n"}))
    assert len(graph.texts[0]) == 300_000 and csv.field_size_limit() == before


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_text_graph(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a folder"):
        load_text_graph(write(tmp_path, BASE) / "nodes.csv")
    (tmp_path / "edges.csv").unlink()
    with pytest.raises(DataError, match=r"there is none of edges\.csv, edges\.csv\.gz, edges\.parquet"):
        load_text_graph(tmp_path)
    (tmp_path / "edges.csv").mkdir()
    with pytest.raises(DataError, match=r"edges\.csv: is a folder"):
        load_text_graph(tmp_path)


def test_unreadable_file(tmp_path, monkeypatch):
    folder = write(tmp_path, BASE)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"nodes\.csv: may not be read; give yourself permission"):
        load_text_graph(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable_file_on_disk(tmp_path):
    (write(tmp_path, BASE) / "edges.csv").chmod(0)
    with pytest.raises(DataError, match="may not be read"):
        load_text_graph(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[: len(b) // 2], lambda b: b"no gzip", lambda b: b""])
def test_damaged_gzip(tmp_path, damage):
    content = gzip.compress(NODES.encode(), mtime=0)
    folder = write(tmp_path, {"nodes.csv.gz": damage(content), "edges.csv": EDGES})
    with pytest.raises(DataError, match=r"nodes\.csv\.gz: is (not a whole gzip file|empty)"):
        load_text_graph(folder)
