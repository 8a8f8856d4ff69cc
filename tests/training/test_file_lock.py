import fcntl
import os
import subprocess
import sys

import pytest

from jaxgkd.errors import StoreError
from jaxgkd.training.file_lock import lock_file, own_folder


def test_one_writer_at_a_time_and_the_next_after_it(tmp_path):
    first = lock_file(tmp_path / ".lock", tmp_path, StoreError)
    with pytest.raises(StoreError, match=f"is being written by process {os.getpid()}; wait until it has finished"):
        lock_file(tmp_path / ".lock", tmp_path, StoreError)
    os.close(first)
    os.close(lock_file(tmp_path / ".lock", tmp_path, StoreError))
    assert (tmp_path / ".lock").read_text() == str(os.getpid())


HOLDS = """
import sys
from pathlib import Path
from jaxgkd.errors import ConfigError
from jaxgkd.training.file_lock import own_folder
owned = own_folder(Path(sys.argv[1]), ConfigError)
print("owned", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_shared_within_a_process_and_refused_to_others(tmp_path):
    one, other = own_folder(tmp_path, StoreError), own_folder(tmp_path / "." / "", StoreError)
    assert one is other
    refused = subprocess.run([sys.executable, "-c", HOLDS, tmp_path], stdin=subprocess.DEVNULL, capture_output=True)
    assert f"is being written by process {os.getpid()}" in refused.stderr.decode() and refused.returncode == 1
    del one, other
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"owned\n"
        with pytest.raises(StoreError, match=f"is being written by process {process.pid}"):
            own_folder(tmp_path, StoreError)
        # However it ends.
        process.kill()
    assert own_folder(tmp_path, StoreError) is not None


def test_a_lock_that_its_owner_deletes_is_not_taken_for_the_next(tmp_path, monkeypatch):
    path, flock = tmp_path / ".lock", fcntl.flock

    def deleted_in_between(descriptor, how):
        if path.exists() and not deleted:
            deleted.append(path)
            path.unlink()
        flock(descriptor, how)

    deleted = []
    monkeypatch.setattr(fcntl, "flock", deleted_in_between)
    descriptor = lock_file(path, tmp_path, StoreError)
    assert deleted and os.path.samestat(os.fstat(descriptor), os.stat(path))
    with pytest.raises(StoreError, match="is being written by process"):
        lock_file(path, tmp_path, StoreError)
    os.close(descriptor)
