"""Linear layer of which only the largest output matters: the next token of a greedy search."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.linear import linear
from loquent.kernels.registry import Operation


def linear_argmax(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the most probable output of every row::

        y[n] = bias[n] + Σ_k x[k] weight[n, k],   id = argmax_n y[n],   log p = y[id] - log Σ_n exp(y[n])

    Args:
        x: (..., K).
        weight: (N, K), N at least 1.
        bias: (N,).

    Returns:
        (...) int64 ids, of equals the first, and their (...) float32 log-probabilities.
    """
    return LINEAR_ARGMAX.choose(x, weight, bias)(x, weight, bias)


def _reference(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    scores = linear(x, weight, bias).float()
    ids = scores.argmax(-1)
    return ids, F.log_softmax(scores, dim=-1).gather(-1, ids[..., None])[..., 0]


def _triton(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[-1] != weight.shape[1] or not weight.is_contiguous():
        return _reference(x, weight, bias)
    from loquent.kernels.gpu.linear_argmax import linear_argmax

    return linear_argmax(x, weight, bias)


LINEAR_ARGMAX = Operation("linear_argmax", reference=_reference, triton=_triton)
