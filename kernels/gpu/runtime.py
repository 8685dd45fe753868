"""How Triton kernels are launched, and the arithmetic that they share.

A kernel's grid and block sizes follow from shapes alone, and nothing here waits for the device. How a sum is cut into
parts depends on what is summed, never on the size of the batch.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOWEST = tl.constexpr(-1e30)  # score of what is not seen; unlike -inf it can be subtracted from itself
LOG2_E = 1.4426950408889634  # weights are powers of two
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Run a kernel on the device of its first argument; an empty grid is nothing to do.

    Args:
        kernel: made by `triton.jit`.
        grid: programs along each axis.
        args: tensors and numbers, in the kernel's order.
        options: constants of the kernel, ``num_warps`` and ``num_stages``.
    """
    if 0 in grid:
        return
    first = args[0]
    if first.is_cuda:
        with torch.cuda.device(first.device):
            kernel[grid](*args, **options)
    else:
        kernel[grid](*args, **options)


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    """A tensor's strides but the last, which must be 1.

    Raises:
        ValueError: it is not.
    """
    *strides, last = tensor.stride()
    if last != 1 and tensor.shape[-1] > 1:
        raise ValueError(
            f"the last axis must be contiguous, got shape {tuple(tensor.shape)}, strides {tensor.stride()}"
        )
    return tuple(strides)


def block_of(size: int, least: int = 16, most: int = 1 << 20) -> int:
    """The power of two that covers ``size``, between bounds that are powers of two themselves."""
    return min(max(triton.next_power_of_2(max(size, 1)), least), most)


@triton.jit
def dot(a, b, total):
    """total + a · b, summed in float32 (integers in int32); float32 factors are not rounded to TF32.

    The interpreter takes bfloat16 for integers; there the factors, already rounded, are float32.
    """
    if INTERPRETED and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee", out_dtype=total.dtype)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def gelu(x):
    """x (1 + erf(x / √2)) / 2."""
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@triton.jit
def tanh(x):
    """Of any size: the exponential is of a number that is not positive."""
    fade = tl.exp(-2 * tl.abs(x))
    size = (1 - fade) / (1 + fade)
    return tl.where(x < 0, -size, size)
