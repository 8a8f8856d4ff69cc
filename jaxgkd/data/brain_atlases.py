"""Region names of brain atlases and the networks they belong to: read from a table, or those of AAL which are built in.

A table has one row a region, in the order of the scans, with its name in a column ``name``, ``region``, ``roi`` or
``label`` and, where it is known, its network in a column ``network``. Three layouts are known besides:

- Schaefer's, whose names say the network (``7Networks_LH_Vis_1``, ``17Networks_RH_DefaultA_IPL_1``);
- AAL's (``Precentral_L``, …), whose 116 regions lie in the order of the lobes; the lobe stands for the network, and
  the first 90 are the cerebrum;
- that of CC200, with ``ROI number`` and shares of other atlases such as ``["Cuneus_L": 0.60]["None": 0.40]``: regions
  are named after the largest share that has a name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from jaxgkd.data.tables import read_table
from jaxgkd.errors import ConfigError, DataError, shown

_NAME_COLUMNS = ("name", "region", "roi", "label", "roi_name", "region_name", "roi name", "region name")
_NUMBER_COLUMNS = ("roi number", "roi_number", "number")
_ANATOMY_COLUMNS = ("automated anatomical labeling", "aal", "harvard-oxford", "eickhoff-zilles", "talairach-tournoux")
_SHARE = re.compile(r'\[?"([^"]+)":\s*([0-9.]+)\]?')
_SCHAEFER = re.compile(r"(?:\d*Networks|simulated)_(?:LH|RH)_([A-Za-z]+)(?:_\w+)?")

# Stems in the order of AAL, grouped by what stands for a network; every stem has a left region, then a right one.
_AAL_PAIRS = {
    "frontal": "Precentral Frontal_Sup Frontal_Sup_Orb Frontal_Mid Frontal_Mid_Orb Frontal_Inf_Oper Frontal_Inf_Tri "
    "Frontal_Inf_Orb Rolandic_Oper Supp_Motor_Area Olfactory Frontal_Sup_Medial Frontal_Med_Orb Rectus",
    "insula": "Insula",
    "cingulate": "Cingulum_Ant Cingulum_Mid Cingulum_Post",
    "limbic": "Hippocampus ParaHippocampal Amygdala",
    "occipital": "Calcarine Cuneus Lingual Occipital_Sup Occipital_Mid Occipital_Inf Fusiform",
    "parietal": "Postcentral Parietal_Sup Parietal_Inf SupraMarginal Angular Precuneus Paracentral_Lobule",
    "subcortical": "Caudate Putamen Pallidum Thalamus",
    "temporal": "Heschl Temporal_Sup Temporal_Pole_Sup Temporal_Mid Temporal_Pole_Mid Temporal_Inf",
    "cerebellum": "Cerebelum_Crus1 Cerebelum_Crus2 Cerebelum_3 Cerebelum_4_5 Cerebelum_6 Cerebelum_7b Cerebelum_8 "
    "Cerebelum_9 Cerebelum_10",
}
_AAL_VERMIS = "Vermis_1_2 Vermis_3 Vermis_4_5 Vermis_6 Vermis_7 Vermis_8 Vermis_9 Vermis_10"
_AAL = [
    *((f"{stem}_{side}", lobe) for lobe, stems in _AAL_PAIRS.items() for stem in stems.split() for side in "LR"),
    *((stem, "vermis") for stem in _AAL_VERMIS.split()),
]
_LOBES = dict(_AAL)


@dataclass(frozen=True)
class Atlas:
    """Regions in the order of the scans.

    Fields:
      name: for notes.
      regions: [r] names, each once.
      networks: [r], "" where none is known.
    """

    name: str
    regions: tuple[str, ...]
    networks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.regions)


def named_atlas(name: str) -> Atlas:
    """A built-in atlas: ``aal90`` or ``aal116``. Raises ConfigError for any other name."""
    sizes = {"aal90": 90, "aal116": 116}
    if name not in sizes:
        mend = f"use {' or '.join(sizes)}, or put a regions.csv beside the scans"
        raise ConfigError(f"there is no atlas '{name}'", field="atlas", mend=mend)
    entries = _AAL[: sizes[name]]
    return Atlas(name, tuple(region for region, _ in entries), tuple(lobe for _, lobe in entries))


def unnamed_atlas(n_regions: int) -> Atlas:
    """Regions that are only numbered, from 1."""
    return Atlas("", tuple(f"region {i}" for i in range(1, n_regions + 1)), ("",) * n_regions)


def network_of(region: str) -> str:
    """The network a region's name says, "" where it says none.

    >>> network_of("7Networks_LH_DorsAttn_Post_1"), network_of("Cuneus_R"), network_of("ROI 7")
    ('DorsAttn', 'occipital', '')
    """
    match = _SCHAEFER.fullmatch(region)
    return match[1] if match else _LOBES.get(region, "")


def read_atlas(path: Path) -> Atlas:
    """Reads a table of regions, see the module.

    Raises:
      DataError: it cannot be read, has no column of names, or a region has no name or that of another one.
    """
    table = read_table(path)
    columns = {name.strip().lower(): name for name in table.columns}
    column = next((columns[name] for name in _NAME_COLUMNS if name in columns), None)
    number = next((columns[name] for name in _NUMBER_COLUMNS if name in columns), None)
    if column is None and number is None:
        found = ", ".join(f"'{name}'" for name in list(table.columns)[:10])
        mend = "add a column 'name' with one region a row"
        raise DataError(
            f"there is no column of region names, the columns are {shown(found, 200)}", file=path, mend=mend
        )
    if not len(table):
        raise DataError("there are no regions", file=path, mend="write one row a region")
    names = [cell.strip() for cell in table.columns[column or number or ""]]
    if column is None:
        anatomy = next((columns[name] for name in _ANATOMY_COLUMNS if name in columns), None)
        shares = table.columns[anatomy] if anatomy else [""] * len(names)
        names = [_name_of_shares(number, cell) for number, cell in zip(names, shares, strict=True)]
    first: dict[str, int] = {}
    for name, row in zip(names, table.rows, strict=True):
        if not name or name in first:
            what = f"region '{shown(name)}' is also in row {first[name]}" if name else "the region has no name"
            raise DataError(what, file=path, row=row, field=column or number, mend="give every region its own name")
        first[name] = row
    if "network" in columns:
        networks = tuple(cell.strip() for cell in table.columns[columns["network"]])
    else:
        networks = tuple(network_of(name) for name in names)
    return Atlas(path.name, tuple(names), networks)


def _name_of_shares(number: str, cell: str) -> str:
    """The region of another atlas that has the largest share, with the number since several may share it."""
    shares = [(float(share), name) for name, share in _SHARE.findall(cell) if name.lower() != "none"]
    name = max(shares, key=lambda entry: entry[0])[1] if shares else "ROI"
    return f"{name} {number}" if number else ""
