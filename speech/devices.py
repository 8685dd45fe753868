"""Where models compute."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch


def compute_device(name: str | torch.device) -> torch.device:
    """The device of that name ("auto": a GPU, if there is one), if this machine has it.

    Raises:
        ValueError: it is not there, or there is no such kind of device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if (device.index or 0) >= count:
        here = "the CPU" if not count else f"the CPU and {count} CUDA device{'s' if count > 1 else ''}"
        raise ValueError(f"device: {str(device)!r} is not there; torch finds {here} on this machine; use 'auto'")
    return device


def use_threads(count: int | None) -> None:
    """Compute with so many threads in this process; None and 0 leave it to torch, which takes all cores.

    Raises:
        ValueError: the number is negative.
    """
    if count is not None and count < 0:
        raise ValueError(f"threads: expected 1 or more, or 0 for all cores, got {count}")
    if count:
        torch.set_num_threads(count)


@contextlib.contextmanager
def few_threads(most: int) -> Iterator[None]:
    """Compute with at most so many threads in a block, at least one. Other threads of the process do not notice."""
    before, few = torch.get_num_threads(), max(most, 1)
    if few >= before:
        yield
        return
    set_openmp, set_mkl = _settings()
    set_openmp(few)
    mkl = set_mkl(few)
    try:
        yield
    finally:
        set_openmp(before)
        set_mkl(mkl)


@functools.cache
def _settings() -> tuple[Callable[[int], int], Callable[[int], int]]:
    """``omp_set_num_threads`` and ``MKL_Set_Num_Threads_Local`` of the libraries that torch computes with, which are
    about the calling thread only (`torch.set_num_threads` is not); functions that do nothing where there are none."""
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    except OSError:
        return _nothing, _nothing
    openmp = getattr(torch_cpu, "omp_set_num_threads", _nothing)
    return openmp, getattr(torch_cpu, "MKL_Set_Num_Threads_Local", _nothing)


def _nothing(count: int) -> int:
    return count
