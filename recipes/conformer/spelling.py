"""Learning to listen from texts of all kinds: below the layers that write, their letters are asked for.

For the words that a model is to write there may be few speakers. Recordings of others have other texts, which it is not
to learn to write; letter by letter they still tell what there was to hear, in more voices.
Source: intermediate CTC (Lee and Watanabe 2021, arXiv 2102.03216), with letters for its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.asr.heads.ctc import CTCHead
from loquent.recipes.data.written_text import written

LETTERS = "abcdefghijklmnopqrstuvwxyz' "
ROOM = 3  # letters in a frame of 80 ms: people say up to 20 in a second, and a repeated one needs a blank between
WIDTH = 64  # of a third of a frame


@dataclass(frozen=True)
class SpellingOptions:
    """How much the letters count."""

    weight: float = 1.0  # of their loss, in nats per letter


class Spelling(nn.Module):
    """A CTC head for letters, which is trained but not kept with the model.

    Args:
        options: its weight.
        width: of encoder frames.
    """

    def __init__(self, options: SpellingOptions, width: int) -> None:
        super().__init__()
        self.options = options
        self.split = nn.Linear(width, ROOM * WIDTH)
        self.ctc = CTCHead(WIDTH, len(LETTERS))

    def forward(self, encoded: Tensor, length: Tensor, letters: Tensor, count: Tensor) -> Tensor:
        """Loss in nats per letter.

        Args:
            encoded: (B, T, C) frames, ``length`` (B,) of them valid.
            letters: (B, U) from `spelt`, ``count`` (B,) of them valid; rows without any are left out.
        """
        known = count > 0
        if not known.any():
            return encoded.new_zeros((), dtype=torch.float32)
        parts = self.split(encoded[known]).unflatten(-1, (ROOM, WIDTH)).flatten(1, 2)
        loss = self.ctc.loss(parts, ROOM * length[known], letters[known], count[known])
        return loss.sum() / count.sum().clamp_min(1)


def spelt(text: str) -> Tensor:
    """Numbers of a text's letters (U,), int64; none if it has a digit or a letter that English has not."""
    plain = written(text).lower()
    if any(one.isalnum() and one not in LETTERS for one in plain):
        plain = ""
    words = "".join(one if one in LETTERS else " " for one in plain).split()
    return torch.tensor([LETTERS.index(one) for one in " ".join(words)], dtype=torch.long)
