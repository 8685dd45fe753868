"""Linear layer with 8-bit weights and 7-bit inputs on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loquent.kernels.registry import Operation

# Products of two 8-bit numbers are added in pairs in 16 bits where the CPU lacks VNNI: 2 · 127 · 127 still fits.
LEVELS = 63  # of an input on either side of zero
ZERO = 64  # what zero is quantised to
OUTPUTS = 1024  # that are quantised at a time
LEAST = 1e-30  # value of an output that counts as its largest: there are reciprocals of it in float32


@dataclass(frozen=True)
class Int8Weight:
    """A weight (N, K) as integers in -127 … 127 and a scale for each output, with the bias.

    values: (N, K) int8, or None when ``packed`` holds them.
    packed: the same in the layout of the CPU's matrix product, or None where there is none.
    """

    values: Tensor | None
    scale: Tensor  # (N,) float32
    bias: Tensor | None  # (N,) float32
    packed: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        outputs, inputs = self.unpacked().shape
        return outputs, inputs

    def unpacked(self) -> Tensor:
        """The integers, (N, K) int8."""
        if self.values is not None:
            return self.values
        return torch.ops.quantized.linear_unpack(self.packed)[0].int_repr()


def pack_int8(weight: Tensor, bias: Tensor | None = None) -> Int8Weight:
    """Quantise a float weight (N, K), each output by its own largest value."""
    values, scale = quantise(weight)
    bias = None if bias is None else bias.detach().float().clone()
    if weight.device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        return Int8Weight(values, scale, bias, None)
    zeros = torch.zeros(len(scale), dtype=torch.long)
    quantized = torch._make_per_channel_quantized_tensor(values, scale.double(), zeros, 0)
    with _engine("fbgemm"):
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    return Int8Weight(None, scale, bias, packed)


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The integers (N, K) int8 of a float weight, and the value of one step of each output (N,).

    That is done a few outputs at a time, so that a weight in half precision is never held in float32.
    """
    weight = weight.detach()
    values, scale = torch.empty_like(weight, dtype=torch.int8), weight.new_empty(len(weight), dtype=torch.float32)
    for part, its_values, its_scale in zip(*(one.split(OUTPUTS) for one in (weight, values, scale)), strict=True):
        part = part.to(torch.float32, copy=True)
        its_scale.copy_(part.abs().amax(1).clamp_min(LEAST) / 127)
        its_values.copy_(part.mul_(1 / its_scale[:, None]).round_())
    return values, scale


def int8_linear(x: Tensor, weight: Int8Weight) -> Tensor:
    """Multiply by quantised weights, with each row of the input quantised by its own largest value::

        q = round(63 · x / m),   m = max_k |x[k]|
        y[n] = m / 63 · scale[n] · Σ_k q[k] values[n, k] + bias[n]

    The sum is one of integers, and a row meets no other, so a row's result is the same bits in every batch.

    Args:
        x: (..., K) float32.
        weight: as `pack_int8` returned it.

    Returns:
        (..., N) float32.
    """
    largest = x.abs().amax(-1, keepdim=True)
    unit = x / largest.clamp_min(torch.finfo(x.dtype).tiny)
    if weight.packed is None:
        y = INT8_LINEAR.choose(unit)(unit, weight)
    else:
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit, 1 / LEVELS, ZERO, weight.packed)
    return y.mul_(largest) if weight.bias is None else torch.addcmul(weight.bias, y, largest)


def _reference(unit: Tensor, weight: Int8Weight) -> Tensor:
    # Sums stay below 2**53, so double precision adds the integers exactly.
    total = (unit * LEVELS).round().double() @ weight.unpacked().double().T
    return (total * (weight.scale.double() / LEVELS)).float()


def _triton(unit: Tensor, weight: Int8Weight) -> Tensor:
    if unit.dtype != torch.float32:
        return _reference(unit, weight)
    from loquent.kernels.gpu.int8_linear import int8_linear

    return int8_linear(unit, weight.unpacked(), weight.scale, LEVELS)


INT8_LINEAR = Operation("int8_linear", reference=_reference, triton=_triton)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
