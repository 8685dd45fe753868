"""Copies between host and device that nothing waits for, but for the one that brings a step's results back.

On the CPU both are the same memory: nothing is copied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def staged(values: Any, device: torch.device | str, dtype: Any = np.int64) -> Tensor:
    """Numbers of the host on a device, by way of pinned memory.

    Args:
        values: numbers, nested lists of them, or an array.
        dtype: of NumPy.
    """
    # Unlike `from_numpy` this dispatches no operation; those that make tensors of values wait for the device.
    return sent(torch.from_dlpack(np.asarray(values, dtype)), device)


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device, itself if it is there already."""
    if tensor.is_cpu and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Fetched:
    """Tensors on their way to the host.

    All of them travel in one copy into pinned memory, which begins at once; what is launched afterwards may overwrite
    them.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors
        self._arrived: torch.cuda.Event | None = None
        if tensors and tensors[0].is_cuda:
            packed = pack(tensors)
            self._packed = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            self._packed.copy_(packed, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors on the host, once they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._tensors, self._arrived = unpack(self._packed, self._tensors), None
        return self._tensors


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of some tensors in a row, those with the largest elements first: each is aligned."""
    return torch.cat([tensors[i].contiguous().view(-1).view(torch.uint8) for i in _order(tensors)])


def unpack(packed: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inverse of `pack`: views into ``packed``, of the dtypes and shapes of ``like``."""
    order = _order(like)
    edges = [0, *itertools.accumulate(math.prod(like[i].shape) * like[i].element_size() for i in order)]
    parts = {
        i: packed[begin:end].view(like[i].dtype).view(like[i].shape)
        for i, (begin, end) in zip(order, itertools.pairwise(edges), strict=True)
    }
    return tuple(parts[i] for i in range(len(like)))


def _order(tensors: Sequence[Tensor]) -> list[int]:
    return sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
