import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from jaxgkd.data import registry
from jaxgkd.data.fetch import fetch
from jaxgkd.data.published import PUBLISHED
from jaxgkd.data.text_graphs import load_text_graph
from jaxgkd.errors import ConfigError, DataError
from tests.data.file_server import FileServer


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGKD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def home(monkeypatch):
    """Fetches from a server that has these files, whose checksums nobody has published."""

    def home(name, files, **options):
        monkeypatch.setattr("jaxgkd.data.fetch._moved", _bare)
        with FileServer(files) as server:
            lines: list[str] = []
            folder = fetch(name, base=server.url, pause=0.01, on_line=lines.append, **options)
        return folder, lines

    return home


def _bare(file, base):
    return replace(file, url=f"{base}/{file.name}", checksum=None, source=None)


def tgz(entries) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zipped(entries) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


CONTENT = b"31336\t0\t1\t0\tNeural_Networks\n10\t1\t0\t0\tTheory\n7\t1\t1\t0\tTheory\n"
CITES = b"31336\t10\n10\t7\n999\t7\n"
PAPERS = b"""31336\thttp:##a#one.ps\t<author> A </author> <title> Backpropagation, revisited. </title>
10\thttp:##a#two.ps\t<title> Of bounds </title>
10\thttp:##a#three.ps\t<title> Of bounds </title>
555\thttp:##a#other.ps\t<title> Else </title>
"""
TEXTS = {
    "cora/README": b"",
    "cora/papers": PAPERS + "7\thttp:##a#gone.ps\t<title>Caf\u00e9</title>\n".encode("latin-1"),
    "cora/extractions/http:##a#one.ps": b"Title: Backpropagation\n revisited\nAbstract: We show\nthat it works.\n",
    "cora/extractions/http:##a#two.ps": b"Title: Of bounds\n",
    "cora/extractions/http:##a#three.ps": b"Title: Of bounds\nAbstract: Bounds are given.\nAuthor: B\n",
    "cora/extractions/http:##a#other.ps": b"Title: Else\n",
}
CORA = {"cora.tgz": tgz({"cora/cora.content": CONTENT, "cora/cora.cites": CITES}), "cora-classify.tar.gz": tgz(TEXTS)}


def test_cora_with_its_texts(home):
    folder, lines = home("cora", CORA)
    graph = registry.load("cora", recipe="lingugkd")
    assert graph.node_ids.tolist() == [31336, 10, 7]
    assert graph.texts == (
        "Backpropagation revisited\nWe show that it works.",
        "Of bounds\nBounds are given.",
        "Café",
    )
    assert graph.titles == ("Backpropagation revisited", "Of bounds", "Café")
    assert [graph.class_names[label] for label in graph.labels] == ["Neural_Networks", "Theory", "Theory"]
    # The second paper of a line cites the first; one that is not in the graph is left out.
    assert list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)) == [(1, 0), (2, 1)]
    np.testing.assert_array_equal(graph.features.toarray(), [[0, 1, 0], [1, 0, 0], [1, 1, 0]])
    assert folder == registry.fetched_folder() / "text" / "cora"
    assert lines[1:3] == [
        "licence: any research",
        f"to cite: {next(e for e in PUBLISHED if e.name == 'cora').citation}",
    ]
    assert any("unverified, since no checksum is published" in line for line in lines)
    source = json.loads((folder / "source.json").read_text())
    assert [len(file["sha256"]) for file in source["files"]] == [64, 64]
    assert not list((folder.parents[2] / "downloads" / "cora").iterdir())
    with pytest.raises(ConfigError, match="is there already; use it with --data cora"):
        fetch("cora")


def test_the_first_download_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxgkd.data.fetch._moved", _bare)
    with FileServer(CORA) as server:
        options = {"base": server.url, "pause": 0.01}
        fetch("cora", to=tmp_path / "one", **options)
        lines: list[str] = []
        fetch("cora", to=tmp_path / "two", on_line=lines.append, **options)
        assert sum("the same as at the first download" in line for line in lines) == 2
        server.files["cora.tgz"] = tgz({"cora/cora.content": CONTENT, "cora/cora.cites": CITES + b"7\t31336\n"})
        with pytest.raises(DataError, match=r"cora\.tgz: the sha256 is .* at the first download it was"):
            fetch("cora", to=tmp_path / "three", **options)
    assert not (tmp_path / "three" / "cora").exists()


def test_a_published_checksum_is_kept_to(tmp_path):
    with FileServer(CORA) as server, pytest.raises(DataError, match=r"the md5 is .* where TorchDrug's list has 2fc040"):
        fetch("cora", base=server.url, pause=0.01)
    assert not registry.fetched_folder().exists()


def test_pubmed_has_words_for_texts(home):
    nodes = "NODE\tpaper\ncat=1,2,3:label\tnumeric:w-rat:0.0\tsummary\n"
    nodes += "11\tlabel=1\tw-rat=0.2\tw-islet=0.9\tsummary=w-rat,w-islet\n12\tlabel=2\tw-child=0.1\tsummary=w-child\n"
    cites = "DIRECTED\tcites\nNO_FEATURES\n33\tpaper:12\t|\tpaper:11\n"
    place = "Pubmed-Diabetes/data/Pubmed-Diabetes"
    files = {f"{place}.NODE.paper.tab": nodes.encode(), f"{place}.DIRECTED.cites.tab": cites.encode()}
    home("pubmed", {"Pubmed-Diabetes.tgz": tgz(files)})
    graph = registry.load("pubmed", recipe="lingugkd")
    assert graph.texts == ("islet rat", "child")
    assert graph.class_names == ("Diabetes Mellitus Type 1", "Diabetes Mellitus, Experimental")
    assert (graph.senders.tolist(), graph.receivers.tolist()) == ([1], [0])
    np.testing.assert_allclose(graph.features.toarray(), [[0.2, 0.9, 0], [0, 0, 0.1]], atol=1e-6)


def test_citeseer_has_none(home):
    content, cites = CONTENT.replace(b"10\t1", b"bradshaw97\t1"), CITES.replace(b"10", b"bradshaw97")
    folder, _ = home("citeseer", {"citeseer.tgz": tgz({"citeseer.content": content, "citeseer.cites": cites})})
    graph = load_text_graph(folder, text_columns=())
    assert graph.node_ids.tolist() == ["31336", "bradshaw97", "7"]
    assert graph.n_edge == 2


def gz(text: str) -> bytes:
    return gzip.compress(text.encode())


def test_ogbn_arxiv(home):
    archive = {
        "arxiv/raw/edge.csv.gz": gz("0,1\n2,0\n"),
        "arxiv/raw/node-label.csv.gz": gz("1\n0\n1\n"),
        "arxiv/raw/node-feat.csv.gz": gz("0.5,1\n-1,2\n0,0\n"),
        "arxiv/mapping/nodeidx2paperid.csv.gz": gz("node idx,paper id\n0,77\n1,88\n2,99\n"),
        "arxiv/mapping/labelidx2arxivcategeory.csv.gz": gz("label idx,arxiv category\n0,arxiv cs na\n1,arxiv cs lg\n"),
        "arxiv/split/time/train.csv.gz": gz("2\n"),
        "arxiv/split/time/valid.csv.gz": gz("0\n"),
        "arxiv/split/time/test.csv.gz": gz("1\n"),
        "arxiv/split/time/split_dict.pt": b"\x80\x04.",
    }
    texts = gz("titleabs.tsv\n99\tNets\tAn abstract.\n77\tGraphs\tOf graphs.\n5\tElse\tx\n88\tOnly a title\t\n")
    home("ogbn-arxiv", {"arxiv.zip": zipped(archive), "titleabs.tsv.gz": texts})
    graph = registry.load("ogbn-arxiv", recipe="lingugkd")
    assert graph.texts == ("Graphs\nOf graphs.", "Only a title", "Nets\nAn abstract.")
    assert graph.given_split.tolist() == ["valid", "test", "train"]
    assert [graph.class_names[label] for label in graph.labels] == ["arxiv cs lg", "arxiv cs na", "arxiv cs lg"]
    np.testing.assert_array_equal(graph.features.toarray(), [[0.5, 1], [-1, 2], [0, 0]])


def test_tables_of_molecules(home):
    table = "num,name,p_np,smiles\n1,a,1,CCO\n2,b,0,c1ccccc1\n3,c,1,nonsense\n"
    home("bbbp", {"BBBP.csv": table.encode()})
    molecules = registry.load("bbbp", recipe="gallon")
    assert [task.name for task in molecules.tasks] == ["p_np"]
    assert molecules.labels[:, 0].tolist() == [1, 0]
    assert len(molecules.problems) == 1
    tox = "NR-AR,SR-p53,mol_id,smiles\n0,,T1,CCO\n,1,T2,CCN\n1,0,T3,CC\n"
    home("tox21", {"tox21.csv.gz": gz(tox)})
    molecules = registry.load("tox21", recipe="gallon")
    assert [task.name for task in molecules.tasks] == ["NR-AR", "SR-p53"]
    assert int(np.isnan(molecules.labels).sum()) == 2


def sdf(*smiles) -> bytes:
    blocks = []
    for i, text in enumerate(smiles, start=1):
        molecule = Chem.AddHs(Chem.MolFromSmiles(text))
        AllChem.EmbedMolecule(molecule, randomSeed=1)
        molecule.SetProp("_Name", f"gdb_{i}")
        blocks.append(Chem.MolToMolBlock(molecule) + "$$$$\n")
    return "".join(blocks).encode()


def test_molecules_with_coordinates(home):
    table = b"mol_id,mu,gap\ngdb_1,0,0.5\ngdb_2,1.5,0.4\n"
    home("qm9", {"gdb9.tar.gz": tgz({"gdb9.sdf": sdf("C", "O"), "gdb9.sdf.csv": table})})
    molecules = registry.load("qm9", recipe="ccmd")
    assert molecules.placed.all()
    assert molecules.labels[:, 0].tolist() == [0.5, 0.4]
    # Molecules that validate have a gap, and no coordinates.
    raw = gz("idx,smiles,homolumogap\n0,C,3.5\n1,O,2.5\n2,S,1.5\n3,N,\n")
    home(
        "pcqm4m-v2-train",
        {
            "pcqm4m-v2.zip": zipped({"pcqm4m-v2/raw/data.csv.gz": raw, "pcqm4m-v2/split_dict.pt": b"\x80"}),
            "pcqm4m-v2-train.sdf.tar.gz": tgz({"pcqm4m-v2-train.sdf": sdf("C", "O")}),
        },
    )
    molecules = registry.load("pcqm4m-v2-train", recipe="ccmd")
    assert (len(molecules), molecules.labels[:, 0].tolist(), molecules.placed.all()) == (2, [3.5, 2.5], True)


def test_abide_through_nilearn(tmp_path):
    asked = {}

    def fetch_abide_pcp(**options):
        asked.update(options)
        n = 6
        people = {
            "SUB_ID": np.arange(50001, 50001 + n),
            "SITE_ID": np.array(["PITT", "NYU"] * 3),
            "DX_GROUP": np.array([1, 2] * 3),
            "AGE_AT_SCAN": np.linspace(8, 20, n),
            "SEX": np.array([1, 2, 1, 1, 2, 1]),
        }
        series = [np.random.default_rng(i).normal(size=(20, 4)) for i in range(n)]
        return {"rois_cc200": series, "phenotypic": people}

    fetch("abide", fetch_abide_pcp=fetch_abide_pcp)
    assert asked["derivatives"] == ["rois_cc200"]
    assert asked["quality_checked"]
    brains = registry.load("abide", recipe="bleg")
    assert brains.class_names == ("HC", "ASD")
    assert brains.labels.tolist() == [1, 0] * 3
    assert brains.n_regions == 4

    def offline(**options):
        raise OSError("no network")

    with pytest.raises(DataError, match=r"nilearn could not download ABIDE \(no network\)"):
        fetch("abide", to=tmp_path / "other", fetch_abide_pcp=offline)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"cora.tgz": b"<html>moved</html>"}, r"cora\.tgz: is not a whole"),
        ({"cora.tgz": tgz({"../cora.content": b"x"})}, "leads out of its folder"),
        ({"cora.tgz": tgz({"cora/cora.content": CONTENT})}, r"holds no cora\.cites"),
        ({"cora.tgz": tgz({"cora.content": b"1\t2\n", "cora.cites": b""})}, r"row 1: cora\.content has 2 columns"),
        ({"cora-classify.tar.gz": tgz({"cora/papers": b"5\tx\ty\n"})}, "names none of the graph's papers"),
    ],
)
def test_what_does_not_hold_what_it_should_leaves_nothing(files, said, home):
    with pytest.raises(DataError, match=said):
        home("cora", CORA | files)
    assert not (registry.fetched_folder() / "text").exists() or not list((registry.fetched_folder() / "text").iterdir())
    assert not (registry.fetched_folder() / "checksums.json").exists()
    # The next try begins anew.
    home("cora", CORA)


def test_unknown_names_and_the_catalogue():
    with pytest.raises(ConfigError, match="no public data set 'corra'; use one of cora, citeseer"):
        fetch("corra")
    assert len({each.name for each in PUBLISHED}) == len(PUBLISHED)
    for each in PUBLISHED:
        for file in each.files:
            kind, _, digest = (file.checksum or "").partition(":")
            assert file.checksum is None or (kind, len(digest)) in (("md5", 32), ("sha256", 64))
            assert (file.source is None) == (file.checksum is None)
