import os
import subprocess
import sys

import pytest

from jaxgkd.data.workers import map_chunks
from jaxgkd.errors import ConfigError, DataError


def test_in_order_in_this_process():
    assert list(map_chunks(sum, ([i, i] for i in range(30)), workers=1)) == [2 * i for i in range(30)]
    assert list(map_chunks(sum, [], workers=4)) == []
    # Where there are but a few chunks, the work is done here.
    assert list(map_chunks(lambda chunk: os.getpid(), [0] * 3, workers=4, few=3)) == [os.getpid()] * 3


def test_in_order_in_several_processes_reading_no_further_than_needed():
    read = []

    def chunks():
        for i in range(40):
            read.append(i)
            yield [i, i]

    results = map_chunks(sum, chunks(), workers=2, few=2)
    assert next(results) == 0
    assert len(read) <= 8
    assert list(results) == [2 * i for i in range(1, 40)]


def test_errors_come_through_and_a_death_is_told():
    with pytest.raises(TypeError):
        list(map_chunks(sum, [[0], ["a"], [1]], workers=2, few=1))
    with pytest.raises(ConfigError, match="died"):
        list(map_chunks(os._exit, [3, 3, 3], workers=1 + 1, few=1))
    with pytest.raises(ConfigError, match="0 processes"):
        list(map_chunks(sum, [], workers=0))

    def chunks():
        yield [1]
        yield [2]
        raise DataError("bad row")

    with pytest.raises(DataError, match="bad row"):
        list(map_chunks(sum, chunks(), workers=2, few=1))


def test_a_script_without_a_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from jaxgkd.data.workers import map_chunks\n"
        "print(list(map_chunks(sum, [[i] for i in range(4)], workers=2, few=1)))\n"
        "print(__name__)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert run.stdout == "[0, 1, 2, 3]\n__main__\n" and run.stderr == ""
