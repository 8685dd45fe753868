"""Intermediate CTC on letters: an auxiliary loss below the last layers, for transcripts outside the model's vocabulary.

The model's own vocabulary may be spoken by few speakers. Other recordings have transcripts that the model is not meant
to write; their letters still train the lower layers, on many more speakers.
Source: Lee and Watanabe 2021 (arXiv 2102.03216), with letters instead of the model's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.asr.heads.ctc import CTCHead
from loquent.recipes.data.written_text import written

LETTERS = "abcdefghijklmnopqrstuvwxyz' "
SUBFRAMES = 3  # of a frame of 80 ms: speech has up to 20 letters per second, and a repeated letter needs a blank
WIDTH = 64  # of a subframe


@dataclass(frozen=True)
class IntermediateCTCOptions:
    """The weight of the loss."""

    weight: float = 1.0  # the loss is in nats per letter


class IntermediateCTC(nn.Module):
    """A CTC head for letters, which is trained but is not part of the model.

    Args:
        options: the weight.
        width: of encoder frames.
    """

    def __init__(self, options: IntermediateCTCOptions, width: int) -> None:
        super().__init__()
        self.options = options
        self.split = nn.Linear(width, SUBFRAMES * WIDTH)
        self.ctc = CTCHead(WIDTH, len(LETTERS))

    def forward(self, encoded: Tensor, length: Tensor, letters: Tensor, count: Tensor) -> Tensor:
        """Loss in nats per letter.

        Args:
            encoded: (B, T, C) frames, ``length`` (B,) of them valid.
            letters: (B, U) from `letter_targets`, ``count`` (B,) of them valid; rows without any are ignored.
        """
        known = count > 0
        if not known.any():
            return encoded.new_zeros((), dtype=torch.float32)
        parts = self.split(encoded[known]).unflatten(-1, (SUBFRAMES, WIDTH)).flatten(1, 2)
        loss = self.ctc.loss(parts, SUBFRAMES * length[known], letters[known], count[known])
        return loss.sum() / count.sum().clamp_min(1)


def letter_targets(text: str) -> Tensor:
    """Indices of a text's letters in `LETTERS` (U,), int64; empty if it has a digit or a letter outside English."""
    plain = written(text).lower()
    if any(one.isalnum() and one not in LETTERS for one in plain):
        plain = ""
    words = "".join(one if one in LETTERS else " " for one in plain).split()
    return torch.tensor([LETTERS.index(one) for one in " ".join(words)], dtype=torch.long)
