"""Log-mel frames: the Fourier transform is a product with a matrix, and neither spectra nor energies leave the chip.

A program takes a block of frames of one row. The transform of a frame takes more operations than a fast one, but those
of a chunk are few.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, dot, launch

FRAMES = 16  # of a program
FREQUENCIES, SAMPLES = 32, 64  # that it takes at a time


def log_mel(
    x: Tensor, taper: Tensor, filters: Tensor, stride: int, magnitude: bool, floor: float, offset: float, decimal: bool
) -> Tensor:
    """See `loquent.kernels.log_mel`."""
    batch, kernel, (frequencies, bins) = len(x), len(taper), filters.shape
    steps = (x.shape[1] - kernel) // stride + 1
    out, x = x.new_empty(batch, steps, bins), x.contiguous()
    cosine, sine = _waves(kernel, frequencies, x.device)
    launch(
        compute,
        (batch, triton.cdiv(steps, FRAMES)),
        *(x, taper.contiguous(), cosine, sine, filters.contiguous(), out),
        *(x.shape[1], steps, stride, kernel, frequencies, bins, floor, offset),
        FRAMES=FRAMES,
        FREQUENCIES=FREQUENCIES,
        SAMPLES=SAMPLES,
        BINS=block_of(bins),
        MAGNITUDE=magnitude,
        FLOOR=floor > 0,
        SCALE=1 / math.log(10) if decimal else 1.0,
        num_stages=2,
    )
    return out


@functools.lru_cache(maxsize=8)
def _waves(kernel: int, frequencies: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (K, F) of every sample and frequency, exact to float32."""
    turns = torch.arange(kernel)[:, None] * torch.arange(frequencies) % (2 * (frequencies - 1))
    angle = turns.double() * (math.pi / (frequencies - 1))
    return angle.cos().float().to(device), angle.sin().float().to(device)


@triton.jit
def compute(
    x, taper, cosine, sine, filters, out, length, steps, stride, kernel, frequencies, bins, floor, offset,
    FRAMES: tl.constexpr, FREQUENCIES: tl.constexpr, SAMPLES: tl.constexpr, BINS: tl.constexpr,
    MAGNITUDE: tl.constexpr, FLOOR: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """One block of frames of one row."""
    row, step = tl.program_id(0), tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)
    m = tl.arange(0, BINS)
    here, start = step < steps, row * length + step * stride
    energy = tl.zeros([FRAMES, BINS], tl.float32)
    for f_0 in range(0, frequencies, FREQUENCIES):
        f = f_0 + tl.arange(0, FREQUENCIES)
        real = tl.zeros([FRAMES, FREQUENCIES], tl.float32)
        imaginary = tl.zeros([FRAMES, FREQUENCIES], tl.float32)
        for k_0 in range(0, kernel, SAMPLES):
            k = k_0 + tl.arange(0, SAMPLES)
            frame = tl.load(x + start[:, None] + k, mask=here[:, None] & (k < kernel), other=0)
            frame = frame * tl.load(taper + k, mask=k < kernel, other=0)
            at, mask = k[:, None] * frequencies + f, (k < kernel)[:, None] & (f < frequencies)
            real = dot(frame, tl.load(cosine + at, mask=mask, other=0), real)
            imaginary = dot(frame, tl.load(sine + at, mask=mask, other=0), imaginary)
        power = real * real + imaginary * imaginary
        if MAGNITUDE:
            power = tl.sqrt(power + 1e-9)
        mask = (f < frequencies)[:, None] & (m < bins)
        energy = dot(power, tl.load(filters + f[:, None] * bins + m, mask=mask, other=0), energy)
    if FLOOR:
        energy = tl.maximum(energy, floor)
    at = (row * steps + step)[:, None] * bins + m
    tl.store(out + at, tl.log(energy + offset) * SCALE, mask=here[:, None] & (m < bins))
