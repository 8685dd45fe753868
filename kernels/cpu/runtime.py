"""How kernels are called and spread over cores.

A kernel is a C callback ``loop(job)``: the job is an array of int64 (addresses, strides and sizes), and the callback
takes task after task from a counter in it until none is left. Such a callback needs no interpreter, so any number of
Python threads may run kernels at once, and any number of cores may share one job. The cores come from the OpenMP pool
that torch itself computes with: numba's own pools would fight with it for the cores, and its default one must not be
entered by two threads.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loquent.kernels.cpu.machine_code import load, machine_code

NEXT, TASKS, HEADER = 0, 1, 2  # a job begins with the next task's number and the number of tasks
MINIMUM = 200_000  # multiply-adds that are worth waking another core for


@dataclass(frozen=True)
class Kernel:
    """Machine code of ``loop(job)``: ``call`` releases the interpreter's lock; ``code`` keeps it alive."""

    address: int
    call: Callable[[int], None]
    code: Any


@functools.cache
def kernel(module: str, name: str) -> Kernel:
    """The kernel of that name in a module of this folder, from the cache; it is compiled if it is not there."""
    with _one_at_a_time:
        address, code = load(machine_code(f"{__package__}.{module}", name), name)
    return Kernel(address, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), code)


_one_at_a_time = threading.Lock()


def run(kernel: Kernel, tasks: int, work: int, *fields: int) -> None:
    """Run a kernel's tasks on as many cores as ``work`` is worth (multiply-adds), at most `torch.get_num_threads`."""
    job = (ctypes.c_int64 * (HEADER + len(fields)))(0, tasks, *fields)
    threads = min(threads_for(work), tasks)
    if threads > 1 and _parallel is not None:
        _parallel(kernel.address, ctypes.addressof(job), threads, 0)
    else:
        kernel.call(ctypes.addressof(job))


def threads_for(work: int) -> int:
    """How many cores so many multiply-adds are worth."""
    return min(torch.get_num_threads(), 1 + work // MINIMUM)


def fields_of(tensor: Tensor) -> tuple[int, ...]:
    """A job's view of a tensor: its address and its strides but the last, which must be 1."""
    *strides, last = tensor.stride()
    if last != 1 and tensor.shape[-1] > 1:
        raise ValueError(
            f"the last axis must be contiguous, got shape {tuple(tensor.shape)}, strides {tensor.stride()}"
        )
    return tensor.data_ptr(), *strides


def _find_parallel() -> Any:
    """``GOMP_parallel`` of the OpenMP library that torch has loaded, GNU's or Intel's; None where there is neither."""
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


_parallel = _find_parallel()
