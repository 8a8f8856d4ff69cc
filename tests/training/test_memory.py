import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgkd.training import memory

FAULTS = """
import ctypes, resource, sys
from jaxgkd.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def touch():
    block = libc.malloc(100 * 2**20)
    libc.memset(block, 1, 100 * 2**20)
    libc.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    ran = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_without_a_fault():
    # 100 MiB three times, in pages of 4 KiB or, where the system gives huge ones, of 2 MiB.
    given_back, kept = faults("given back"), faults("kept")
    assert given_back >= 100 and kept < given_back / 10


def test_other_c_libraries_go_without(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()


@pytest.mark.skipif(platform.system() != "Linux", reason="the system says it in /proc")
def test_the_peak_is_what_the_system_says_in_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    # What was held before this program was loaded may count too.
    assert 0.99 * kibibytes / 1024 <= memory.peak_memory_mb() < 1024 * kibibytes / 1024
