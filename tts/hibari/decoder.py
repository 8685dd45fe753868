"""The decoder: frames to the parts of their spectra."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.streaming import Chain
from loquent.tts.hibari.config import DecoderConfig
from loquent.tts.vocoder.convnext import ConvNeXtBlock, ConvNeXtStack


class Decoder(Chain):
    """Features, pitch in Hz and energy of frames, (B, T, C + 2), to five parts of each spectrum, (B, T, 5 · bins).

    A look-ahead of 27 frames with hibari's sizes, 3 for each of 9 convolutions.
    """

    def __init__(self, config: DecoderConfig) -> None:
        half = config.kernel // 2
        super().__init__(
            CompressPitch(),
            Conv1d(config.inputs, config.dim, config.kernel, right=half),
            ConvNeXtStack([ConvNeXtBlock(config.dim, config.hidden, config.kernel) for _ in range(config.blocks)]),
            nn.LayerNorm(config.dim),
            Linear(config.dim, 5 * config.bins),
        )


class CompressPitch(nn.Module):
    """Pitch in Hz as the network sees it, ln(1 + Hz) / 5; 0 where there is none."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C + 2) to (..., C + 2)."""
        features, pitch, energy = x.split([x.shape[-1] - 2, 1, 1], dim=-1)
        return torch.cat([features, pitch.clamp(min=0).log1p() / 5, energy], dim=-1)
