"""Cross-entropy over a large vocabulary, without ever holding the scores of more than a few tokens.

For tokens n with hidden states h_n, an embedding E (V, C) and next tokens t_n::

    p_n = softmax(E h_n)
    loss = -1/N Σ_n log p_n(t_n)
    d loss / d h_n = 1/N Eᵀ [ p_n - onehot(t_n) ]

A teacher with hidden states g_n and the same embedding gives probabilities q_n = softmax(E g_n) to imitate with a share
s_n of the loss (Hinton et al. 2015, arXiv 1503.02531)::

    loss = 1/N Σ_n (1 - s_n) (-log p_n(t_n)) + s_n KL(q_n ‖ p_n)
    d loss / d h_n = 1/N Eᵀ [ p_n - (1 - s_n) onehot(t_n) - s_n q_n ]

The gradient needs the scores and nothing else, so forward makes it on the spot, for a slab of tokens at a time, where
whole tensors of scores would pass through memory many times. The embedding is frozen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SLAB = 128  # tokens


class VocabularyLoss(NamedTuple):
    """What `vocabulary_loss` returns.

    loss:  (), nats per token, with a gradient for the hidden states.
    label: (), the part of the labels alone, as if no teacher had a share; without a gradient.
    right: (N,) bool, whether no other token scores higher than the label.
    """

    loss: Tensor
    label: Tensor
    right: Tensor


class Teacher(NamedTuple):
    """Whom to imitate: hidden states (N, C), read by the same embedding, and the share (N,) of each token's loss."""

    hidden: Tensor
    share: Tensor


def vocabulary_loss(
    hidden: Tensor, embedding: Tensor, targets: Tensor, teacher: Teacher | None = None
) -> VocabularyLoss:
    """Mean over tokens.

    Args:
        hidden: (N, C).
        embedding: (V, C), without a gradient.
        targets: (N,) int64.
        teacher: of the N tokens; its scores are computed only where its share is above 0.
    """
    return VocabularyLoss(*_VocabularyLoss.apply(hidden, embedding, targets, *(teacher or (None, None))))


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, teacher: Tensor | None, share: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradient, right = torch.empty_like(hidden), torch.empty_like(targets, dtype=torch.bool)
        loss, label = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros((), dtype=torch.float32)
        for slab in (slice(first, first + SLAB) for first in range(0, len(targets), SLAB)):
            wanted = targets[slab, None]
            scores = F.linear(hidden[slab], embedding).float()
            right[slab] = (scores.gather(1, wanted) >= scores.amax(-1, keepdim=True))[:, 0]
            log_p = scores.log_softmax(-1)
            own = -log_p.gather(1, wanted)
            label += own.sum()
            part = torch.zeros_like(own) if share is None else share[slab, None]
            loss += ((1 - part) * own).sum()
            slope = log_p.exp().scatter_add_(1, wanted, part - 1)
            if teacher is not None and len(taught := part[:, 0].nonzero()[:, 0]):
                log_q = F.linear(teacher[slab][taught], embedding).float().log_softmax(-1)
                q = log_q.exp() * part[taught]
                loss += (q * (log_q - log_p[taught])).sum()
                slope.index_add_(0, taught, q, alpha=-1)
            gradient[slab] = slope.to(hidden.dtype) @ embedding
        ctx.save_for_backward(gradient / len(targets))
        label /= len(targets)
        ctx.mark_non_differentiable(label, right)
        return loss / len(targets), label, right

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None, None, None
