"""The middle of a Conformer's convolution module for new steps: gate, causal depthwise convolution, norm, Swish."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.conv_step import depthwise_conv_step
from loquent.kernels.registry import Operation

EPSILON = 1e-5  # of the norm
MOST = 4096  # channels that the norm's program can hold


def gated_conv_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: tuple[Tensor, Tensor],
    tail: Tensor,
    rows: Tensor,
    length: Tensor,
) -> Tensor:
    """Gate the new steps of B streams, convolve them with their past, and normalise what comes out::

        s = a · σ(b)   with (a, b) = x[t]
        out[t] = silu(layer_norm(depthwise_conv_step(s, weight, bias, tail, rows, length)[t]))

    Args:
        x: (B, T, 2 · C) new steps; what lies beyond a row's length is ignored.
        weight: (C, K). bias: (C,) or None.
        norm: (C,) scale and shift of the layer norm, whose ε is 1e-5.
        tail: (S, K - 1, C) pool of the last gated inputs, oldest first, updated in place; zeros at the start.
        rows: (B,) int64, each row's slot in the pool; no slot may occur twice.
        length: (B,) int64, valid steps of each row, 0 … T.

    Returns:
        (B, T, C), arbitrary beyond a row's length.

    Source: Gulati et al. 2020 (arXiv 2005.08100), figure 2, with the layer norm of arXiv 2312.17279.
    """
    run = GATED_CONV_STEP.choose(x, weight, *norm, tail)
    return run(x, weight, bias, norm, tail, rows, length)


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: tuple[Tensor, Tensor],
    tail: Tensor,
    rows: Tensor,
    length: Tensor,
) -> Tensor:
    mixed = depthwise_conv_step(F.glu(x), weight, bias, tail, rows, length)
    return F.silu(F.layer_norm(mixed, mixed.shape[2:], *norm, EPSILON))


def _triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: tuple[Tensor, Tensor],
    tail: Tensor,
    rows: Tensor,
    length: Tensor,
) -> Tensor:
    if tail.shape[2] > MOST:
        return _reference(x, weight, bias, norm, tail, rows, length)
    from loquent.kernels.gpu.conv import convolve

    return convolve(x, weight, bias, tail, rows, length, gated=True, norm=norm, epsilon=EPSILON, swish=True)[0]


GATED_CONV_STEP = Operation("gated_conv_step", reference=_reference, triton=_triton)
