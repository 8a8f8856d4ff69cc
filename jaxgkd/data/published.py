"""The public data sets that ``jaxgkd data fetch`` brings: their homes, checksums, licences and what to cite.

Only files of plain text are read. Planetoid's own files are pickles, which can run code, so its graphs come from where
they were first published, by the LINQS group; nodes are in that order, not in Planetoid's, and no split comes with
them. Sizes are rounded; where nobody publishes a checksum, there is none here.
"""

from dataclasses import dataclass
from typing import Literal

from jaxgkd.data.download import RemoteFile

Layout = Literal["cora", "citeseer", "pubmed", "ogbn-arxiv", "table", "gdb", "pcqm4m-v2", "abide"]

_LINQS = "https://linqs-data.soe.ucsc.edu/public"
_DEEPCHEM = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets"
_MOLECULES = ("gallon", "ccmd")
_TORCHDRUG = "TorchDrug's list"
_SEN = 'Sen et al., "Collective Classification in Network Data", AI Magazine 29(3), 2008'
_WU = 'Wu et al., "MoleculeNet: a benchmark for molecular machine learning", Chemical Science 9, 2018'
_HU = 'Hu et al., "Open Graph Benchmark: Datasets for Machine Learning on Graphs", NeurIPS 2020'
_NONE = "no licence stated"


@dataclass(frozen=True)
class Published:
    """A public data set.

    Fields:
      name: by which --data finds it; recipes: that can use it.
      about: what it is, in a line.
      files: where it is downloaded from; none where another package does that.
      layout: how its files are read.
      licence: as its home states it; citation: what to cite.
      labels: columns that are labels, for tables of molecules.
    """

    name: str
    recipes: tuple[str, ...]
    about: str
    files: tuple[RemoteFile, ...]
    layout: Layout
    licence: str
    citation: str
    labels: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """About how much is downloaded, for people."""
        total = sum(file.size for file in self.files)
        if not total:
            return "through nilearn"
        return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{max(total / 1e6, 0.1):.1f} MB"


def _table(name: str, file: str, size: int, md5: str | None, about: str, *labels: str) -> Published:
    checksum = None if md5 is None else f"md5:{md5}"
    return Published(
        name=name,
        recipes=_MOLECULES,
        about=about,
        files=(RemoteFile(f"{_DEEPCHEM}/{file}", size, checksum, None if md5 is None else _TORCHDRUG),),
        layout="table",
        licence="MIT as part of MoleculeNet",
        citation=_WU,
        labels=labels,
    )


PUBLISHED: tuple[Published, ...] = (
    Published(
        name="cora",
        recipes=("lingugkd",),
        about="2,708 papers on machine learning with titles and abstracts, 7 classes, citations",
        files=(
            RemoteFile(f"{_LINQS}/lbc/cora.tgz", 170_000, "md5:2fc040bee8ce3d920e4204effd1e9214", _TORCHDRUG),
            RemoteFile("https://people.cs.umass.edu/~mccallum/data/cora-classify.tar.gz", 55_000_000),
        ),
        layout="cora",
        licence="any research",
        citation=f'{_SEN}; McCallum et al., "Automating the Construction of Internet Portals", 2000',
    ),
    Published(
        name="citeseer",
        recipes=("lingugkd",),
        about="3,312 papers without texts, 6 classes, citations, words as numbers; for use from Python",
        files=(RemoteFile(f"{_LINQS}/lbc/citeseer.tgz", 250_000, "md5:c8ded8ed395b31899576bfd1e91e4d6e", _TORCHDRUG),),
        layout="citeseer",
        licence=_NONE,
        citation=_SEN,
    ),
    Published(
        name="pubmed",
        recipes=("lingugkd",),
        about="19,717 papers on diabetes, their weightiest words as keywords, 3 classes, citations",
        files=(
            RemoteFile(f"{_LINQS}/Pubmed-Diabetes.tgz", 8_000_000, "md5:9fa24b917990c47e264a94079b9599fe", _TORCHDRUG),
        ),
        layout="pubmed",
        licence=_NONE,
        citation='Namata et al., "Query-driven Active Surveying for Collective Classification", MLG 2012',
    ),
    Published(
        name="ogbn-arxiv",
        recipes=("lingugkd",),
        about="169,343 papers with titles and abstracts, 40 classes, citations, split by year",
        files=(
            RemoteFile("https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip", 81_000_000),
            RemoteFile("https://snap.stanford.edu/ogb/data/misc/ogbn_arxiv/titleabs.tsv.gz", 70_000_000),
        ),
        layout="ogbn-arxiv",
        licence="ODC-BY",
        citation=_HU,
    ),
    _table("bbbp", "BBBP.csv", 140_000, "66286cb9e6b148bd75d80c870df580fb", "passing the blood-brain barrier", "p_np"),
    _table(
        "clintox",
        "clintox.csv.gz",
        35_000,
        "db4f2df08be8ae92814e9d6a2d015284",
        "approval, and toxicity in trials",
        "FDA_APPROVED",
        "CT_TOX",
    ),
    _table(
        "esol",
        "delaney-processed.csv",
        97_000,
        "0c90a51668d446b9e3ab77e67662bd1c",
        "solubility in water",
        "measured log solubility in mols per litre",
    ),
    _table("hiv", "HIV.csv", 2_200_000, "9ad10c88f82f1dac7eb5c52b668c30a7", "hindering HIV", "HIV_active"),
    _table("lipo", "Lipophilicity.csv", 240_000, "85a0e1cb8b38b0dfc3f96ff47a57f0ab", "octanol to water, log D", "exp"),
    _table("tox21", "tox21.csv.gz", 125_000, "2882d69e70bba0fec14995f26787cc25", "12 assays of toxicity"),
    _table("sider", "sider.csv.gz", 80_000, "77c0ef421f7cc8ce963c5836c8761fd2", "27 kinds of side effects"),
    _table("freesolv", "SAMPL.csv", 45_000, None, "free energy of hydration, kcal/mol", "expt"),
    _table("bace", "bace.csv", 600_000, "ba7f8fa3fdf463a811fa7edea8c982c2", "binding to BACE-1", "Class"),
    Published(
        name="qm9",
        recipes=_MOLECULES,
        about="133,885 molecules with relaxed coordinates, quantum properties",
        files=(RemoteFile(f"{_DEEPCHEM}/gdb9.tar.gz", 87_000_000, "md5:560f62d8e6c992ca0cf8ed8d013f9131", _TORCHDRUG),),
        layout="gdb",
        licence="not stated at this home",
        citation='Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo molecules", 2014',
    ),
    Published(
        name="gdb7",
        recipes=_MOLECULES,
        about="QM7: about 7,000 molecules with coordinates, energy of atomisation, kcal/mol",
        files=(RemoteFile(f"{_DEEPCHEM}/gdb7.tar.gz", 3_000_000),),
        layout="gdb",
        licence="not stated at this home",
        citation='Rupp et al., "Fast and Accurate Modeling of Molecular Atomization Energies", PRL 108, 2012',
    ),
    Published(
        name="pcqm4m-v2-train",
        recipes=_MOLECULES,
        about="3,378,606 molecules with relaxed coordinates, HOMO-LUMO gap in eV",
        files=(
            RemoteFile(
                "https://dgl-data.s3-accelerate.amazonaws.com/dataset/OGB-LSC/pcqm4m-v2.zip",
                60_000_000,
                "md5:65b742bafca5670be4497499db7d361b",
                "OGB",
            ),
            RemoteFile(
                "http://ogb-data.stanford.edu/data/lsc/pcqm4m-v2-train.sdf.tar.gz",
                1_560_000_000,
                "md5:fd72bce606e7ddf36c2a832badeec6ab",
                "OGB",
            ),
        ),
        layout="pcqm4m-v2",
        licence="CC BY 4.0",
        citation='Hu et al., "OGB-LSC: A Large-Scale Challenge for Machine Learning on Graphs", NeurIPS 2021',
    ),
    Published(
        name="abide",
        recipes=("bleg",),
        about="871 brains of people with and without autism from 20 sites, series of CC200's 200 regions",
        files=(),
        layout="abide",
        licence="CC BY-NC-SA",
        citation='Craddock et al., "The Neuro Bureau Preprocessing Initiative", 2013; Di Martino et al., 2014',
    ),
)


def published(recipe: str) -> tuple[Published, ...]:
    """The public data sets for a recipe."""
    return tuple(each for each in PUBLISHED if recipe in each.recipes)
