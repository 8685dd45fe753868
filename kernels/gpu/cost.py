"""Bytes and operations that a call of an operation cannot do without, and the least time a device needs for them.

A byte counts once, however often a kernel reads it: inputs, outputs, and of pools only the rows and entries that are
used. An operation is an addition or a multiplication of the products and the convolutions; what is done once per
number, such as an exponential, is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rates(NamedTuple):
    """Peak rates of a device, of dense matrices, by its maker's data sheet.

    bytes:  of memory, per second.
    half:   operations on float16 and bfloat16 with matrix units, per second.
    single: on float32 without TF32.
    int8:   on 8-bit integers with matrix units.
    """

    bytes: float
    half: float
    single: float
    int8: float


# NVIDIA's data sheets of the A100 80GB SXM (2021), the H100 SXM (2023) and the H200 SXM (2024), whose figures of matrix
# units, given with sparsity, are halved; AMD's of the Instinct MI300X (2023).
DEVICES = {
    "A100": Rates(2.039e12, 312e12, 19.5e12, 624e12),
    "H100": Rates(3.35e12, 989e12, 67e12, 1979e12),
    "H200": Rates(4.8e12, 989e12, 67e12, 1979e12),
    "MI300X": Rates(5.3e12, 1307e12, 163e12, 2615e12),
}


class Cost(NamedTuple):
    """Bytes and operations of a call, and the dtype of what is multiplied."""

    bytes: int
    operations: int
    dtype: torch.dtype

    def floor(self, rates: Rates) -> float:
        """Seconds that no kernel can beat on a device with such rates."""
        of_dtype = {torch.float32: rates.single, torch.int8: rates.int8}
        return max(self.bytes / rates.bytes, self.operations / of_dtype.get(self.dtype, rates.half))


def cost_of(name: str, *args: Any) -> Cost:
    """Cost of a call of the operation ``name`` with an implementation's arguments, whose lengths are looked at."""
    return _COSTS[name](*args)


def _bytes(*tensors: Tensor | None) -> int:
    return sum(one.numel() * one.element_size() for one in tensors if one is not None)


def _cached_attention(
    q: Tensor, k: Tensor, v: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, position: Tensor, length: Tensor,
    block: int, left: int | None, sinks: int,
) -> Cost:  # fmt: skip
    width, ring = q.shape[2] * q.shape[3], cache_k.shape[2]
    new, read, pairs = 0, 0, 0
    for before, count in zip(position.tolist(), length.tolist(), strict=True):
        seen: set[int] = set()
        for step in range(before, before + count):
            start = step // block * block
            keys = set(range(0 if left is None else max(start - left, 0), min(start + block, before + count)))
            keys |= set(range(min(sinks, start)))
            pairs += len(keys)
            seen |= keys
        new += count
        read += min(sum(key < before for key in seen), ring)
    # Queries and new keys and values are read, those are written to the ring, and cached ones are read.
    moved = (5 * new + 2 * read) * width * q.element_size()
    return Cost(moved + _bytes(q), 4 * pairs * width, q.dtype)


def _cross_attention(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None
) -> Cost:
    batch, steps, count, dim = q.shape
    keys = int(frames.sum())
    slots = dict(sorted(zip(rows.tolist(), frames.tolist(), strict=True)))  # rows may share one
    read = 2 * sum(slots.values()) * count * dim * q.element_size()
    weights = 0 if heads is None else 4 * batch * len(heads) * steps * cache_k.shape[2]
    return Cost(2 * _bytes(q) + read + weights, 4 * keys * steps * count * dim, q.dtype)


def _relative_attention(
    q: Tensor, k: Tensor, v: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, position: Tensor, length: Tensor,
    query: Tensor, first: Tensor, end: Tensor, table: Tensor, future: int, content: Tensor, distance: Tensor,
) -> Cost:  # fmt: skip
    width = q.shape[2] * q.shape[3]
    read = 0
    for before, begins, ends in zip(position.tolist(), first.tolist(), end.tolist(), strict=True):
        cached = [a for a, b in zip(begins, ends, strict=True) if a < min(b, before)]
        read += before - max(min(cached), before - cache_k.shape[2]) if cached else 0
    pairs = int((end - first).clamp(min=0).sum())
    moved = (4 * int(length.sum()) + 2 * read) * width * q.element_size()
    return Cost(moved + 2 * _bytes(q) + _bytes(table, content, distance), 6 * pairs * width, q.dtype)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, rows: Tensor, length: Tensor, gates: int = 1
) -> Cost:
    steps, channels = int(length.sum()), tail.shape[2]
    tails = 2 * int((length > 0).sum()) * tail.shape[1] * channels * tail.element_size()
    out = x.shape[0] * x.shape[1] * channels * x.element_size()
    moved = gates * steps * channels * x.element_size() + out + tails + _bytes(weight, bias)
    return Cost(moved, 2 * steps * channels * weight.shape[1], torch.float32)


def _gated(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: tuple[Tensor, Tensor], tail: Tensor, rows: Tensor,
    length: Tensor,
) -> Cost:  # fmt: skip
    plain = _convolution(x, weight, bias, tail, rows, length, gates=2)
    return plain._replace(bytes=plain.bytes + _bytes(*norm))


def _convnext(x: Tensor, weights: Any, tail: Tensor, rows: Tensor, length: Tensor, right: int) -> Cost:
    plain = _convolution(x, weights.depthwise, weights.depthwise_bias, tail, rows, length)
    hidden, channels = weights.expand.shape
    moved = plain.bytes + _bytes(*weights[2:])
    return Cost(moved, 4 * int(length.sum()) * channels * hidden, x.dtype)


def _linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None, alpha: float
) -> Cost:
    rows = x.numel() // weight.shape[1]
    moved = _bytes(x, weight, bias, residual) + rows * len(weight) * x.element_size()
    return Cost(moved, 2 * rows * weight.numel(), x.dtype)


def _int8(unit: Tensor, weight: Any) -> Cost:
    values, outputs = weight.unpacked(), weight.shape[0]
    rows = unit.numel() // values.shape[1]
    moved = _bytes(unit, values, weight.scale) + rows * outputs * unit.element_size()
    return Cost(moved, 2 * rows * values.numel(), torch.int8)


def _argmax(x: Tensor, weight: Tensor, bias: Tensor) -> Cost:
    rows = x.numel() // weight.shape[1]
    return Cost(_bytes(x, weight, bias) + 12 * rows, 2 * rows * weight.numel(), x.dtype)


def _lora(y: Tensor, x: Tensor, pool: Any, rows: Any) -> Cost:
    steps, adapted = x.shape[1], len(rows.order)
    used = len(set(rows.index[rows.order].tolist()))
    (inputs, rank), outputs = pool.down.shape[1:], y.shape[2]
    moved = (adapted * steps * (inputs + 2 * outputs) + used * rank * (inputs + outputs)) * x.element_size()
    return Cost(moved, 2 * adapted * steps * rank * (inputs + outputs), x.dtype)


def _ssru(x: Tensor, forget: Tensor, cell: Tensor) -> Cost:
    return Cost(_bytes(x, forget, cell, x), 0, x.dtype)


def _lstm(gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, length: Tensor) -> Cost:
    steps = int(length.sum())
    moved = steps * len(weight) * gates.element_size() + gates.shape[1] * _bytes(hidden)
    return Cost(moved + _bytes(weight) + 2 * _bytes(hidden, cell), 2 * steps * weight.numel(), gates.dtype)


def _noise(seeds: Tensor, frames: Tensor, size: int) -> Cost:
    return Cost(_bytes(seeds, frames) + 4 * frames.numel() * size, 0, torch.float32)


def _codes(x: Tensor, weight: Tensor, bias: Tensor, digits: Any) -> Cost:
    rows = x.numel() // weight.shape[1]
    return Cost(_bytes(x, weight, bias, *digits) + 8 * rows, 2 * rows * weight.numel(), x.dtype)


def _log_mel(x: Tensor, taper: Tensor, filters: Tensor, stride: int, compression: Any) -> Cost:
    """By a fast transform, and without the zeros of the filters."""
    frames, size = x.shape[0] * ((x.shape[1] - len(taper)) // stride + 1), 2 * (len(filters) - 1)
    operations = frames * (int(2.5 * size * math.log2(size)) + 2 * int((filters != 0).sum()))
    return Cost(_bytes(x, taper, filters) + 4 * frames * filters.shape[1], operations, torch.float32)


def _transducer(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Cost:
    """Of the loss alone: the scores are read once."""
    nodes = int((length * (target_length + 1)).sum())
    return Cost(nodes * logits.shape[-1] * logits.element_size(), 0, torch.float32)


_COSTS: dict[str, Callable[..., Cost]] = {
    "batched_lora": _lora,
    "cached_attention": _cached_attention,
    "convnext_step": _convnext,
    "counter_noise": _noise,
    "cross_attention": _cross_attention,
    "depthwise_conv_step": _convolution,
    "finite_scalar_codes": _codes,
    "gated_conv_step": _gated,
    "int8_linear": _int8,
    "linear": _linear,
    "linear_argmax": _argmax,
    "log_mel": _log_mel,
    "lstm_steps": _lstm,
    "relative_attention": _relative_attention,
    "ssru": _ssru,
    "transducer_loss": _transducer,
}
