import os
import subprocess
import sys

import pytest

from jaxgkd.cores import available_cores


def test_there_is_a_core():
    assert 1 <= available_cores() <= os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_cores_that_a_process_may_not_use_do_not_count():
    code = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); "
    code += "from jaxgkd.cores import available_cores; print(available_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"1"
