"""A ConvNeXt block in three kernels: convolution with norm, layer with gelu, layer with residual."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.gpu.conv import convolve
from loquent.kernels.gpu.linear import linear

FEW = 64  # steps of all rows; the layers of more go to torch's libraries


def convnext_step(
    x: Tensor, weights: tuple[Tensor, ...], tail: Tensor, rows: Tensor, length: Tensor, right: int, epsilon: float
) -> Tensor:
    """See `loquent.kernels.convnext_step`, whose `ConvNeXtWeights` are the weights."""
    depthwise, depthwise_bias, norm, norm_bias, expand, expand_bias, contract, contract_bias, scale = weights
    context, places = (depthwise, depthwise_bias), (tail, rows, length)
    mixed, now = convolve(x, *context, *places, norm=(norm, norm_bias), epsilon=epsilon, right=right)
    if mixed.numel() > FEW * mixed.shape[-1]:
        return now + F.linear(F.gelu(F.linear(mixed, expand, expand_bias)), contract, contract_bias) * scale
    mixed = linear(mixed, expand, expand_bias, "gelu")
    return linear(mixed, contract, contract_bias, residual=now, scale=scale)
