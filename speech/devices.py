"""Where models compute."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from typing import Any

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
    before, set_threads = torch.get_num_threads(), _openmp()
    if max(most, 1) >= before or set_threads is None:
        yield
        return
    set_threads(max(most, 1))
    try:
        yield
    finally:
        set_threads(before)


@functools.cache
def _openmp() -> Any:
    """``omp_set_num_threads`` of the OpenMP library that torch has loaded, which is about the calling thread only (and
    `torch.set_num_threads` is not); None where there is none."""
    try:
        return ctypes.CDLL(None).omp_set_num_threads
    except (AttributeError, OSError, TypeError):
        return None
