import gzip

import pytest

from jaxgkd.data.molecule_files import (
    Columns,
    LineStream,
    choose_columns,
    is_sdf,
    paired_records,
    read_csv_rows,
    read_sdf,
    sdf_records,
    table_records,
)
from jaxgkd.errors import DataError

BLOCK = "{title}\n  x\n\n  1  0  0  0  0  0            999 V2000\n    0.0 0.0 0.0 C   0  0\nM  END\n"


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def rows_of(tmp_path, content, name="a.csv"):
    return list(read_csv_rows(LineStream(write(tmp_path / name, content))))


def sdf_text(*titles, fields=""):
    return "".join(BLOCK.format(title=title) + fields + "\n$$$$\n" for title in titles)


def test_rows_carry_their_numbers(tmp_path):
    content = '\ufeffsmiles, y\r\n"C\nC",1\r\n\r\nCC,2\r\n'
    expected = [(1, ["smiles", "y"]), (2, ["C\nC", "1"]), (4, ["CC", "2"])]
    assert rows_of(tmp_path, content) == rows_of(tmp_path, content, "a.csv.gz") == expected


@pytest.mark.parametrize(
    ("content", "what", "row"),
    [
        ("", "is empty", None),
        ("smiles,y\nC,1\nCC\n", "has 1 cell where the header has 2", 3),
        ("smiles,y\nC,1,2\n", "has 3 cells", 2),
        ('smiles,y\nC,1\n"CC,1\n', "not well-formed", 3),
        ("smiles;y\nC;1\n", "not separated by commas", 1),
        ("smiles,smiles\nC,1\n", "two columns 'smiles'", 1),
        (b"smiles,y\nC,1\n\xff,2\n", "not UTF-8", 3),
        (b"smiles,y\nC,\x001\n", "not a text file", 2),
    ],
)
def test_tables_that_are_refused(tmp_path, content, what, row):
    with pytest.raises(DataError, match=what) as caught:
        rows_of(tmp_path, content)
    assert caught.value.row == row and caught.value.file == tmp_path / "a.csv"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        list(LineStream(tmp_path / "a.csv"))
    whole = gzip.compress(b"smiles,y\n" * 1000)
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole gzip file"):
        list(LineStream(tmp_path / "a.csv.gz"))


def test_the_share_read_grows_to_one(tmp_path):
    lines = LineStream(write(tmp_path / "a.csv", "C,1\n" * 5000))
    shares = []
    for _ in lines:
        shares.append(lines.share)
    assert shares == sorted(shares) and 0 < shares[2500] < 1 and lines.share == 1


def choose(header, **options):
    settings = {"labels": None, "smiles_column": None, "id_column": None, "smiles_needed": True} | options
    return choose_columns(header, "a.csv", **settings)


def test_columns_that_are_clear_need_no_names():
    assert choose(["SMILES", "y"]) == Columns(0, None, (1,), ("y",))
    assert choose(["Name", "split", "", "smiles", "y"]) == Columns(3, 0, (4,), ("y",))
    assert choose(["smiles", "a", "b"], labels=["b"]).labels == (2,)
    assert choose(["smiles", "a", "id", "b"], labels=["all"]).label_names == ("a", "b")
    assert choose(["smiles", "all", "b"], labels=["all"]).label_names == ("all",)
    assert choose(["mol", "id"], smiles_column="mol") == Columns(0, 1, (), ())
    assert choose(["key", "y"], smiles_needed=False, id_column="key") == Columns(None, 0, (1,), ("y",))


@pytest.mark.parametrize(
    ("header", "options", "what"),
    [
        (["smiles", "a", "b"], {}, "several columns that may be labels: 'a', 'b'; choose with --label"),
        (["smiles", "a"], {"labels": ["c"]}, "no column 'c', the columns are 'smiles', 'a'"),
        (["smiles", "a"], {"labels": ["a", "a"]}, "named twice"),
        (["mol", "a"], {}, "no column 'smiles'"),
        (["smiles", "Smiles"], {}, "several columns of SMILES"),
        (["smiles", "a"], {"smiles_column": "mol"}, "no column 'mol'"),
        (["smiles", "a"], {"id_column": "key"}, "no column 'key'"),
    ],
)
def test_columns_that_are_not_clear(header, options, what):
    with pytest.raises(DataError, match=what):
        choose(header, **options)


def test_sd_files_give_titles_blocks_and_fields(tmp_path):
    fields = "> <energy> (1)\n-3.5\n\n>  <note>\ntwo\nlines\n\n"
    path = write(
        tmp_path / "a.sdf.gz", (sdf_text("m1 ", fields=fields) + BLOCK.format(title="m2")).replace("\n", "\r\n")
    )
    first, second = read_sdf(LineStream(path))
    assert (first.number, first.title, second.number, second.title) == (1, "m1", 2, "m2")
    assert first.properties == {"energy": "-3.5", "note": "two\nlines"} and second.properties == {}
    assert first.block == BLOCK.format(title="m1 ")
    assert is_sdf(path) and is_sdf(tmp_path / "A.SD") and not is_sdf(tmp_path / "sdf.csv")
    with pytest.raises(DataError, match="holds no record"):
        list(read_sdf(LineStream(write(tmp_path / "b.sdf", "\n"))))


def test_labels_of_an_sd_file_are_its_data_fields(tmp_path):
    # The blank line after a field is sometimes forgotten.
    fields = "> <energy>\n-3.5\n> <other>\n2\n\n"
    path = write(tmp_path / "a.sdf", sdf_text("a", fields=fields) + sdf_text("b"))
    records = list(sdf_records(read_sdf(LineStream(path)), ["energy", "other"], path))
    assert [record.labels for record in records] == [("-3.5", "2"), ("", "")] and records[1].smiles is None
    with pytest.raises(DataError, match="no record has a data field 'gap', the fields are 'energy', 'other'"):
        list(sdf_records(read_sdf(LineStream(path)), ["gap"], path))


def pair(tmp_path, table, sdf, **options):
    table = write(tmp_path / "a.csv", table)
    sdf = write(tmp_path / "a.sdf", sdf)
    rows = read_csv_rows(LineStream(table))
    columns = choose(next(rows)[1], smiles_needed=False, **options)
    return list(paired_records(rows, columns, read_sdf(LineStream(sdf)), table, sdf))


def test_records_are_found_by_title_in_any_order(tmp_path):
    records = pair(tmp_path, "id,smiles,y\na,C,1\nb,CC,2\nc,CCC,3\n", sdf_text("c", "a"))
    assert [(record.row, record.smiles, record.labels) for record in records] == [
        (4, "CCC", ("3",)),
        (2, "C", ("1",)),
        (3, "CC", ("2",)),
    ]
    assert [record.block and record.block.split("\n")[0] for record in records] == ["c", "a", None]


@pytest.mark.parametrize(
    ("table", "titles"),
    [("smiles,y\nC,1\nCC,2\nCCC,3\n", ("x", "y")), ("id,smiles,y\n1,C,1\n2,CC,2\n3,CCC,3\n", ("", "y"))],
)
def test_records_without_known_titles_go_by_position(tmp_path, table, titles):
    records = pair(tmp_path, table, sdf_text(*titles))
    assert [record.smiles for record in records] == ["C", "CC", "CCC"]
    assert [record.block is None for record in records] == [False, False, True]


@pytest.mark.parametrize(
    ("table", "titles", "what"),
    [
        ("smiles,y\nC,1\n", ("x", "y"), r"more records than the table has rows \(1\)"),
        ("id,smiles,y\na,C,1\nb,C,1\n", ("a", "c"), "title 'c' is not in a.csv"),
        ("id,smiles,y\na,C,1\nb,C,1\n", ("a", "a"), "title 'a' was there before"),
        ("id,smiles,y\na,C,1\na,C,1\n", ("a", "a"), "'a' was there before, in row 2"),
        ("id,y\na,1\n", ("x",), "title 'x' is not in a.csv, and there are no SMILES"),
        ("id,smiles,y\nb,CCCO,1\nc,CC(C)O,2\n", ("a", "b"), "'b' is in a.csv, that of the first record is not"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, table, titles, what):
    with pytest.raises(DataError, match=what):
        pair(tmp_path, table, sdf_text(*titles))


def test_records_of_a_table_alone(tmp_path):
    rows = read_csv_rows(LineStream(write(tmp_path / "a.csv", "y,smiles\n1,C\n")))
    (record,) = table_records(rows, choose(next(rows)[1]))
    assert record == (2, "C", None, ("1",))
