"""The most probable tokens: of the scores of a search, or of a layer of which only the largest output matters."""

from __future__ import annotations

import torch
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


def _argmax_reference(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    scores = linear(x, weight, bias).float()
    ids = scores.argmax(-1)
    return ids, F.log_softmax(scores, dim=-1).gather(-1, ids[..., None])[..., 0]


def _argmax_triton(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[-1] != weight.shape[1] or not weight.is_contiguous():
        return _argmax_reference(x, weight, bias)
    from loquent.kernels.gpu.linear_argmax import linear_argmax

    return linear_argmax(x, weight, bias)


LINEAR_ARGMAX = Operation("linear_argmax", reference=_argmax_reference, triton=_argmax_triton)


def top_tokens(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and numbers of the ``count`` most probable tokens, best first::

        score[b, n] = logits[b, token[b, n]] - log Σ_v exp logits[b, v]

    Args:
        logits: (B, V), of which some may be -inf, not all of a row.
        count: at most V.

    Returns:
        (B, N) and (B, N) int64; the order of equal scores is not defined.
    """
    return TOP_TOKENS.choose(logits)(logits, count)


def _top_reference(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    scores, tokens = logits.topk(count)
    return scores - logits.logsumexp(-1, keepdim=True), tokens


def _top_numba(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    from loquent.kernels.cpu.runtime import kernel, run

    rows, vocabulary = logits.shape
    logits = logits.contiguous()
    scores, tokens = logits.new_empty(rows, count), torch.empty(rows, count, dtype=torch.long)
    fields = (vocabulary, count, logits.data_ptr(), scores.data_ptr(), tokens.data_ptr())
    run(kernel("top_tokens", "top_tokens"), rows, logits.numel(), *fields)
    return scores, tokens


TOP_TOKENS = Operation("top_tokens", reference=_top_reference, numba=_top_numba)
