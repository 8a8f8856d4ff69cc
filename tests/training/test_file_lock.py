import os

import pytest

from jaxgkd.errors import StoreError
from jaxgkd.training.file_lock import lock_file


def test_one_writer_at_a_time_and_the_next_after_it(tmp_path):
    first = lock_file(tmp_path / ".lock", tmp_path, StoreError)
    with pytest.raises(StoreError, match=f"is being written by process {os.getpid()}; wait until it has finished"):
        lock_file(tmp_path / ".lock", tmp_path, StoreError)
    os.close(first)
    os.close(lock_file(tmp_path / ".lock", tmp_path, StoreError))
    assert (tmp_path / ".lock").read_text() == str(os.getpid())
