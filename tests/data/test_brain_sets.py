import os
import time
from pathlib import Path

import numpy as np
import pytest

from jaxgkd.data import registry
from jaxgkd.data.brain_counts import describe_brains
from jaxgkd.data.brain_sets import load_brain_set
from jaxgkd.errors import DataError

REAL = pytest.mark.skipif(not os.environ.get("JAXGKD_DATA"), reason="JAXGKD_DATA is not set")
TABLE = "subject,site,age,sex,label\n01,A,10,M,HC\n02,A,11,F,ASD\n03,B,12,M,HC\n04,B,,F,ASD\n"


def values(n=4, r=3, time=20):
    return np.random.default_rng(0).normal(size=(n, time, r)).astype(np.float32)


def cohort(folder, names=("01", "02", "03", "04"), r=3):
    (folder / "series").mkdir(parents=True)
    (folder / "subjects.csv").write_text(TABLE)
    for name, one in zip(names, values(len(names), r), strict=True):
        np.savetxt(folder / "series" / f"{name}.csv", one, delimiter=",")
    return folder


def test_a_folder_of_series(tmp_path):
    (cohort(tmp_path / "mine") / "regions.csv").write_text("name\n7Networks_LH_Vis_1\n7Networks_RH_Vis_1\nx\n")
    brains = load_brain_set(tmp_path / "mine")
    assert (brains.name, brains.subjects, brains.kind) == ("mine", ("01", "02", "03", "04"), "correlation")
    assert brains.networks == ("Vis", "Vis", "")
    assert brains.class_names == ("HC", "ASD")
    assert brains.labels.tolist() == [0, 1, 0, 1]
    assert brains.site_names == ("A", "B")
    assert brains.notes == ()
    np.testing.assert_allclose(brains.connectivity[2], np.corrcoef(values()[2].T), atol=1e-5)
    np.testing.assert_allclose(brains.series[1], values()[1], atol=1e-6)
    counts = describe_brains(brains)
    assert counts["sites"] == {"A": {"HC": 1, "ASD": 1}, "B": {"HC": 1, "ASD": 1}}
    assert counts["covariates"]["age"] == {"missing": 1, "min": 10, "mean": 11, "max": 12}
    assert counts["covariates"]["sex"] == {"missing": 0, "male": 2, "female": 2}
    assert counts["networks"] == {"Vis": 2}
    assert (counts["subjects"], counts["regions"], counts["connections"]) == (4, 3, 3)
    assert counts["time_points"] == {"min": 20, "max": 20}


def test_names_of_files_may_hold_the_subject(tmp_path):
    names = ("Pitt_0001_rois_cc200", "2", "sub-03", "04")
    assert load_brain_set(cohort(tmp_path / "a", names)).subjects == ("04", "02", "01", "03")
    with pytest.raises(DataError, match=r"scan '01_02' could be of the subjects 01 and 02"):
        load_brain_set(cohort(tmp_path / "b", ("01_02", "03", "04", "x")))
    with pytest.raises(DataError, match="subject 01 has two scans"):
        load_brain_set(cohort(tmp_path / "c", ("01", "a_01", "03", "04")))


def test_subjects_without_a_partner_are_counted(tmp_path):
    brains = load_brain_set(cohort(tmp_path / "a", ("01", "02", "04", "77")))
    assert brains.subjects == ("01", "02", "04")
    assert len(brains.series) == len(brains.connectivity) == 3
    assert brains.notes == (
        "1 scan (77) without a row in subjects.csv, left out",
        "1 subject (03) of subjects.csv without a scan, left out",
        "1 site (B) with subjects of a single class",
    )
    with pytest.raises(DataError, match=r"no scan belongs to a subject .*named like '71'"):
        load_brain_set(cohort(tmp_path / "b", ("71", "72")))
    with pytest.raises(DataError, match="no subject with a scan has the label 'ASD'"):
        load_brain_set(cohort(tmp_path / "c", ("01", "03")))


def test_one_file_with_its_companions(tmp_path):
    matrices = np.stack([np.corrcoef(one.T) for one in values()])
    np.savez(tmp_path / "mine_x3_fc.npz", correlation=matrices[::-1], subject=np.array([4, 3, 2, 1]))
    (tmp_path / "mine_x3_subjects.csv").write_text(TABLE)
    (tmp_path / "x3_roi.csv").write_text("name\na\nb\nc\n")
    brains = load_brain_set(tmp_path / "mine_x3_fc.npz")
    assert brains.name == "mine_x3"
    assert brains.subjects == ("04", "03", "02", "01")
    assert brains.labels.tolist() == [1, 0, 1, 0]
    assert brains.regions == ("a", "b", "c")
    np.testing.assert_allclose(brains.connectivity, matrices[::-1], atol=1e-6)
    assert load_brain_set(tmp_path / "mine_x3_fc.npz", label="sex").sha256 != brains.sha256
    (tmp_path / "x3_roi.csv").write_text("name\na\nb\n")
    with pytest.raises(DataError, match=r"x3_roi.csv: the atlas x3_roi.csv has 2 regions and the scans have 3"):
        load_brain_set(tmp_path / "mine_x3_fc.npz")


def test_arrays_without_ids(tmp_path):
    (tmp_path / "subjects.csv").write_text(TABLE)
    np.save(tmp_path / "connectivity.npy", np.stack([np.corrcoef(one.T) for one in values()]))
    assert load_brain_set(tmp_path).notes == ("scans without ids, taken in the order of subjects.csv",)
    np.save(tmp_path / "connectivity.npy", np.stack([np.corrcoef(one.T) for one in values()[:3]]))
    with pytest.raises(DataError, match=r"has 3 scans without ids, and subjects.csv has 4 subjects"):
        load_brain_set(tmp_path)


def test_atlases(tmp_path):
    brains = load_brain_set(cohort(tmp_path / "whole", r=116), atlas="aal90")
    assert brains.n_regions == 90
    assert brains.regions[0] == "Precentral_L"
    assert brains.series[0].shape == (20, 90)
    assert "26 regions of the cerebellum left out of 116" in brains.notes
    with pytest.raises(DataError, match="the atlas aal116 has 116 regions and the scans have 3"):
        load_brain_set(cohort(tmp_path / "small"), atlas="aal116")
    for one in (tmp_path / "small" / "series").iterdir():
        one.write_text("x,y,z\n" + one.read_text())
    assert load_brain_set(tmp_path / "small").regions == ("x", "y", "z")
    (tmp_path / "small" / "regions.csv").write_text("name\ny\nx\nz\n")
    with pytest.raises(DataError, match=r"have the regions of regions.csv in another order"):
        load_brain_set(tmp_path / "small")


def test_folders_without_scans_or_with_several(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_brain_set(tmp_path / "none")
    (tmp_path / "subjects.csv").write_text(TABLE)
    with pytest.raises(DataError, match=r"holds no scans; put connectivity.npz or a folder 'series' there"):
        load_brain_set(tmp_path)
    np.save(tmp_path / "connectivity.npy", np.zeros(3))
    (tmp_path / "series").mkdir()
    with pytest.raises(DataError, match=r"holds connectivity.npy and series; keep one"):
        load_brain_set(tmp_path)


def test_names(tmp_path, monkeypatch):
    cohort(tmp_path / "brain" / "mine")
    for name in ("two_a", "two_b", "one_a"):
        np.savez(tmp_path / "brain" / f"{name}_fc.npz", correlation=values())
    monkeypatch.setenv("JAXGKD_DATA", str(tmp_path))
    assert registry.names("bleg") == ("simulated", "abide", "mine", "one", "two")
    assert registry.load("mine", recipe="bleg").n_subjects == 4
    with pytest.raises(DataError, match="several cohorts 'two'; name one of two_a, two_b"):
        registry.load("two", recipe="bleg")


@REAL
def test_abide():
    started = time.process_time()
    brains = registry.load("abide", recipe="bleg")
    assert time.process_time() - started < 6  # about 2 where nothing else runs
    assert (brains.n_subjects, brains.n_regions, len(brains.site_names)) == (820, 200, 19)
    assert brains.class_names == ("HC", "ASD")
    assert np.bincount(brains.labels).tolist() == [425, 395]
    assert len(set(brains.networks)) == 7
    assert "" not in brains.networks
    assert brains.subjects[0] == "50551"
    assert brains.site_names[brains.sites[0]] == "YALE"
    assert brains.covariates["age"][0] == pytest.approx(15.92)
    np.testing.assert_array_equal(brains.connectivity, brains.connectivity.swapaxes(1, 2))
    assert np.abs(brains.connectivity).max() == 1
    with np.load(Path(os.environ["JAXGKD_DATA"]) / "brain" / "abide_schaefer200_fc.npz") as file:
        np.testing.assert_array_equal(brains.upper[17], file["fc_upper"][17].astype(np.float32))
    assert any("3 sites (CALTECH, MAXMUN_b, TRINITY)" in note for note in brains.notes)
    assert any("in 1 subject" in note for note in brains.notes)
