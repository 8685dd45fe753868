"""Cross-entropy over a large vocabulary with a teacher, without ever holding the scores of more than a few tokens.

For tokens n with hidden states h_n, an embedding E (V, C), next tokens t_n and, for some, a teacher's states g_n::

    p_n = softmax(E h_n),   q_n = softmax(E g_n)
    loss = 1/N Σ_n [ -log p_n(t_n) - w Σ_v q_n(v) log p_n(v) ]
    d loss / d h_n = 1/N Eᵀ [ p_n - onehot(t_n) + w (p_n - q_n) ]

The gradient needs the scores once more and nothing else, so forward makes it on the spot, for a slab of tokens that
stays in the cache. The embedding is frozen. The second term is Hinton et al. 2015 (arXiv 1503.02531) at temperature 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SLAB = 128  # tokens


class VocabularyLoss(NamedTuple):
    """What `vocabulary_loss` finds.

    loss:     scalar, with a gradient; nats per token.
    tokens:   its first term, cross-entropy with the next tokens.
    teaching: its second term without the weight, cross-entropy with the teacher.
    right:    (N,) bool, whether no other token scores higher than the next one.
    """

    loss: Tensor
    tokens: Tensor
    teaching: Tensor
    right: Tensor


def vocabulary_loss(
    hidden: Tensor, embedding: Tensor, targets: Tensor, teacher: Tensor | None = None, taught: Tensor | None = None,
    weight: float = 0.0,
) -> VocabularyLoss:  # fmt: skip
    """The loss of a batch of tokens.

    Args:
        hidden: (N, C) of the model.
        embedding: (V, C), without a gradient.
        targets: (N,) int64.
        teacher: (M, C) hidden states of the teacher.
        taught: (N,) int64, which of these belongs to each token; -1 for none.
        weight: of the teacher's term.
    """
    if taught is None or teacher is None:
        teacher, taught = hidden.new_zeros(1, hidden.shape[1]), torch.full_like(targets, -1)
    return VocabularyLoss(*_VocabularyLoss.apply(hidden, embedding, targets, teacher, taught, weight))


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, teacher: Tensor, taught: Tensor, weight: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(targets)
        gradient = torch.empty_like(hidden)
        tokens, teaching = hidden.new_zeros(2, dtype=torch.float32).unbind()
        right = torch.empty(count, dtype=torch.bool, device=hidden.device)
        for slab in (slice(first, first + SLAB) for first in range(0, count, SLAB)):
            wanted, source = targets[slab, None], taught[slab]
            scores = F.linear(hidden[slab], embedding).float()
            own = scores.gather(1, wanted)
            right[slab] = (own >= scores.amax(-1, keepdim=True))[:, 0]
            scores -= scores.logsumexp(-1, keepdim=True)  # log p from here on
            tokens -= scores.gather(1, wanted).sum()
            has = (source >= 0).nonzero()[:, 0]
            if weight and len(has):
                theirs = F.linear(teacher[source[has]], embedding).float()
                theirs = theirs.sub_(theirs.logsumexp(-1, keepdim=True)).exp_()
                teaching -= torch.einsum("nv,nv->", theirs, scores[has])
                slope = scores.exp_()
                slope *= 1 + weight * (source >= 0)[:, None]
                slope.index_add_(0, has, theirs, alpha=-weight)
            else:
                slope = scores.exp_()
            slope.scatter_add_(1, wanted, torch.full_like(own, -1.0))
            gradient[slab] = slope.to(hidden.dtype) @ embedding
        ctx.save_for_backward(gradient / count)
        tokens, teaching = tokens / count, teaching / count
        ctx.mark_non_differentiable(tokens, teaching, right)
        return tokens + weight * teaching, tokens, teaching, right

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None, None, None, None
