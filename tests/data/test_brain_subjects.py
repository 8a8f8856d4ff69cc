import numpy as np
import pytest

from jaxgkd.data.brain_subjects import read_subjects
from jaxgkd.errors import DataError


def write(tmp_path, text):
    path = tmp_path / "subjects.csv"
    path.write_text(text)
    return path


def test_a_table(tmp_path):
    text = "subject,site,age,sex,label\n007,B,12.5,male,ASD\n8,A,,F,HC\nx,,-9999,,n/a\n9,A,30,female,ASD\n"
    subjects = read_subjects(write(tmp_path, text))
    assert subjects.ids == ("007", "8", "x", "9")
    assert subjects.keys == ("7", "8", "x", "9")
    assert subjects.class_names == ("HC", "ASD")  # the group without a diagnosis comes first
    assert subjects.labels.tolist() == [1, 0, -1, 1]
    assert [subjects.site_names[site] for site in subjects.sites] == ["B", "A", "unknown", "A"]
    np.testing.assert_array_equal(subjects.covariates["age"], np.float32([12.5, np.nan, np.nan, 30]))
    np.testing.assert_array_equal(subjects.covariates["sex"], np.float32([1, 0, np.nan, 0]))
    said = " ".join(subjects.notes)
    for fact in ("1 subject without a site", "1 subject with an age below 0", "1 subject without a label"):
        assert fact in said


def test_another_label_and_codes(tmp_path):
    subjects = read_subjects(write(tmp_path, "subject,label,group,sex\na,1,2,1\nb,1,1,2\n"), label="group")
    assert subjects.class_names == ("1", "2")
    assert subjects.labels.tolist() == [1, 0]
    assert subjects.covariates["sex"].tolist() == [1, 0]
    assert subjects.site_names == ("all",)
    assert "read as male and female" in " ".join(subjects.notes)
    # A covariate that is to be predicted is none.
    assert "sex" not in read_subjects(tmp_path / "subjects.csv", label="sex").covariates


def test_listed_classes_keep_their_order(tmp_path):
    (tmp_path / "classes.json").write_text('["ASD", "HC"]')
    subjects = read_subjects(write(tmp_path, "subject,label\na,HC\nb,ASD\n"))
    assert subjects.class_names == ("ASD", "HC")
    assert subjects.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label\nx\n", "no column 'subject'"),
        ("subject,group\na,x\n", "no column 'label'.*name another one"),
        ("subject,label\na,x\nb,y\n0a,x\na,y\n", "row 5.*'a' is also in row 2"),
        ("subject,label\n01,x\n1,y\n", "row 3.*'1' is also in row 2"),
        ("subject,label\na,x\n ,y\n", "row 3.*no id"),
        ("subject,label,age\na,x,ten\nb,y,3\n", "row 2, field 'age': 'ten' is not an age"),
        ("subject,label,age\na,x,1200\nb,y,3\n", "not an age in years"),
        ("subject,label,sex\na,x,3\nb,y,1\n", "row 2, field 'sex': '3' is not a sex"),
        ("subject,label\na,x\nb,x\n", "every label is 'x'"),
        ("subject,label\n", "no subjects"),
    ],
)
def test_bad_tables(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_subjects(write(tmp_path, text))
