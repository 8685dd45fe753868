"""Where in the audio each token was said, from the attention of the decoder's alignment heads.

A head attends to some frames whatever it writes, often more than to those of the word. As in openai/whisper
`timing.py`, attention is therefore normalised over tokens and smoothed over time; but over the tokens up to each one,
because a stream does not know those that follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.asr.whisper.alignment import smooth

SMALLEST = 1e-30  # variance: a frame may have had no attention at all
PRIOR = 4  # tokens whose attention is taken to have deviated by as much as its mean: a few tokens tell little


class TokenAttention:
    """Attention of the tokens of one window, in the order in which they are written.

    Args:
        frames: encoder frames of audio; what lies beyond is padding.
    """

    def __init__(self, frames: int) -> None:
        self.frames, self.count = max(frames, 1), 0
        self.sums: Tensor | float = 0.0  # (2, N, 1, F): of the weights, and of their squares

    def __call__(self, weights: Tensor, known: int = 0) -> Tensor:
        """Where tokens were said.

        Args:
            weights: (N heads, T, S) of the next T tokens, over F frames of audio and the padding.
            known: the first of them, which only count towards the mean.

        Returns:
            (T - known, F), high where each of the others was said.
        """
        weights = weights[..., : self.frames]
        weights = weights / weights.sum(-1, keepdim=True)  # as if the padding had not been there
        moments = torch.stack([weights, weights.square()]).double()
        before = self.sums + moments[:, :, :known].sum(2, keepdim=True)
        sums = before + moments[:, :, known:].cumsum(2)
        numbers = torch.arange(self.count + known + 1, self.count + weights.shape[1] + 1, device=weights.device)[
            :, None
        ]
        self.sums, self.count = sums[:, :, -1:], self.count + weights.shape[1]
        mean, square = sums / numbers
        variance = (numbers * (square - mean.square()) + PRIOR * mean.square()) / (numbers + PRIOR)
        return smooth(((weights[:, known:] - mean) / variance.clamp_min(SMALLEST).sqrt()).float())
