"""A short form of experiments/chaos: work that is killed at random moments ends like work that is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.thorough
@pytest.mark.parametrize("work", ["extraction", "training", "describing"])
def test_killed_work_ends_like_undisturbed_work(work, tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "chaos" / "chaos.py"), "--kills", "2", "--only", work]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "found.json")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())[work]
    assert found["kills"] == 2 and {each["sha256"] for each in found["finished"]} == {found["undisturbed_sha256"]}
