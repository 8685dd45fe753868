"""Prosody: how long each phone is, and pitch and energy of each frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.linear import Linear
from loquent.tts.hibari.config import LONGEST_PHONE, PITCH_SCALE, UNIT, ProsodyConfig
from loquent.tts.hibari.text_encoder import TextEncoder
from loquent.tts.vocoder.convnext import ConvNeXtBlock


class Prosody(nn.Module):
    """Durations from phones; pitch and energy from phones stretched to their durations."""

    def __init__(self, config: ProsodyConfig) -> None:
        super().__init__()
        dim = config.text.dim
        self.text = TextEncoder(config.text)
        self.duration_in = nn.Conv1d(dim, dim, 3, padding=1)
        self.duration_out = Linear(dim, 1)
        self.curves_in = Linear(dim, dim)
        self.curves = nn.Sequential(
            *(ConvNeXtBlock(dim, config.hidden, config.kernel, dilation) for dilation in config.dilations)
        )
        self.curves_out = Linear(dim, 2 * UNIT)

    @property
    def reach(self) -> int:
        """Units on either side that the curves of a unit depend on."""
        return sum(block.right for block in self.curves)

    def durations(self, features: Tensor, speed: float = 1.0) -> Tensor:
        """Units of 25 ms of each phone, 1 … 40: (B, P, C) features of ``text`` to (B, P) int64.

        Rounded, half to even, after the division by ``speed``.
        """
        hidden = F.gelu(self.duration_in(features.transpose(1, 2)).transpose(1, 2))
        units = self.duration_out(hidden)[:, :, 0].exp() - 1
        return (units / speed).round().clamp(1, LONGEST_PHONE).long()

    def pitch_and_energy(self, stretched: Tensor) -> Tensor:
        """Curves of the frames of some units: (B, U, C) features to (B, 2 U, 2), pitch in Hz and energy."""
        x = self.curves_out(self.curves(self.curves_in(stretched))).unflatten(-1, (2, UNIT))
        pitch, energy = x.transpose(2, 3).flatten(1, 2).unbind(-1)
        return torch.stack([pitch * PITCH_SCALE, energy], dim=-1)
