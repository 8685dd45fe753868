"""One step of a streaming ConvNeXt block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.conv_step import depthwise_conv_step
from loquent.kernels.linear import linear
from loquent.kernels.registry import LANES, Operation

FEW = 64  # steps of all rows; more are worth several cores
EPSILON = 1e-5  # of the norm


class ConvNeXtWeights(NamedTuple):
    """Weights of a block with C channels, H between its layers, and a convolution over K steps."""

    depthwise: Tensor  # (C, K)
    depthwise_bias: Tensor  # (C,)
    norm: Tensor  # (C,)
    norm_bias: Tensor  # (C,)
    expand: Tensor  # (H, C)
    expand_bias: Tensor  # (H,)
    contract: Tensor  # (C, H)
    contract_bias: Tensor  # (C,)
    scale: Tensor  # (C,)


def convnext_step(
    x: Tensor, weights: ConvNeXtWeights, tail: Tensor, rows: Tensor, length: Tensor, right: int
) -> Tensor:
    """Take the new steps of B streams, and give as many results, those of ``right`` steps before::

        h[t] = depthwise_conv_step(x, depthwise, depthwise_bias, tail, rows, length)[t]
        out[t] = s[t + K - 1 - right] + scale · (contract · gelu(expand · norm(h[t])))   with s = (tail[rows[b]], x[b])

    A chunk of one stream is a few rows, whose product takes less time than the dozen calls that it is made of.

    Args:
        x: (B, T, C) new steps; what lies beyond a row's length is ignored.
        weights: of the block.
        tail: (S, K - 1, C) pool of the last inputs of each stream, oldest first, updated in place; zeros at the start.
        rows: (B,) int64, each row's slot in the pool; no slot may occur twice.
        length: (B,) int64, valid steps of each row, 0 … T.
        right: steps that the convolution looks ahead, 0 … K - 1.

    Returns:
        (B, T, C); what lies beyond a row's length is arbitrary.

    Source: Liu et al. 2022 (arXiv 2201.03545); the norm's ε is 1e-5, gelu is the exact one.
    """
    return CONVNEXT_STEP.choose(x, tail, *weights)(x, weights, tail, rows, length, right)


def _reference(x: Tensor, weights: ConvNeXtWeights, tail: Tensor, rows: Tensor, length: Tensor, right: int) -> Tensor:
    now = x
    if right:
        now = torch.cat([tail[rows, tail.shape[1] - right :].to(x.dtype), x], dim=1)[:, : x.shape[1]]
    mixed = depthwise_conv_step(x, weights.depthwise, weights.depthwise_bias, tail, rows, length)
    mixed = F.layer_norm(mixed, mixed.shape[2:], weights.norm, weights.norm_bias, EPSILON)
    mixed = F.gelu(linear(mixed, weights.expand, weights.expand_bias))
    return now + linear(mixed, weights.contract, weights.contract_bias) * weights.scale


def _numba(x: Tensor, weights: ConvNeXtWeights, tail: Tensor, rows: Tensor, length: Tensor, right: int) -> Tensor:
    batch, steps, channels = x.shape
    hidden = len(weights.expand)
    if batch * steps > FEW or channels % LANES or hidden % LANES or torch.is_autocast_enabled("cpu"):
        return _reference(x, weights, tail, rows, length, right)
    from loquent.kernels.cpu.runtime import fields_of, kernel, run

    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    held = [weight.contiguous() for weight in weights]
    rows, length = rows.contiguous(), length.contiguous()
    run(
        kernel("convnext", "convnext_step"),
        1,
        2 * out.numel() * hidden,
        *(batch, steps, channels, hidden, tail.shape[1], right, rows.data_ptr(), length.data_ptr()),
        *(field for tensor in (x, tail) for field in fields_of(tensor)),
        out.data_ptr(),
        *(weight.data_ptr() for weight in held),
    )
    return out


def _triton(x: Tensor, weights: ConvNeXtWeights, tail: Tensor, rows: Tensor, length: Tensor, right: int) -> Tensor:
    if x.numel() == 0:
        return _reference(x, weights, tail, rows, length, right)
    from loquent.kernels.gpu.convnext import convnext_step

    return convnext_step(x, weights, tail, rows, length, right, EPSILON)


CONVNEXT_STEP = Operation("convnext_step", reference=_reference, numba=_numba, triton=_triton)
