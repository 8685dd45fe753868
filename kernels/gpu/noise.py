"""Normal noise that is a function of where it stands; a program makes some pairs of values of one frame."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import launch

GAMMA = tl.constexpr(0x9E3779B97F4A7C15 - (1 << 64))  # as signed integers
FIRST, SECOND = tl.constexpr(0xBF58476D1CE4E5B9 - (1 << 64)), tl.constexpr(0x94D049BB133111EB - (1 << 64))
UNIT = tl.constexpr(2.0**-32)
TURN = tl.constexpr(6.283185307179586 * 2.0**-32)
QUARTER = tl.constexpr(1 << 30)  # of a turn
PAIRS = 128  # of a program


def counter_noise(seeds: Tensor, frames: Tensor, size: int) -> Tensor:
    """See `loquent.kernels.counter_noise`."""
    batch, steps = frames.shape
    out = torch.empty(batch, steps, size, device=seeds.device)
    grid = batch * steps, triton.cdiv((size + 1) // 2, PAIRS)
    launch(draw, grid, seeds.contiguous(), frames.contiguous(), out, steps, size, PAIRS=PAIRS)
    return out


@triton.jit
def _shifted(z, BITS: tl.constexpr):
    """Logical shift to the right of signed integers."""
    return (z >> BITS) & ((1 << (64 - BITS)) - 1)


@triton.jit
def _mix(z):
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


@triton.jit
def _direction(turn):
    """Cosine and sine of an angle in 2**-32 turns: series for up to an eighth of a turn, to 3e-8, moved by quarters."""
    quarter = (turn + QUARTER // 2) // QUARTER
    x = (turn - quarter * QUARTER).to(tl.float32) * TURN
    z = x * x
    sine = x * (1 + z * (-1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z / 362880))))
    cosine = 1 + z * (-1 / 2 + z * (1 / 24 + z * (-1 / 720 + z / 40320)))
    odd, quarter = quarter % 2 == 1, quarter % 4
    across, along = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return tl.where((quarter == 1) | (quarter == 2), -across, across), tl.where(quarter >= 2, -along, along)


@triton.jit
def draw(seeds, frames, out, steps, size, PAIRS: tl.constexpr):
    """Some pairs of one frame of one row."""
    frame = tl.program_id(0)
    pair, pairs = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS), (size + 1) // 2
    key = _mix(_mix(tl.load(seeds + frame // steps)) + tl.load(frames + frame) * GAMMA)
    z = _mix(key + (pair + 1).to(tl.int64) * GAMMA)
    radius = tl.sqrt(-2 * tl.log((_shifted(z, 32).to(tl.float32) + 0.5) * UNIT))
    cosine, sine = _direction(z & 0xFFFFFFFF)
    at = out + frame * size + pair
    tl.store(at, radius * cosine, mask=pair < pairs)
    tl.store(at + pairs, radius * sine, mask=pair + pairs < size)
