"""ABIDE through nilearn: series of regions, and a table of subjects, as a folder that ``load_brain_set`` reads."""

import csv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from jaxgkd.errors import ConfigError, DataError

_GROUPS = {1: "ASD", 2: "HC"}
_SEXES = {1: "M", 2: "F"}
_DERIVATIVE = "rois_cc200"


def write_abide(folder: Path, downloads: Path, fetch_abide_pcp: Callable[..., Any] | None = None) -> None:
    """Write ``subjects.csv`` and a folder ``series`` with one file a subject.

    Preprocessed by CPAC with band-pass filter and without global signal regression, subjects whose quality was checked;
    nilearn downloads them and compares what it can.

    Args:
      folder: to write into; downloads: where nilearn keeps what it downloads.
      fetch_abide_pcp: nilearn's function of this name; another one for tests.

    Raises:
      ConfigError: nilearn is not installed.
      DataError: the download failed, or is not what is expected.
    """
    fetch = fetch_abide_pcp or _nilearn()
    try:
        found = fetch(
            data_dir=str(downloads),
            pipeline="cpac",
            band_pass_filtering=True,
            global_signal_regression=False,
            derivatives=[_DERIVATIVE],
            quality_checked=True,
        )
    except Exception as error:  # whatever the network makes of it
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"nilearn could not download ABIDE ({reason})", mend="run the same command again") from error
    series, people = found[_DERIVATIVE], found["phenotypic"]
    columns = {
        name: np.asarray(people[name]).tolist() for name in ("SUB_ID", "SITE_ID", "DX_GROUP", "AGE_AT_SCAN", "SEX")
    }
    if len(series) != len(columns["SUB_ID"]):
        what = f"nilearn gave {len(series)} scans for {len(columns['SUB_ID'])} people"
        raise DataError(what, mend="delete what it downloaded and run the command again", file=downloads)
    (folder / "series").mkdir()
    with (folder / "subjects.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("subject", "site", "age", "sex", "label"))
        for values, subject, site, group, age, sex in zip(series, *columns.values(), strict=True):
            values = np.loadtxt(values) if isinstance(values, str | Path) else np.asarray(values)
            np.save(folder / "series" / f"{int(subject)}.npy", values.astype(np.float32), allow_pickle=False)
            site = site.decode() if isinstance(site, bytes) else site
            writer.writerow((int(subject), site, age, _SEXES.get(int(sex), ""), _GROUPS.get(int(group), "")))


def _nilearn() -> Callable[..., Any]:
    try:
        return import_module("nilearn.datasets").fetch_abide_pcp
    except ImportError as error:
        raise ConfigError("ABIDE comes through nilearn, which is not installed", mend="pip install nilearn") from error
