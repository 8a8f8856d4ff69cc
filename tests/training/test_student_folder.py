import numpy as np
import pytest

from jaxgkd.errors import CheckpointError, ConfigError
from jaxgkd.training.student_folder import KeptStudent, read_student, write_student


def kept(**changed) -> KeptStudent:
    fields = {
        "recipe": "lingugkd",
        "reads": {"data": "text graph", "width": 3},
        "model": {"kind": "mlp"},
        "says": {"kind": "classes", "names": ["a", "b"]},
        "members": [{"seed": 0, "valid": 0.5}, {"seed": 1, "valid": 0.75}],
        "chosen": [1],
        "why": "best",
        "weights": {"head.bias": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "files": {"vocabulary.json": b'{"terms": []}'},
    }
    return KeptStudent(**(fields | changed))


@pytest.fixture
def run(tmp_path):
    """A folder that looks like a finished run."""
    for name in ("config.json", "summary.json"):
        (tmp_path / name).write_text("{}")
    write_student(tmp_path, kept())
    return tmp_path


def test_what_is_written_is_read_again(run):
    found, given = read_student(run), kept()
    for field in ("recipe", "reads", "model", "says", "members", "chosen", "why", "files"):
        assert getattr(found, field) == getattr(given, field), field
    np.testing.assert_array_equal(found.of_members([1, 0])["head.bias"], [[3, 4, 5], [0, 1, 2]])


def test_a_student_that_is_there_is_replaced_and_no_scratch_is_left(run):
    write_student(run, kept(chosen=[0], files={}))
    assert read_student(run).chosen == [0]
    assert {path.name for path in run.iterdir()} == {"config.json", "summary.json", "student"}
    assert {path.name for path in (run / "student").iterdir()} == {
        "student.json",
        "weights.safetensors",
        "checksums.json",
    }


@pytest.mark.parametrize("name", ["student.json", "weights.safetensors", "vocabulary.json"])
def test_one_changed_byte_is_found_and_the_file_named(run, name):
    path = run / "student" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"student/{name}: the file is damaged"):
        read_student(run)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"student/{name}: the file is missing"):
        read_student(run)


def test_checksums_that_are_gone_or_damaged_are_named(run):
    path = run / "student" / "checksums.json"
    for content in (b"[]", b"{", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checksums\.json"):
            read_student(run)


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("config.json", "is not the folder of a run"),
        ("summary.json", "the run is not finished"),
        ("student", "the run keeps no student"),
    ],
)
def test_folders_that_keep_no_student_say_why(run, missing, what):
    path = run / missing
    path.rename(run.parent / f"moved-{missing}")
    with pytest.raises(ConfigError, match=what):
        read_student(run)
    with pytest.raises(ConfigError, match="does not exist"):
        read_student(run / "nowhere")
