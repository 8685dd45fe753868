"""Operations and their implementations: which one runs, by device and dtype, and how to choose another.

Every operation has a reference in torch that runs anywhere and says what is right. Faster implementations belong to a
back end: "numba" compiles for the CPU, "triton" for GPUs of NVIDIA and AMD, which torch both calls CUDA. Both are
imported on first use, and their machine code is kept on disk: compiled once per machine.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch import Tensor

LANES = 16  # floats of a vector of the widest processors; kernels take no less at a time
TILE = 32  # steps of rows with the same adapter that are computed together

Backend = Literal["reference", "numba", "triton"]
_BACKENDS: tuple[Backend, ...] = get_args(Backend)
_DTYPES = {"numba": {torch.float32}, "triton": {torch.float32, torch.float16, torch.bfloat16}}

Implementation = TypeVar("Implementation", bound=Callable[..., Any])

_operations: dict[str, Operation[Any]] = {}
_override: ContextVar[Backend | None] = ContextVar("loquent_backend", default=None)


class Operation(Generic[Implementation]):
    """A fused operation and its implementations, which take the same arguments and do the same.

    Args:
        name: of the public function.
        reference: in torch; it takes any tensors.
        numba: takes float32 on the CPU, without a gradient.
        triton: takes float32, float16 or bfloat16, one of them, on CUDA, without a gradient or autocast; on the CPU
            where triton interprets its kernels, which it does to test them (TRITON_INTERPRET=1).

    Raises:
        ValueError: there is an operation of that name.
    """

    def __init__(
        self,
        name: str,
        *,
        reference: Implementation,
        numba: Implementation | None = None,
        triton: Implementation | None = None,
    ) -> None:
        if name in _operations:
            raise ValueError(f"operation {name!r} is registered twice; give each its own name")
        self.name, self.reference = name, reference
        given: dict[Backend, Implementation | None] = {"reference": reference, "numba": numba, "triton": triton}
        self.implementations = {backend: one for backend, one in given.items() if one is not None}
        _operations[name] = self

    def choose(self, *tensors: Tensor) -> Implementation:
        """The implementation for these tensors: numba's on the CPU, or the one that is asked for, if it can take them.

        Otherwise it is the reference. An implementation may itself hand on shapes that it is not made for. Whoever asks
        for triton has numba's on the CPU nevertheless.

        Args:
            tensors: all floating-point tensors that the operation reads or writes, at least one.

        Raises:
            ValueError: LOQUENT_BACKEND names no back end.
        """
        # Triton's kernels have to be asked for as long as none of them has run on a device.
        name = asked_backend() or "numba"
        if name == "triton" and tensors[0].is_cpu and not _triton_interprets():
            name = "numba"
        implementation = self.implementations.get(name)
        if implementation is None or name == "reference":
            return self.reference
        dtypes, device, gradients = _DTYPES[name], "cpu", torch.is_grad_enabled()
        if name == "triton":
            device, dtypes = "cpu" if _triton_interprets() else "cuda", dtypes & {tensors[0].dtype}
            if torch.is_autocast_enabled(device) or not _triton_is_there():
                return self.reference
        for one in tensors:
            if one.device.type != device or one.dtype not in dtypes:
                return self.reference
            if gradients and one.requires_grad:
                return self.reference
        return implementation


def operations() -> dict[str, Operation[Any]]:
    """All operations by name, those of modules that nobody has imported yet, too."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.ispkg:
            importlib.import_module(f"{__package__}.{module.name}")
    return dict(sorted(_operations.items()))


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Ask for a back end within a block, in this thread or task; it goes before LOQUENT_BACKEND.

    Operations that it has no implementation of, and tensors that it cannot take, still go to the reference.

    Raises:
        ValueError: there is no such back end.
    """
    token = _override.set(_checked(name, "use_backend"))
    try:
        yield
    finally:
        _override.reset(token)


def asked_backend() -> Backend | None:
    """The back end that `use_backend` or LOQUENT_BACKEND asks for; None where the device decides."""
    return _override.get() or _backend_of_environment()


@functools.cache
def _triton_is_there() -> bool:
    return importlib.util.find_spec("triton") is not None


def _triton_interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _backend_of_environment() -> Backend | None:
    name = os.environ.get("LOQUENT_BACKEND")
    return _checked(name, "LOQUENT_BACKEND") if name else None


def _checked(name: str, source: str) -> Backend:
    for known in _BACKENDS:
        if name == known:
            return known
    raise ValueError(f"{source} is {name!r}, expected one of {', '.join(_BACKENDS)}")
