"""From mel frames, pitch and energy to the parts of spectra that `HarmonicNoiseRenderer` makes a wave of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.streaming import Chain
from loquent.tts.flow_voice.prosody import scaled_pitch
from loquent.tts.vocoder.convnext import ConvNeXtBlock, ConvNeXtStack
from loquent.tts.vocoder.harmonic_noise import PARTS

N_FFT, HOP = 1200, 300  # samples, at 24 kHz
BINS = N_FFT // 2 + 1


@dataclass(frozen=True)
class VocoderConfig:
    """Size of a `Vocoder`.

    mels: bins of a mel frame. channels, expansion, layers, kernel: of the layers.
    lookahead: mel frames ahead that the first layer sees; the others see none.
    """

    mels: int = 80
    channels: int = 256
    expansion: int = 3
    layers: int = 8
    kernel: int = 7
    lookahead: int = 3


class Vocoder(Chain):
    """Mel frames, pitch in Hz and energy (B, F, mels + 2) to parts (B, F, 5 · 601).

    Only the first layer looks ahead. Its layers are those of hibari's decoder, whose weights it can begin with.
    """

    def __init__(self, config: VocoderConfig) -> None:
        blocks = [
            ConvNeXtBlock(config.channels, config.expansion * config.channels, config.kernel, right=0)
            for _ in range(config.layers)
        ]
        super().__init__(
            _PitchInputs(),
            Conv1d(config.mels + 3, config.channels, config.kernel, right=config.lookahead),
            ConvNeXtStack(blocks),
            nn.LayerNorm(config.channels, eps=1e-5),
            Linear(config.channels, PARTS * BINS),
        )
        self.config = config


class _PitchInputs(nn.Module):
    """Pitch in Hz, behind normalised mel bins, as two inputs of a network; energy as it is."""

    def forward(self, x: Tensor) -> Tensor:
        mel, pitch, energy = x.split([x.shape[-1] - 2, 1, 1], dim=-1)
        return torch.cat([mel, scaled_pitch(pitch), (pitch > 0).to(pitch.dtype), energy], dim=-1)
