"""One step of a streaming depthwise causal convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.kernels.registry import Operation

CHANNELS = 128  # that a task of the kernel takes


def depthwise_conv_step(
    x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, rows: Tensor, length: Tensor
) -> Tensor:
    """Convolve the new steps of B streams with their past, then remember the last K - 1 of them::

        out[t, c] = bias[c] + Σ_i weight[c, i] · s[t + i, c]   with s = (tail[rows[b]], x[b])

    Args:
        x: (B, T, C) new steps; what lies beyond a row's length is ignored.
        weight: (C, K).
        bias: (C,) or None.
        tail: (S, K - 1, C) pool of the last inputs of each stream, oldest first, updated in place; zeros at the start.
        rows: (B,) int64, each row's slot in the pool; no slot may occur twice.
        length: (B,) int64, valid steps of each row, 0 … T.

    Returns:
        (B, T, C), zero beyond a row's length: what `F.conv1d` gives with K - 1 zeros before the stream.
    """
    run = DEPTHWISE_CONV_STEP.choose(x, weight, tail)
    return run(x, weight, bias, tail, rows, length)


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, rows: Tensor, length: Tensor) -> Tensor:
    steps, context = x.shape[1], tail.shape[1]
    valid = (torch.arange(steps, device=x.device) < length[:, None])[:, :, None]
    signal = torch.cat([tail[rows].to(x.dtype), torch.where(valid, x, 0)], dim=1)
    out = torch.zeros_like(x) if bias is None else bias.expand_as(x)
    for tap in range(context + 1):
        out = out + weight[:, tap] * signal[:, tap : tap + steps]
    recent = (length[:, None] + torch.arange(context, device=x.device))[:, :, None].expand(-1, -1, x.shape[2])
    tail[rows] = signal.detach().gather(1, recent).to(tail.dtype)
    return torch.where(valid, out, 0)


def _numba(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, rows: Tensor, length: Tensor) -> Tensor:
    from loquent.kernels.cpu.runtime import fields_of, kernel, run

    batch, steps, channels = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    rows, length = rows.contiguous(), length.contiguous()
    bias = None if bias is None else bias.contiguous()  # held until the kernel has run
    run(
        kernel("conv", "depthwise_conv_step"),
        batch * -(-channels // CHANNELS),
        out.numel() * weight.shape[1],
        *(steps, channels, tail.shape[1], rows.data_ptr(), length.data_ptr()),
        *(field for tensor in (x, out, tail, weight) for field in fields_of(tensor)),
        0 if bias is None else bias.data_ptr(),
    )
    return out


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, rows: Tensor, length: Tensor) -> Tensor:
    from loquent.kernels.gpu.conv import depthwise_conv_step

    return depthwise_conv_step(x, weight, bias, tail, rows, length)


DEPTHWISE_CONV_STEP = Operation("depthwise_conv_step", reference=_reference, numba=_numba, triton=_triton)
