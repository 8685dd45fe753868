"""From phones, pitch and energy to mel spectrograms: features of phones, conditions of frames, the flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.speech.nn.linear import Linear
from loquent.speech.nn.streaming import Chain
from loquent.tts.flow.estimator import CompactConfig, CompactEstimator
from loquent.tts.flow.matching import FlowMatching
from loquent.tts.flow_voice.prosody import scaled_pitch
from loquent.tts.vocoder.convnext import ConvNeXtBlock, ConvNeXtStack

CURVES = 6  # of a frame: pitch of its halves in Hz, energy of its halves, place in the phone and length of that
HALVES = 2  # mel frames of a frame


@dataclass(frozen=True)
class AcousticConfig:
    """Size of an `AcousticNet`.

    phones:    ids of phones, 0 … phones - 1. speakers: number of them. mels: bins of a mel frame.
    features:  of a phone, C; phone_channels, phone_layers, phone_kernel: of the layers that make them.
    channels, layers, kernel, lookahead: of the layers over frames that make conditions; each sees so many frames ahead.
    conditions: of the estimator.
    estimator_channels, estimator_layers, estimator_kernel, expansion, attention, heads: see `CompactConfig`.
    """

    phones: int
    speakers: int
    mels: int = 80
    features: int = 128
    phone_channels: int = 192
    phone_layers: int = 3
    phone_kernel: int = 5
    channels: int = 192
    layers: int = 2
    kernel: int = 7
    lookahead: int = 2
    conditions: int = 160
    estimator_channels: int = 256
    estimator_layers: int = 6
    estimator_kernel: int = 7
    expansion: int = 3
    attention: tuple[int, ...] = (1, 3, 5)
    heads: int = 4

    @property
    def estimator(self) -> CompactConfig:
        """Its size."""
        return CompactConfig(
            bins=HALVES * self.mels,
            conditions=self.conditions,
            channels=self.estimator_channels,
            layers=self.estimator_layers,
            kernel=self.estimator_kernel,
            expansion=self.expansion,
            attention=self.attention,
            heads=self.heads,
        )


class AcousticNet(nn.Module):
    """The three networks; `FlowRenderer` runs the last two chunk by chunk.

    phones:     `PhoneFeatures`. conditioner: frames (B, T, C + 6) to conditions (B, T, ·), a streaming module.
    estimator:  of the flow of two stacked mel frames, each bin of mean 0 and variance 1.
    mean, deviation: (mels,) of the bins.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        self.phones = PhoneFeatures(config)
        blocks = [
            ConvNeXtBlock(config.channels, 2 * config.channels, config.kernel, right=config.lookahead)
            for _ in range(config.layers)
        ]
        for block in blocks:
            nn.init.constant_(block.scale, 0.3)
        self.conditioner = Chain(
            _FrameInputs(config.features),
            Linear(config.features + CURVES + 2, config.channels),
            ConvNeXtStack(blocks),
            nn.LayerNorm(config.channels),
            Linear(config.channels, config.conditions),
        )
        self.estimator = CompactEstimator(config.estimator)
        self.register_buffer("mean", torch.zeros(config.mels))
        self.register_buffer("deviation", torch.ones(config.mels))

    def measure(self, mel: Tensor) -> None:
        """Keep the mean and deviation of mel frames (N, mels)."""
        self.mean.copy_(mel.mean(0))
        self.deviation.copy_(mel.std(0))

    def stacked(self, mel: Tensor) -> Tensor:
        """Mel frames (B, 2 T, mels) to what the flow leads to: (B, T, 2 · mels)."""
        return ((mel - self.mean) / self.deviation).unflatten(1, (-1, HALVES)).flatten(2)


class PhoneFeatures(nn.Module):
    """What the flow needs to know of phones: of each phone and of few around it."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        channels = config.phone_channels
        self.phone = nn.Embedding(config.phones, channels)
        self.speaker = nn.Parameter(0.1 * torch.randn(config.speakers, channels))
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(channels, 2 * channels, config.phone_kernel) for _ in range(config.phone_layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.out = Linear(channels, config.features)

    def forward(self, phones: Tensor, mixture: Tensor, present: Tensor | None = None) -> Tensor:
        """Phones (B, P) int64, of which some are ``present``, weights of the speakers (B, S): (B, P, C)."""
        speaker = (mixture @ self.speaker)[:, None]
        x = self.phone(phones) + speaker
        for block in self.blocks:
            x = block(x if present is None else x * present[:, :, None])
        return self.out(self.norm(x + speaker))


class _FrameInputs(nn.Module):
    """Frames as they are rendered (…, C + 6) to inputs of a network (…, C + 8)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, frames: Tensor) -> Tensor:
        features, pitch, rest = frames.split([self.features, HALVES, CURVES - HALVES], dim=2)
        return torch.cat([features, scaled_pitch(pitch), (pitch > 0).to(pitch.dtype), rest], dim=2)


MATCHING = FlowMatching(prediction="data", schedule="linear", at_start=0.5)
