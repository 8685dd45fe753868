"""Linear layer with 8-bit weights and 7-bit or 8-bit inputs on the CPU."""

from __future__ import annotations

import functools
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
FINE_LEVELS = 127  # with VNNI
PANEL, GROUP = 32, 4  # outputs and inputs of what VNNI reads in a row
ROWS = 96  # that are quantised at a time
STRETCHES = 16  # tasks that few rows are worth
OUTPUTS = 1024  # that are quantised at a time
LEAST = 1e-30  # value of an output that counts as its largest: there are reciprocals of it in float32


@dataclass(frozen=True)
class Int8Weight:
    """A weight (N, K) as integers in -127 … 127 and a scale for each output, with the bias.

    values: (N, K) int8, or None when ``packed`` holds them.
    packed: the same in the layout of the CPU's matrix product, or None where there is none: panels (N / 32, K / 4,
        32, 4) of unsigned bytes for VNNI, or what torch's own product takes.
    levels: of an input on either side of zero.
    """

    values: Tensor | None
    scale: Tensor  # (N,) float32
    bias: Tensor | None  # (N,) float32
    packed: Any
    levels: int = LEVELS

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        outputs, inputs = self.unpacked().shape
        return outputs, inputs

    def unpacked(self) -> Tensor:
        """The integers, (N, K) int8."""
        if self.values is not None:
            return self.values
        if isinstance(self.packed, Tensor):
            rows = self.packed.transpose(1, 2).flatten(2).flatten(0, 1)
            return (rows[: len(self.scale)] ^ 128).view(torch.int8)
        return torch.ops.quantized.linear_unpack(self.packed)[0].int_repr()


def pack_int8(weight: Tensor, bias: Tensor | None = None) -> Int8Weight:
    """Quantise a float weight (N, K), each output by its own largest value."""
    values, scale = quantise(weight)
    bias = None if bias is None else bias.detach().float().clone()
    if weight.device.type == "cpu" and weight.shape[1] % GROUP == 0 and has_byte_products():
        return Int8Weight(None, scale, bias, _panels(values), FINE_LEVELS)
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


@functools.cache
def has_byte_products() -> bool:
    """Whether the processor adds products of bytes in vectors of 512 bits, without saturation (AVX-512 VNNI)."""
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    return bool(features.get("avx512f") and features.get("avx512vnni"))


def _panels(values: Tensor) -> Tensor:
    """Integers (N, K) as panels (N / 32, K / 4, 32, 4) of unsigned bytes, 128 greater; N is rounded up."""
    outputs, inputs = values.shape
    rows = torch.nn.functional.pad(values.view(torch.uint8), (0, 0, 0, -outputs % PANEL)) ^ 128
    return rows.view(-1, PANEL, inputs // GROUP, GROUP).transpose(1, 2).contiguous()


def int8_linear(x: Tensor, weight: Int8Weight) -> Tensor:
    """Multiply by quantised weights, with each row of the input quantised by its own largest value::

        q = round(L · x / m),   m = max_k |x[k]|
        y[n] = m / L · scale[n] · Σ_k q[k] values[n, k] + bias[n]

    The sum is one of integers, and a row meets no other, so a row's result is the same bits in every batch.

    Args:
        x: (..., K) float32.
        weight: as `pack_int8` returned it.

    Returns:
        (..., N) float32.
    """
    return INT8_LINEAR.choose(x)(x, weight)


def _reference(x: Tensor, weight: Int8Weight) -> Tensor:
    unit, largest = _units(x)
    # Sums stay below 2**53, so double precision adds the integers exactly.
    total = (unit * weight.levels).round().double() @ weight.unpacked().double().T
    return _scaled((total * (weight.scale.double() / weight.levels)).float(), largest, weight)


def _numba(x: Tensor, weight: Int8Weight) -> Tensor:
    if weight.packed is None:
        return _reference(x, weight)
    if isinstance(weight.packed, Tensor):
        return _panels_product(x.contiguous(), weight)
    unit, largest = _units(x)
    y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit, 1 / LEVELS, ZERO, weight.packed)
    return _scaled(y, largest, weight)


def _panels_product(x: Tensor, weight: Int8Weight) -> Tensor:
    from loquent.kernels.cpu.runtime import kernel, run

    panels, groups = weight.packed.shape[:2]
    inputs, outputs = groups * GROUP, len(weight.scale)
    if x.shape[-1] != inputs:
        raise RuntimeError(f"a weight of {inputs} inputs does not fit rows of {x.shape[-1]}")
    y = x.new_empty(*x.shape[:-1], outputs)
    rows = x.numel() // inputs
    blocks = -(-rows // ROWS)
    stretches = min(panels, max(STRETCHES // max(blocks, 1), 1))
    run(
        kernel("int8_linear", "int8_linear"),
        blocks * stretches,
        rows * inputs * outputs // GROUP,
        *(rows, inputs, outputs, panels, stretches, x.data_ptr(), weight.packed.data_ptr(), weight.scale.data_ptr()),
        *(0 if weight.bias is None else weight.bias.data_ptr(), y.data_ptr()),
    )
    return y


def _triton(x: Tensor, weight: Int8Weight) -> Tensor:
    if x.dtype != torch.float32:
        return _reference(x, weight)
    from loquent.kernels.gpu.int8_linear import int8_linear

    unit, largest = _units(x)
    return _scaled(int8_linear(unit, weight.unpacked(), weight.scale, weight.levels), largest, weight)


def _units(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows from -1 to 1, and what they have been divided by."""
    largest = x.abs().amax(-1, keepdim=True)
    return x * largest.clamp_min(torch.finfo(x.dtype).tiny).reciprocal(), largest


def _scaled(y: Tensor, largest: Tensor, weight: Int8Weight) -> Tensor:
    return y.mul_(largest) if weight.bias is None else torch.addcmul(weight.bias, y, largest)


INT8_LINEAR = Operation("int8_linear", reference=_reference, numba=_numba, triton=_triton)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
