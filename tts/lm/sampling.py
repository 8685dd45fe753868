"""Repetition-aware sampling: which speech token comes next, from numbers that belong to the stream alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.kernels.counter_noise import counter_noise


@dataclass(frozen=True)
class RepetitionAwareSampling:
    """Nucleus sampling, unless it repeats itself (VALL-E 2, arXiv 2406.05370, section 3.4, as in CosyVoice).

    A token is drawn from the smallest set of most probable tokens that has the probability ``top_p``, at most ``top_k``
    of them. If it makes up ``repetition`` or more of the last ``window`` tokens, another one is drawn from all others.
    """

    top_p: float = 0.8
    top_k: int = 25
    window: int = 10
    repetition: float = 0.1

    def __call__(self, logits: Tensor, recent: Tensor, uniforms: Tensor) -> Tensor:
        """Draw a token for each row, which depends on nothing but the row.

        Args:
            logits: (B, V), -inf where a token is not allowed.
            recent: (B, window) int64, the last tokens; -1 where there are fewer.
            uniforms: (B, 2) from 0 to 1.

        Returns:
            (B,) int64.
        """
        chance, order = logits.float().softmax(-1).sort(dim=-1, descending=True, stable=True)
        chance, order = chance[:, : self.top_k], order[:, : self.top_k]
        total = chance.cumsum(-1)
        kept = torch.where(total - chance < self.top_p, chance, 0)
        token = order.gather(1, _invert(kept, uniforms[:, :1]))
        repeated = (recent == token).sum(-1, keepdim=True) >= self.window * self.repetition
        others = logits.float().scatter(1, token, -torch.inf).softmax(-1)
        return torch.where(repeated, _invert(others, uniforms[:, 1:]), token)[:, 0]


def _invert(chance: Tensor, uniform: Tensor) -> Tensor:
    """The first index (B, 1) at which the running sum of chances (B, N) exceeds the share ``uniform`` (B, 1) of all."""
    total = chance.double().cumsum(-1)
    # Where rounding leads behind the last possible one, that one is meant.
    return (
        (total <= uniform.double() * total[:, -1:])
        .sum(-1, keepdim=True)
        .minimum((total < total[:, -1:]).sum(-1, keepdim=True))
    )


def draws(seeds: Tensor, counts: Tensor) -> Tensor:
    """Numbers from 0 to 1 that are a function of a stream's seed and of how many it has drawn: (B,), (B,) to (B, 2)."""
    return torch.special.ndtr(counter_noise(seeds, counts[:, None], 2)[:, 0].double())
