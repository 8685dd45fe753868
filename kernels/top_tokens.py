"""The most probable tokens of each row of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.kernels.registry import Operation


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


def _reference(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    scores, tokens = logits.topk(count)
    return scores - logits.logsumexp(-1, keepdim=True), tokens


def _numba(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    from loquent.kernels.cpu.runtime import kernel, run

    rows, vocabulary = logits.shape
    logits = logits.contiguous()
    scores, tokens = logits.new_empty(rows, count), torch.empty(rows, count, dtype=torch.long)
    fields = (vocabulary, count, logits.data_ptr(), scores.data_ptr(), tokens.data_ptr())
    run(kernel("top_tokens", "top_tokens"), rows, logits.numel(), *fields)
    return scores, tokens


TOP_TOKENS = Operation("top_tokens", reference=_reference, numba=_numba)
