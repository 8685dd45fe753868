"""Machine code of kernels: compiled once, kept, and loaded without the compiler."""

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import carray

from loquent.kernels.cpu.compiler import compiled
from loquent.kernels.cpu.machine_code import load, target_machine
from loquent.kernels.cpu.runtime import kernel

SOURCE = """
import numpy as np
from numba import carray
from loquent.kernels.cpu.compiler import next_task

def count(data):
    job = carray(data, (3,), np.int64)
    while next_task(data) < job[1]:
        job[2] += 1
"""
SCRIPT = """
import ctypes, sys
from loquent.kernels.cpu.machine_code import load, machine_code
address, code = load(machine_code("kernel_under_test", "count"), "count")
job = (ctypes.c_int64 * 3)(0, 3, 0)
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(job))
assert job[2] == 3, list(job)
print("compiled" if "numba" in sys.modules else "loaded")
"""


@pytest.fixture
def start(tmp_path: Path):
    """Run the kernel in a process of its own with a cache folder; says whether it was compiled there, or loaded."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "kernel_under_test.py").write_text(SOURCE)

    def run(cache: Path) -> str:
        path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "LOQUENT_CACHE": str(cache), "PYTHONPATH": path}
        command = [sys.executable, "-c", SCRIPT]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    return run


def test_the_second_process_needs_no_compiler(start, tmp_path):
    cache = tmp_path / "cache"
    assert [start(cache), start(cache)] == ["compiled", "loaded"]
    (file,) = cache.rglob("kernel_under_test.count.o")
    assert [one for one in file.parent.iterdir() if one != file] == [], "nothing but the machine code is left"
    file.write_bytes(file.read_bytes()[:-1])
    assert [start(cache), start(cache)] == ["compiled", "loaded"], "what is damaged is made again"


def test_where_there_is_no_room_for_a_cache_it_is_compiled_all_the_same(start, tmp_path):
    nowhere = tmp_path / "a file"
    nowhere.write_text("which leaves no place for a folder")
    assert start(nowhere) == "compiled"


def test_a_kernel_that_needs_numba_itself_is_refused():
    def turned(data):
        job = carray(data, (4,), np.int64)
        job[0] = job.reshape(2, 2)[1, 1]

    with pytest.raises(RuntimeError, match="the kernel 'turned' needs numba_attempt_nocopy_reshape, which only numba"):
        compiled(turned, target_machine())


def test_memory_of_a_kernel_is_given_back():
    """Every call takes a megabyte, so that ten thousand of them would not fit if they kept it."""

    def fill(data):
        job = carray(data, (1,), np.int64)
        room = np.ones(1 << 17, np.int64)
        job[0] = room.sum()

    address, code = load(compiled(fill, target_machine()), "fill")
    call, job = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), (ctypes.c_int64 * 1)()
    call(ctypes.addressof(job))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        call(ctypes.addressof(job))
    assert job[0] == 1 << 17
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB
    del code


def test_a_kernel_is_loaded_once():
    assert kernel("dtw", "dtw") is kernel("dtw", "dtw")
