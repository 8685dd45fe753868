"""Prosody: how long each phone is, and pitch and energy of each frame."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.tts.hibari.config import LONGEST_PHONE, PITCH_SCALE, UNIT, ProsodyConfig
from loquent.tts.hibari.text_encoder import TextEncoder
from loquent.tts.vocoder.convnext import ConvNeXtBlock


class Prosody(nn.Module):
    """Durations from phones; pitch and energy from phones stretched to their durations."""

    def __init__(self, config: ProsodyConfig) -> None:
        super().__init__()
        dim = config.text.dim
        self.text = TextEncoder(config.text)
        self.duration_in = nn.Linear(3 * dim, dim)  # of a phone and its neighbours
        self.duration_out = nn.Linear(dim, 1)
        self.curves_in = nn.Linear(dim, dim)
        self.curves = nn.ModuleList(
            ConvNeXtBlock(dim, config.hidden, config.kernel, dilation, linear=nn.Linear)
            for dilation in config.dilations
        )
        self.curves_out = nn.Linear(dim, 2 * UNIT)

    def durations(self, features: Tensor, speed: float = 1.0) -> Tensor:
        """Units of 25 ms of each phone, 1 … 40: (B, P, C) features of ``text`` to (B, P) int64.

        Rounded, half to even, after the division by ``speed``.
        """
        neighbours = F.pad(features, (0, 0, 1, 1)).unfold(1, 3, 1).flatten(2)
        units = self.duration_out(F.gelu(self.duration_in(neighbours)))[:, :, 0].exp() - 1
        return (units / speed).round().clamp(1, LONGEST_PHONE).long()

    def pitch_and_energy(self, features: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """Curves of the frames of some units.

        Args:
            features: (B, U, C) of all units of a window.
            first, end: the units that are wanted, first … end - 1; all by default. Only what they
                depend on is computed.

        Returns:
            (B, 2 (end - first), 2), pitch in Hz and energy.
        """
        blocks, units = cast(list[ConvNeXtBlock], list(self.curves)), features.shape[1]
        spans = [(first, units if end is None else end)]  # what each block has to give, the last one's first
        for block in reversed(blocks):
            low, high = spans[-1]
            spans.append((max(low - block.left, 0), min(high + block.right, units)))
        low, high = spans.pop()
        x = self.curves_in(features[:, low:high])
        for block in blocks:
            wanted, stop = spans.pop()
            x = block(x, left=low - (wanted - block.left), right=stop + block.right - high)
            low, high = wanted, stop
        x = self.curves_out(x).unflatten(-1, (2, UNIT))
        pitch, energy = x.transpose(2, 3).flatten(1, 2).unbind(-1)
        return torch.stack([pitch * PITCH_SCALE, energy], dim=-1)
