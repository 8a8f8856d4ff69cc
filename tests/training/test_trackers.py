"""Trackers are read back from the files they write; Weights & Biases in its offline mode."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgkd.errors import ConfigError
from jaxgkd.training.trackers import TensorBoard, curves, results

SECRET = "0123456789abcdef0123456789abcdef01234567"


def events(folder: Path) -> dict[str, list]:
    """Every value of the event files in one folder: tag → (step, value) in the order they were written."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list] = {}
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def test_curves_are_sorted_by_row_seed_and_fold(tmp_path):
    lines = [
        '{"row": "student_alone", "seed": 1, "epoch": 20, "valid": 0.5}',
        '{"row": "student_alone", "seed": 1, "epoch": 10, "valid": 0.4, "note": "text"}',
        '{"row": "student_alone", "seed": 1, "epoch": 20, "valid": 0.75}',
        '{"row": "teacher", "seed": 0, "fold": 2, "epoch": 1, "loss/label": 3}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert curves(tmp_path) == {
        ("student_alone", "seed 1"): [
            {"epoch": 10, "values": {"valid": 0.4}},
            {"epoch": 20, "values": {"valid": 0.75}},
        ],
        ("teacher", "seed 0, fold 2"): [{"epoch": 1, "values": {"loss/label": 3.0}}],
    }
    assert curves(tmp_path / "nowhere") == {}


def test_results_leave_out_what_has_no_value(run_directory, summary):
    given = summary(seeds=1)
    given["results"]["forest"] = {"not_run": "no package"}
    folder = run_directory(summary=given, metrics={}, predictions={})
    assert set(results(folder)) == {
        "test accuracy of teacher",
        "test accuracy of student_alone",
        "test accuracy of student_distilled",
        "distilled minus alone",
    }


def test_tensorboard_holds_progress_curves_results_and_figures(run_directory, tmp_path):
    from jaxgkd.report import write_report

    folder, logs = run_directory(metrics={"seeds": 2, "epochs": 20}), tmp_path / "logs" / "run"
    write_report(folder)
    tracker = TensorBoard(logs)
    assert not logs.exists()
    tracker.progress("student_alone: 5 seeds", 10, 0.25)
    tracker.progress("student_alone: 5 seeds", 20, 0.5)
    tracker.finished(folder)
    main = events(logs)
    # TensorBoard allows no spaces and colons in a name.
    progress = main["progress/student_alone__5_seeds"]
    assert [(step, value.simple_value) for step, value in progress] == [(10, 0.25), (20, 0.5)]
    (found,) = main["result/test_accuracy_of_teacher"]
    assert found[1].simple_value == pytest.approx(results(folder)["test accuracy of teacher"], rel=1e-6)
    assert main["results"][0][1].image.encoded_image_string.startswith(b"\x89PNG")
    assert main["report/text_summary"][0][1].tensor.string_val[0].startswith(b"# lingugkd")
    for (row, repeat), lines in curves(folder).items():
        written = events(logs / f"{row}, {repeat}")
        assert set(written) == set(lines[0]["values"])
        assert [step for step, _ in written["valid"]] == [line["epoch"] for line in lines] == [5, 10, 15, 20]
        values = [line["values"]["valid"] for line in lines]
        assert [value.simple_value for _, value in written["valid"]] == pytest.approx(values, rel=1e-6)


def test_a_run_that_is_refused_leaves_no_event_file(tmp_path):
    TensorBoard(tmp_path / "logs").abandoned()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("package", "extra"), [("tensorboardX", "tensorboard"), ("wandb", "wandb")])
def test_missing_package_names_the_extra(monkeypatch, tmp_path, package, extra):
    from jaxgkd.training import trackers

    monkeypatch.setitem(sys.modules, package, None)
    make = trackers.TensorBoard if package == "tensorboardX" else lambda path: trackers.WeightsAndBiases(path, "run")
    with pytest.raises(ConfigError, match=rf"{package} is not installed; run pip install 'jaxgkd\[{extra}\]'"):
        make(tmp_path)


OFFLINE = """
import sys
from pathlib import Path
from jaxgkd.training.trackers import WeightsAndBiases
tracker = WeightsAndBiases(Path(sys.argv[2]), "a-name")
tracker.progress("student_alone", 10, 0.25)
tracker.finished(Path(sys.argv[1]))
"""


def in_a_process(script: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """W&B starts a service of its own, which ends with the process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(
        command, env=kept | {"HOME": str(arguments[-1]), **environment}, capture_output=True, text=True, timeout=120
    )


def test_wandb_offline_keeps_the_run_here_and_the_key_nowhere(run_directory, tmp_path):
    pytest.importorskip("wandb")
    folder, logs = run_directory(metrics={"seeds": 2, "epochs": 20}), tmp_path / "logs"
    logs.mkdir()
    done = in_a_process(OFFLINE, folder, logs, WANDB_MODE="offline", WANDB_API_KEY=SECRET)
    assert done.returncode == 0, done.stderr
    (kept,) = logs.glob("wandb/offline-run-*/run-*.wandb")
    content = kept.read_bytes()
    for part in (
        "progress/student_alone",
        "valid/student_distilled, seed 1",
        "result/test accuracy of teacher",
        "a-name",
    ):
        assert part.encode() in content
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert SECRET not in done.stdout + done.stderr


def test_wandb_without_a_key_says_how_to_give_one(tmp_path):
    pytest.importorskip("wandb")
    script = (
        "import sys\nfrom pathlib import Path\nfrom jaxgkd.errors import ConfigError\n"
        "from jaxgkd.training.trackers import WeightsAndBiases\n"
        "try:\n    WeightsAndBiases(Path(sys.argv[1]), 'run')\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = in_a_process(script, tmp_path, WANDB_MODE="online")
    assert "set WANDB_API_KEY" in done.stdout, done.stdout + done.stderr
