"""Which implementation of a fused operation runs: by device, overridable for tests and by LOQUENT_BACKEND.

Every operation has a reference in torch that runs anywhere. On the CPU, float32 tensors outside of autograd go to
kernels compiled by numba. It is imported on first use, and its machine code is kept on disk: compiled once per machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

LANES = 16  # floats of a vector of the widest processors; kernels take no less at a time
TILE = 32  # steps of rows with the same adapter that are computed together

Backend = Literal["reference", "numba"]
_BACKENDS: tuple[Backend, ...] = get_args(Backend)

_override: ContextVar[Backend | None] = ContextVar("loquent_backend", default=None)


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Prefer one implementation within a block, in this thread or task.

    Tensors that it cannot take (of another device or dtype, or in need of a gradient) still go to the reference.
    """
    token = _override.set(_checked(name, "use_backend"))
    try:
        yield
    finally:
        _override.reset(token)


def backend_for(*tensors: Tensor) -> Backend:
    """The implementation that handles these tensors.

    Raises:
        ValueError: LOQUENT_BACKEND names none.
    """
    preferred = _override.get() or _checked(os.environ.get("LOQUENT_BACKEND") or "numba", "LOQUENT_BACKEND")
    if preferred == "reference":
        return "reference"
    for tensor in tensors:
        if not tensor.is_cpu or tensor.dtype != torch.float32 or (tensor.requires_grad and torch.is_grad_enabled()):
            return "reference"
    return "numba"


def _checked(name: str, source: str) -> Backend:
    for known in _BACKENDS:
        if name == known:
            return known
    raise ValueError(f"{source} is {name!r}, expected one of {', '.join(_BACKENDS)}")
