"""Linear layer in 8 bits, with the normalisation before it and the activation after it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.linear import finish
from loquent.kernels.registry import Operation

Activation = Literal["none", "gelu"]
Norm = tuple[Tensor, Tensor]  # weight and bias (K,) of a layer normalisation

# Products of two 8-bit numbers are added in pairs in 16 bits where the CPU lacks VNNI: 2 · 127 · 127 still fits.
LEVELS = 63  # of an input on either side of zero
ZERO = 64  # what zero is quantised to
FINE_LEVELS = 127  # with VNNI
PANEL, GROUP = 32, 4  # outputs and inputs of what VNNI reads in a row
ROWS = 96  # that are quantised at a time
TASKS = 4  # for each thread, where there are few rows
OUTPUTS = 1024  # that are quantised at a time
LEAST = 1e-30  # value of an output that counts as its largest: there are reciprocals of it in float32


@dataclass(frozen=True)
class Int8Weight:
    """A weight (N, K) as integers in -127 … 127 and a scale for each output, with what comes before and after.

    values: (N, K) int8, or None when ``packed`` holds them.
    packed: the same in the layout of the CPU's matrix product, or None where there is none: panels (N / 32, K / 4,
        32, 4) of unsigned bytes for VNNI, or what torch's own product takes.
    levels: of an input on either side of zero.
    norm: layer normalisation of the inputs, if there is one.
    """

    values: Tensor | None
    scale: Tensor  # (N,) float32
    bias: Tensor  # (N,) float32, zeros where there is none
    packed: Any
    levels: int = LEVELS
    norm: Norm | None = None

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


def pack_int8(weight: Tensor, bias: Tensor | None = None, norm: Norm | None = None) -> Int8Weight:
    """Quantise a float weight (N, K), each output by its own largest value; ``norm`` is that of the inputs."""
    values, scale = _quantise(weight)
    bias = torch.zeros_like(scale) if bias is None else bias.detach().float().clone()
    if weight.device.type == "cpu" and weight.shape[1] % GROUP == 0 and has_byte_products():
        return Int8Weight(None, scale, bias, _panels(values), FINE_LEVELS, norm)
    if weight.device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        return Int8Weight(values, scale, bias, None, norm=norm)
    zeros = torch.zeros(len(scale), dtype=torch.long)
    quantized = torch._make_per_channel_quantized_tensor(values, scale.double(), zeros, 0)
    with _engine("fbgemm"):
        packed = torch.ops.quantized.linear_prepack(quantized, None)
    return Int8Weight(None, scale, bias, packed, norm=norm)


def _quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
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


def int8_linear(x: Tensor, weight: Int8Weight, activation: Activation = "none") -> Tensor:
    """Multiply by quantised weights, with each row of the input quantised by its own largest value::

        x = norm(x), if the weight has one
        q = round(L · x / m),   m = max_k |x[k]|
        y[n] = activation(m / L · scale[n] · Σ_k q[k] values[n, k] + bias[n])

    The sum is one of integers, and a row meets no other, so a row's result is the same bits in every batch.

    Args:
        x: (..., K) float32.
        weight: as `pack_int8` returned it.
        activation: "none" or "gelu" (the exact one).

    Returns:
        (..., N) float32.
    """
    return INT8_LINEAR.choose(x)(x, weight, activation)


def _reference(x: Tensor, weight: Int8Weight, activation: Activation) -> Tensor:
    unit, largest = _units(x, weight.norm)
    # Sums stay below 2**53, so double precision adds the integers exactly.
    total = (unit * weight.levels).round().double() @ weight.unpacked().double().T
    return _finished((total * (weight.scale.double() / weight.levels)).float(), largest, weight, activation)


def _numba(x: Tensor, weight: Int8Weight, activation: Activation) -> Tensor:
    if weight.packed is None:
        return _reference(x, weight, activation)
    if isinstance(weight.packed, Tensor):
        return _panels_product(x.contiguous(), weight, activation)
    unit, largest = _units(x, weight.norm)
    y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit, 1 / LEVELS, ZERO, weight.packed)
    return _finished(y, largest, weight, activation)


def _panels_product(x: Tensor, weight: Int8Weight, activation: Activation) -> Tensor:
    from loquent.kernels.cpu.runtime import kernel, run, threads_for

    panels, groups = weight.packed.shape[:2]
    inputs, outputs = groups * GROUP, len(weight.scale)
    if x.shape[-1] != inputs:
        raise RuntimeError(f"a weight of {inputs} inputs does not fit rows of {x.shape[-1]}")
    y = x.new_empty(*x.shape[:-1], outputs)
    rows = x.numel() // inputs
    blocks, work = -(-rows // ROWS), rows * inputs * outputs // GROUP
    threads = threads_for(work)  # every task rounds its rows itself
    stretches = 1 if threads == 1 else min(panels, max(TASKS * threads // max(blocks, 1), 1))
    tensors = (x, weight.packed, weight.scale, weight.bias, y, *(weight.norm or (None, None)))
    run(
        kernel("int8_linear", "int8_linear"),
        blocks * stretches,
        work,
        *(rows, inputs, outputs, panels, stretches, int(activation == "gelu")),
        *(0 if one is None else one.data_ptr() for one in tensors),
    )
    return y


def _triton(x: Tensor, weight: Int8Weight, activation: Activation) -> Tensor:
    if x.dtype != torch.float32:
        return _reference(x, weight, activation)
    from loquent.kernels.gpu.int8_linear import int8_linear

    unit, largest = _units(x, weight.norm)
    y = int8_linear(unit, weight.unpacked(), weight.scale, weight.levels)
    return _finished(y, largest, weight, activation)


def _units(x: Tensor, norm: Norm | None) -> tuple[Tensor, Tensor]:
    """Rows, normalised, from -1 to 1, and what they have been divided by."""
    if norm is not None:
        x = F.layer_norm(x, x.shape[-1:], *norm)
    largest = x.abs().amax(-1, keepdim=True)
    return x * largest.clamp_min(torch.finfo(x.dtype).tiny).reciprocal(), largest


def _finished(y: Tensor, largest: Tensor, weight: Int8Weight, activation: Activation) -> Tensor:
    return finish(torch.addcmul(weight.bias, y, largest), activation, None, 1.0)


INT8_LINEAR = Operation("int8_linear", reference=_reference, numba=_numba, triton=_triton)


@contextmanager
def _engine(name: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
