"""How numba kernels are compiled, cached, called and spread over cores.

A kernel is a C callback ``loop(job)``: the job is an array of int64 (addresses, strides and sizes), and the callback
takes task after task from a counter in it until none is left. Such a callback needs no interpreter, so any number of
Python threads may run kernels at once, and any number of cores may share one job. The cores come from the OpenMP pool
that torch itself computes with: numba's own pools would fight with it for the cores, and its default one must not be
entered by two threads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic
from torch import Tensor

NEXT, TASKS, HEADER = 0, 1, 2  # a job begins with the next task's number and the number of tasks
MINIMUM = 200_000  # multiply-adds that are worth waking another core for

_OPTIONS = {"nogil": True, "fastmath": True, "error_model": "numpy"}
_UNBOUNDED = 1 << 48


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


@dataclass(frozen=True)
class Kernel:
    """Machine code of ``loop(job)``: ``call`` releases the interpreter's lock; ``code`` keeps it alive."""

    address: int
    call: Callable[[int], None]
    code: Any


def loop(function: Callable[..., Any]) -> Kernel:
    """Compile a kernel: ``function(job)``, the job's address as a void pointer.

    The machine code is cached beside the source or, where that is read-only, in the user's cache folder; where neither
    can be written it is compiled anew in every process. numba notices a change of the function's own file only, so the
    name under which it is cached carries a digest of all that it may call.
    """
    function.__qualname__ += f"_{_digest()}"
    try:
        code = numba.cfunc("void(voidptr)", cache=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        code = numba.cfunc("void(voidptr)", error_model="numpy")(function)
    return Kernel(code.address, code.ctypes, code)


def run(kernel: Kernel, tasks: int, work: int, *fields: int) -> None:
    """Run a kernel's tasks on as many cores as ``work`` is worth (multiply-adds), at most `torch.get_num_threads`."""
    job = (ctypes.c_int64 * (HEADER + len(fields)))(0, tasks, *fields)
    threads = min(torch.get_num_threads(), tasks, 1 + work // MINIMUM)
    if threads > 1 and _parallel is not None:
        _parallel(kernel.address, ctypes.addressof(job), threads, 0)
    else:
        kernel.call(ctypes.addressof(job))


def fields_of(tensor: Tensor) -> tuple[int, ...]:
    """A job's view of a tensor: its address and its strides but the last, which must be 1."""
    *strides, last = tensor.stride()
    if last != 1 and tensor.shape[-1] > 1:
        raise ValueError(
            f"the last axis must be contiguous, got shape {tuple(tensor.shape)}, strides {tensor.stride()}"
        )
    return tensor.data_ptr(), *strides


@functools.cache
def _digest() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


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


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def next_task(typing: Any, job: Any) -> Any:
    """Take the next number from the counter at the head of a job."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        integer = ir.IntType(64)
        counter = builder.bitcast(values[0], integer.as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(integer, 1), "monotonic")

    return types.int64(types.voidptr), generate


@jit
def floats(address: int) -> Any:
    """The float32 memory from an address on."""
    return carray(_pointer(address), (_UNBOUNDED,), np.float32)


@jit
def integers(address: int) -> Any:
    """The int64 memory from an address on."""
    return carray(_pointer(address), (_UNBOUNDED,), np.int64)
