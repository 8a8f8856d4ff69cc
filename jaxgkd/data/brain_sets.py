"""A cohort of brains from a folder or from files that belong together.

A folder holds

- ``subjects.csv``: ``subject``, ``label``, and where known ``site``, ``age``, ``sex`` (see `brain_subjects`);
- the scans, in one of three ways (see `brain_scans`): one file ``connectivity.npz``, ``.npy`` or ``.mat`` (or
  ``series.npz``, …) for all subjects; a folder ``series`` with one file a subject, rows being time points and columns
  regions; or a folder ``connectivity`` with one matrix of correlations a subject. The name of a subject's file is the
  subject's id, or holds it between underscores and hyphens (``Pitt_0050003_rois_cc200.1D`` is subject 50003);
- if you like, ``regions.csv`` (see `brain_atlases`) and ``classes.json``, a list of the classes in their order.

Instead of a folder one file of scans may be given: ``NAME_fc.npz`` goes with ``NAME_subjects.csv`` (or
``subjects.csv``) and with ``NAME_roi.csv``, ``NAME_regions.csv`` or ``regions.csv``; where NAME ends in the name of an
atlas, as ``abide_schaefer200`` does, ``schaefer200_roi.csv`` counts too.
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from jaxgkd.data.brain_atlases import Atlas, named_atlas, network_of, read_atlas, unnamed_atlas
from jaxgkd.data.brain_scans import Scans, read_scan_array, read_scan_folder
from jaxgkd.data.brain_subjects import Subjects, read_subjects, subject_key
from jaxgkd.data.brains import Brains
from jaxgkd.data.tables import find_table
from jaxgkd.errors import DataError

_ARRAYS = (".npz", ".npy", ".mat")
_STEMS = ("connectivity", "correlation", "fc", "series")
_MARKS = ("_fc", "_connectivity", "_correlation", "_series")
_NAMED = 5


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a cohort lie; ``scans`` is a file or a folder."""

    name: str
    scans: Path
    subjects: Path
    regions: Path | None


def subjects_table(path: Path) -> Path:
    """The table of subjects that `load_brain_set` reads for a path. Raises DataError where there is none."""
    return _layout(path).subjects


def find_brain_set(folder: Path, name: str) -> Path | None:
    """What `load_brain_set` takes for ``name`` in a folder of cohorts: a folder, NAME_fc.npz or NAME_<atlas>_fc.npz.

    Raises:
      DataError: there are several.
    """
    if (folder / name).is_dir():
        return folder / name
    if (folder / f"{name}_fc.npz").is_file():
        return folder / f"{name}_fc.npz"
    found = sorted(folder.glob(f"{name}_*_fc.npz"))
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix("_fc.npz") for path in found)
        raise DataError(f"there are several cohorts '{name}'", file=folder, mend=f"name one of {names}")
    return found[0] if found else None


def brain_set_names(folder: Path) -> set[str]:
    """Names of the cohorts in a folder: its folders, and the files NAME_fc.npz without their atlas."""
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    return folders | {path.name.split("_")[0] for path in folder.glob("*_fc.npz")}


def load_brain_set(path: str | PathLike[str], *, label: str | None = "label", atlas: str | None = None) -> Brains:
    """Reads a cohort, see the module. Subjects come in the order of the scans.

    Args:
      path: the folder, or the file of scans.
      label: column of the table of subjects that is to be predicted; None reads no label, for new subjects.
      atlas: ``aal90`` or ``aal116`` names the regions where there is no table of them; ``aal90`` keeps the cerebrum of
        scans with all 116 regions.

    Raises:
      DataError: a file is missing or cannot be read, files do not belong together, or values cannot be used.
      ConfigError: there is no such atlas.
    """
    layout = _layout(Path(path).expanduser())
    subjects = read_subjects(layout.subjects, label=label)
    if layout.scans.is_dir():
        holds = "series" if layout.scans.name == "series" else "correlation"
        scans = read_scan_folder(layout.scans, holds)
    else:
        scans = read_scan_array(layout.scans)
    scans, regions = _name_regions(scans, layout, atlas)
    rows, kept, match_notes = _match(scans, subjects)
    labels, sites = subjects.labels[rows], subjects.sites[rows]
    whole = len(kept) == len(scans.correlations) and (kept == np.arange(len(kept))).all()
    used = np.unique(sites)
    found = Brains(
        name=layout.name,
        sha256=_hash(
            [*scans.files, layout.subjects, layout.regions, layout.subjects.parent / "classes.json"], label, atlas
        ),
        subjects=tuple(subjects.ids[row] for row in rows),
        connectivity=scans.correlations if whole else scans.correlations[kept],
        kind="correlation",
        labels=labels,
        class_names=subjects.class_names,
        sites=np.searchsorted(used, sites).astype(np.int32),
        site_names=tuple(subjects.site_names[site] for site in used),
        regions=regions.regions,
        networks=regions.networks,
        covariates={name: values[rows] for name, values in subjects.covariates.items()},
        series=None if scans.series is None else tuple(scans.series[i] for i in kept),
        notes=(*subjects.notes, *scans.notes, *match_notes),
    )
    return dataclasses.replace(found, notes=(*found.notes, *_class_notes(found, layout.subjects)))


def _layout(path: Path) -> _Layout:
    if path.is_file():
        stem = path.name[: -len(path.suffix)]
        stem = next((stem[: -len(mark)] for mark in _MARKS if stem.endswith(mark)), stem)
        near = path.parent
        own = any((near / f"{stem}_subjects{ending}").exists() for ending in (".csv", ".csv.gz", ".parquet"))
        atlas = stem.rpartition("_")[2]
        names = (f"{stem}_roi.csv", f"{stem}_regions.csv", f"{atlas}_roi.csv", "regions.csv")
        regions = next((near / name for name in names if (near / name).is_file()), None)
        return _Layout(stem, path, find_table(near, f"{stem}_subjects" if own else "subjects"), regions)
    subjects = find_table(path, "subjects")
    places = [path / f"{stem}{ending}" for stem in _STEMS for ending in _ARRAYS]
    places += [path / stem for stem in _STEMS]
    found = [place for place in places if (place.is_dir() if not place.suffix else place.is_file())]
    if len(found) != 1:
        what = f"holds {' and '.join(place.name for place in found)}" if found else "holds no scans"
        mend = "keep one of them" if found else "put connectivity.npz or a folder 'series' there"
        raise DataError(what, file=path, mend=mend)
    regions = path / "regions.csv"
    return _Layout(path.resolve().name, found[0], subjects, regions if regions.is_file() else None)


def _name_regions(scans: Scans, layout: _Layout, atlas: str | None) -> tuple[Scans, Atlas]:
    n_regions = scans.correlations.shape[1]
    if atlas is not None:
        regions = named_atlas(atlas)
        if (len(regions), n_regions) == (90, 116):
            scans = dataclasses.replace(
                scans,
                correlations=np.ascontiguousarray(scans.correlations[:, :90, :90]),
                series=None if scans.series is None else tuple(values[:, :90] for values in scans.series),
                notes=(*scans.notes, "26 regions of the cerebellum left out of 116"),
            )
            return scans, regions
    elif layout.regions is not None:
        regions = read_atlas(layout.regions)
    elif scans.header is not None:
        numbered = all(name.isdigit() for name in scans.header)
        names = tuple(f"region {name}" if numbered else name for name in scans.header)
        regions = Atlas("the header of the scans", names, tuple(network_of(name) for name in names))
        if len(set(names)) < len(names):
            raise DataError("two columns have the same name", file=scans.path, mend="give every region its own name")
    else:
        regions = unnamed_atlas(n_regions)
    if len(regions) != n_regions:
        what = f"the atlas {regions.name} has {len(regions)} regions and the scans have {n_regions}"
        raise DataError(what, file=layout.regions or scans.path, mend="give the atlas the scans were extracted with")
    if scans.header is not None and set(scans.header) == set(regions.regions) and scans.header != regions.regions:
        what = f"the scans have the regions of {regions.name} in another order"
        raise DataError(what, file=layout.regions or scans.path, mend="bring them into the order of the scans")
    return scans, regions


def _match(scans: Scans, subjects: Subjects) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows of the table and the scans they belong to, in the order of the scans."""
    row_of = {key: row for row, key in enumerate(subjects.keys)}
    n_scans = len(scans.correlations)
    if scans.subjects is None:
        if n_scans != len(subjects.ids):
            what = f"has {n_scans} scans without ids, and {subjects.path.name} has {len(subjects.ids)} subjects"
            raise DataError(what, file=scans.path, mend="save the ids with the scans in an NPZ file, as 'subject'")
        everyone = np.arange(n_scans)
        return everyone, everyone, [f"scans without ids, taken in the order of {subjects.path.name}"]
    owners = [
        _owner(name, row_of, in_names=scans.series is not None or len(scans.files) > 1) for name in scans.subjects
    ]
    for name, owner in zip(scans.subjects, owners, strict=True):
        if isinstance(owner, list):
            what = f"scan '{name}' could be of the subjects {' and '.join(subjects.ids[row] for row in owner)}"
            raise DataError(what, file=scans.path, mend="name every file after its subject")
    matched = [(row, scan) for scan, row in enumerate(owners) if isinstance(row, int)]
    if not matched:
        what = f"no scan belongs to a subject of {subjects.path.name} (scans are named like '{scans.subjects[0]}')"
        raise DataError(what, file=scans.path, mend="write the same ids in both")
    rows, kept = (np.array(part) for part in zip(*matched, strict=True))
    if len(np.unique(rows)) < len(rows):
        twice = int(np.flatnonzero(np.bincount(rows) > 1)[0])
        raise DataError(f"subject {subjects.ids[twice]} has two scans", file=scans.path, mend="keep one of them")
    alone = [scans.subjects[scan] for scan, row in enumerate(owners) if row is None]
    without = [subjects.ids[row] for row in sorted(set(range(len(subjects.ids))) - set(rows.tolist()))]
    notes = [f"{_listed(alone, 'scan')} without a row in {subjects.path.name}, left out"] if alone else []
    notes += [f"{_listed(without, 'subject')} of {subjects.path.name} without a scan, left out"] if without else []
    return rows, kept, notes


def _owner(name: str, row_of: dict[str, int], *, in_names: bool) -> int | list[int] | None:
    """The subject a scan belongs to: of its name, or of one part of a file's name; several where that is not clear."""
    if (row := row_of.get(subject_key(name))) is not None or not in_names:
        return row
    parts = re.split(r"[_\-]", name)
    whole = ["_".join(parts[:end]) for end in range(1, len(parts))]  # FILE_ID columns such as Pitt_0050003
    rows = {row_of[key] for each in (*parts, *whole) if (key := subject_key(each)) in row_of}
    return None if not rows else rows.pop() if len(rows) == 1 else sorted(rows)


def _class_notes(brains: Brains, path: Path) -> list[str]:
    counts = np.zeros((len(brains.site_names), len(brains.class_names)), int)
    labelled = brains.labels >= 0
    np.add.at(counts, (brains.sites[labelled], brains.labels[labelled]), 1)
    empty = [name for name, count in zip(brains.class_names, counts.sum(axis=0), strict=True) if not count]
    if empty:
        raise DataError(f"no subject with a scan has the label '{empty[0]}'", file=path, mend="add subjects of it")
    single = [name for name, row in zip(brains.site_names, counts, strict=True) if np.count_nonzero(row) == 1]
    return [f"{_listed(single, 'site')} with subjects of a single class"] if single and len(counts) > 1 else []


def _hash(files: list[Path | None], label: str | None, atlas: str | None) -> str:
    digest = hashlib.sha256(f"{label} {atlas} ".encode())
    for path in files:
        if path is not None and path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


def _listed(names: list[str], what: str) -> str:
    listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'} ({listed})"
