"""Finite scalar quantisation; a program takes a block of frames from their channels to their codes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, dot, launch, tanh

FRAMES = 16  # of a program
NEAREST = tl.constexpr(12582912.0)  # 3 · 2**22: a sum with it has no digits after the point; halves go to even ones


def finite_scalar_codes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor,
    half_width: Tensor,
    offset: Tensor,
    lowest: Tensor,
    powers: Tensor,
) -> Tensor:
    """See `loquent.kernels.finite_scalar`."""
    shape, x = x.shape[:-1], x.reshape(-1, x.shape[-1]).contiguous()
    numbers, channels = weight.shape
    codes = torch.empty(len(x), dtype=torch.long, device=x.device)
    launch(
        quantise,
        (triton.cdiv(len(x), FRAMES),),
        *(x, weight.contiguous(), bias, shift, half_width, offset, lowest, powers, codes, len(x), channels, numbers),
        FRAMES=FRAMES,
        NUMBERS=block_of(numbers),
        CHANNELS=64,
    )
    return codes.view(shape)


@triton.jit
def quantise(
    x, weight, bias, shift, half_width, offset, lowest, powers, codes, frames, channels, numbers,
    FRAMES: tl.constexpr, NUMBERS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """One block of frames."""
    frame, j = tl.program_id(0) * FRAMES + tl.arange(0, FRAMES), tl.arange(0, NUMBERS)
    here, inside = frame < frames, j < numbers
    total = tl.zeros([FRAMES, NUMBERS], tl.float32)
    for c_0 in range(0, channels, CHANNELS):
        c = c_0 + tl.arange(0, CHANNELS)
        a = tl.load(x + frame[:, None] * channels + c, mask=here[:, None] & (c < channels), other=0)
        b = tl.load(weight + j[None, :] * channels + c[:, None], mask=inside & (c < channels)[:, None], other=0)
        total = dot(a, b, total)
    h = (total + tl.load(bias + j, mask=inside, other=0).to(tl.float32)).to(x.dtype.element_ty).to(tl.float32)
    bounded = tanh(h + tl.load(shift + j, mask=inside, other=0)) * tl.load(half_width + j, mask=inside, other=0)
    level = ((bounded - tl.load(offset + j, mask=inside, other=0)) + NEAREST) - NEAREST
    digit = (level + tl.load(lowest + j, mask=inside, other=0)).to(tl.int64)
    code = tl.sum(tl.where(inside, digit * tl.load(powers + j, mask=inside, other=0), 0), 1)
    tl.store(codes + frame, code, mask=here)
