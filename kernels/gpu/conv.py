"""Causal depthwise convolution of new steps with what is kept of those before, and what goes before and after it.

A program takes a block of steps and channels of one row; with a norm, all channels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, launch, sigmoid, strides_of

CHANNELS = 64  # of a program without a norm
VALUES = 4096  # steps times channels of a program with one


def depthwise_conv_step(
    x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, rows: Tensor, length: Tensor
) -> Tensor:
    """See `loquent.kernels.conv_step`."""
    return convolve(x, weight, bias, tail, rows, length)[0]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tail: Tensor,
    rows: Tensor,
    length: Tensor,
    *,
    gated: bool = False,
    norm: tuple[Tensor, Tensor] | None = None,
    epsilon: float = 1e-5,
    swish: bool = False,
    right: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The convolution; before it a gate, after it a layer norm and Swish, where asked for.

    Args:
        x: (B, T, C), or (B, T, 2 · C) to be gated.
        right: give the inputs of so many steps before, too.

    Returns:
        (B, T, C) twice; the second one is empty unless ``right`` is given.
    """
    (batch, steps, _), channels = x.shape, tail.shape[2]
    out = x.new_empty(batch, steps, channels)
    late = x.new_empty(batch, steps if right is not None else 0, channels)
    if norm is None:
        width, block = CHANNELS, block_of(steps, 1, 16)
    else:
        width = block_of(channels)
        block = block_of(steps, 1, max(VALUES // width, 1))
    blocks, stretches = triton.cdiv(steps, block), triton.cdiv(channels, width)
    rows, length = rows.contiguous(), length.contiguous()
    places = x, tail, rows, length, *strides_of(x), *strides_of(tail), channels, tail.shape[1]
    sizes = {"WIDTH": width, "PADDED": block_of(tail.shape[1], 1), "GATED": gated}
    scale, shift = norm or (weight, weight)
    launch(
        depthwise,
        (batch, stretches, blocks),
        *(*places, weight, weight if bias is None else bias.contiguous(), scale, shift, out, late),
        *(*strides_of(weight), steps, right or 0, epsilon),
        **sizes,
        STEPS=block,
        BIAS=bias is not None,
        NORM=norm is not None,
        SWISH=swish,
        LATE=right is not None,
        REMEMBER=blocks == 1,
    )
    if blocks > 1 and tail.shape[1]:
        launch(remember, (batch, stretches), *places, **sizes)
    return out, late


@triton.jit
def _signal(x, tail, index, c, inside, count, x_step, tail_step, context, channels, GATED: tl.constexpr):
    """Entries of (tail, x): those from ``count`` new steps on are 0."""
    past, new = index < context, index - context
    mask = (past & (index >= 0))[:, None] & inside
    old = tl.load(tail + index[:, None] * tail_step + c, mask=mask, other=0)
    mask = (~past & (new < count))[:, None] & inside
    fresh = tl.load(x + new[:, None] * x_step + c, mask=mask, other=0).to(tl.float32)
    if GATED:
        gate = tl.load(x + new[:, None] * x_step + channels + c, mask=mask, other=0).to(tl.float32)
        # Rounded as it will be once it is past, so that it does not matter where a stream is cut.
        fresh = (fresh * sigmoid(gate)).to(tail.dtype.element_ty).to(tl.float32)
    return tl.where(past[:, None], old.to(tl.float32), fresh)


@triton.jit
def _remember(
    x, tail, c, inside, count, x_step, tail_step, context, channels, GATED: tl.constexpr, PADDED: tl.constexpr
):  # fmt: skip
    """Keep the last of (tail, x), in a row that has brought any."""
    index = tl.arange(0, PADDED)
    kept = _signal(x, tail, index + count, c, inside, count, x_step, tail_step, context, channels, GATED)
    tl.debug_barrier()  # all of the old ones are read
    mask = ((index < context) & (count > 0))[:, None] & inside
    tl.store(tail + index[:, None] * tail_step + c, kept.to(tail.dtype.element_ty), mask=mask)


@triton.jit
def depthwise(
    x, tail, rows, length, x_row, x_step, tail_slot, tail_step, channels, context,
    weight, bias, scale, shift, out, late, weight_step, steps, right, epsilon,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, GATED: tl.constexpr, STEPS: tl.constexpr, BIAS: tl.constexpr,
    NORM: tl.constexpr, SWISH: tl.constexpr, LATE: tl.constexpr, REMEMBER: tl.constexpr,
):  # fmt: skip
    """One block of steps and channels of one row."""
    row = tl.program_id(0)
    slot, count = tl.load(rows + row), tl.load(length + row).to(tl.int32)
    step = tl.program_id(2) * STEPS + tl.arange(0, STEPS)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside, valid = c < channels, step < count
    x += row * x_row
    tail += slot * tail_slot
    y = tl.zeros([STEPS, WIDTH], tl.float32)
    if BIAS:
        y += tl.load(bias + c, mask=inside, other=0).to(tl.float32)
    for tap in range(context + 1):
        signal = _signal(x, tail, step + tap, c, inside, count, x_step, tail_step, context, channels, GATED)
        y += signal * tl.load(weight + c * weight_step + tap, mask=inside, other=0).to(tl.float32)
    if NORM:
        y = tl.where(inside, y, 0)
        mean = tl.sum(y, 1) / channels
        centred = tl.where(inside, y - mean[:, None], 0)
        unit = tl.rsqrt(tl.sum(centred * centred, 1) / channels + epsilon)
        y = centred * unit[:, None] * tl.load(scale + c, mask=inside, other=0).to(tl.float32)
        y += tl.load(shift + c, mask=inside, other=0).to(tl.float32)
    if SWISH:
        y = y * sigmoid(y)
    at = (row * steps + step)[:, None] * channels + c
    mask = (step < steps)[:, None] & inside
    tl.store(out + at, tl.where(valid[:, None], y, 0).to(out.dtype.element_ty), mask=mask)
    if LATE:
        signal = _signal(x, tail, step + context - right, c, inside, count, x_step, tail_step, context, channels, GATED)
        tl.store(late + at, signal.to(late.dtype.element_ty), mask=mask)
    if REMEMBER:
        _remember(x, tail, c, inside, count, x_step, tail_step, context, channels, GATED, PADDED)


@triton.jit
def remember(
    x, tail, rows, length, x_row, x_step, tail_slot, tail_step, channels, context,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """Some channels of one row, once all programs of `depthwise` have read the tail."""
    row = tl.program_id(0)
    slot, count = tl.load(rows + row), tl.load(length + row).to(tl.int32)
    c = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    _remember(
        x + row * x_row, tail + slot * tail_slot, c, c < channels, count, x_step, tail_step, context, channels,
        GATED, PADDED,
    )  # fmt: skip
