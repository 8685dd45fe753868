"""Cross-entropy over a large vocabulary, without ever holding the scores of more than a few tokens.

For tokens n with hidden states h_n, an embedding E (V, C) and next tokens t_n::

    p_n = softmax(E h_n)
    loss = -1/N Σ_n log p_n(t_n)
    d loss / d h_n = 1/N Eᵀ [ p_n - onehot(t_n) ]

The gradient needs the scores and nothing else, so forward makes it on the spot, for a slab of tokens at a time, where
whole tensors of scores would pass through memory many times. The embedding is frozen.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

SLAB = 128  # tokens


def vocabulary_loss(hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over tokens, with a gradient for ``hidden``.

    Args:
        hidden: (N, C).
        embedding: (V, C), without a gradient.
        targets: (N,) int64.

    Returns:
        The loss in nats per token, and (N,) bool, whether no other token scores higher than the right one.
    """
    return cast(tuple[Tensor, Tensor], _VocabularyLoss.apply(hidden, embedding, targets))


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradient, right = torch.empty_like(hidden), torch.empty_like(targets, dtype=torch.bool)
        loss = hidden.new_zeros((), dtype=torch.float32)
        for slab in (slice(first, first + SLAB) for first in range(0, len(targets), SLAB)):
            wanted = targets[slab, None]
            scores = F.linear(hidden[slab], embedding).float()
            own, log_sum = scores.gather(1, wanted), scores.logsumexp(-1, keepdim=True)
            right[slab] = (own >= scores.amax(-1, keepdim=True))[:, 0]
            loss += (log_sum - own).sum()
            slope = scores.sub_(log_sum).exp_().scatter_add_(1, wanted, torch.full_like(own, -1.0))
            gradient[slab] = slope.to(hidden.dtype) @ embedding
        ctx.save_for_backward(gradient / len(targets))
        ctx.mark_non_differentiable(right)
        return loss / len(targets), right

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None
