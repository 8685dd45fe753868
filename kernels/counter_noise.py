"""Normal noise that is a function of where it stands: no generator, no order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from loquent.kernels.registry import Operation

# 64-bit constants of SplitMix64, as signed integers; products are taken modulo 2**64.
GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
FIRST, SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
UNIT = 2.0**-32


def counter_noise(seeds: Tensor, frames: Tensor, size: int) -> Tensor:
    """Draw standard normal values, each from its seed, the number of its frame and its place in the frame alone::

        key = mix(mix(seed) + frame · γ)
        z = mix(key + (i + 1) · γ),   u = (z >> 32) + 1/2,   v = z mod 2**32         for i < P = ⌈size / 2⌉
        out[i] = sqrt(-2 ln(u / 2**32)) cos(2π v / 2**32),   out[P + i] = the same with sin

    Args:
        seeds: (B,) int64, any.
        frames: (B, T) int64, any.
        size: values of a frame.

    Returns:
        (B, T, size) float32.

    Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"; γ and mix are its.
    Box and Muller 1958.
    """
    return COUNTER_NOISE.choose(seeds.new_empty(0, dtype=torch.float32))(seeds, frames, size)


def _reference(seeds: Tensor, frames: Tensor, size: int) -> Tensor:
    keys = _mix(_mix(seeds)[:, None] + frames * GAMMA)
    pairs = (size + 1) // 2
    z = _mix(keys[:, :, None] + torch.arange(1, pairs + 1, device=seeds.device) * GAMMA)
    radius = ((_shifted(z, 32).float() + 0.5) * UNIT).log().mul(-2).sqrt()
    angle = (z & 0xFFFFFFFF).float() * (2 * math.pi * UNIT)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)[:, :, :size]


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of signed integers."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _numba(seeds: Tensor, frames: Tensor, size: int) -> Tensor:
    from loquent.kernels.cpu.runtime import kernel, run

    batch, steps = frames.shape
    out = torch.empty(batch, steps, size)
    seeds, frames = seeds.contiguous(), frames.contiguous()
    run(
        kernel("noise", "counter_noise"),
        batch * steps,
        out.numel() * WORK,
        *(steps, size, seeds.data_ptr(), frames.data_ptr(), out.data_ptr()),
    )
    return out


def _triton(seeds: Tensor, frames: Tensor, size: int) -> Tensor:
    from loquent.kernels.gpu.noise import counter_noise

    return counter_noise(seeds, frames, size)


WORK = 16  # multiply-adds that a value is worth
COUNTER_NOISE = Operation("counter_noise", reference=_reference, numba=_numba, triton=_triton)
