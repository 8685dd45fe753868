"""A ConvNeXt block in three kernels: convolution with norm, layer with gelu, layer with residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from loquent.kernels.gpu.conv import convolve
from loquent.kernels.gpu.linear import linear_with

if TYPE_CHECKING:
    from loquent.kernels.convnext_step import ConvNeXtWeights


def convnext_step(
    x: Tensor, weights: ConvNeXtWeights, tail: Tensor, rows: Tensor, length: Tensor, right: int, epsilon: float
) -> Tensor:
    """See `loquent.kernels.convnext_step`."""
    depthwise = weights.depthwise, weights.depthwise_bias, tail, rows, length
    norm = weights.norm, weights.norm_bias
    mixed, now = convolve(x, *depthwise, norm=norm, epsilon=epsilon, right=right)
    mixed = linear_with(mixed, weights.expand, weights.expand_bias, "gelu")
    return linear_with(mixed, weights.contract, weights.contract_bias, residual=now, scale=weights.scale)
