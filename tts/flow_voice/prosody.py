"""How long the phones of a few words are, and the pitch and energy of their frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.tts.flow.attention import ChunkAttention
from loquent.tts.vocoder.convnext import ConvNeXtBlock

MIDDLE_PITCH, PITCH_SCALE = 170.0, 0.25  # Hz, and natural logarithms: what is predicted is about -2 … 2
LOWEST_PITCH, HIGHEST_PITCH = 50.0, 500.0  # Hz
LONGEST = 80  # frames of a phone
LEAD = 4  # frames of silence, at most, with which an utterance begins


@dataclass(frozen=True)
class ProsodyConfig:
    """Size of a `ProsodyNet`.

    phones:   ids of phones, 0 … phones - 1. speakers: number of them.
    channels: of a phone. convolutions, kernel: of the first layers. layers, heads: of attention.
    frame_channels, frame_layers, frame_kernel: of the layers over frames.
    """

    phones: int
    speakers: int
    channels: int = 192
    convolutions: int = 2
    kernel: int = 5
    layers: int = 4
    heads: int = 4
    frame_channels: int = 128
    frame_layers: int = 3
    frame_kernel: int = 7

    @property
    def reach(self) -> int:
        """Frames on each side that the curves of a frame depend on."""
        return self.frame_layers * (self.frame_kernel // 2)


@dataclass(frozen=True)
class Frames:
    """Frames of phones.

    phone:   (B, F) int64 place of each frame's phone.
    place:   (B, F, 2) where in its phone the frame lies, and how long that is; see `places`.
    present: (B, F) bool; others are padding.
    """

    phone: Tensor
    place: Tensor
    present: Tensor


class ProsodyNet(nn.Module):
    """Convolutions and attention over phones; convolutions over the frames that the phones are long."""

    def __init__(self, config: ProsodyConfig) -> None:
        super().__init__()
        self.config = config
        channels, inner = config.channels, config.frame_channels
        self.phone = nn.Embedding(config.phones, channels)
        self.speaker = nn.Parameter(0.1 * torch.randn(config.speakers, channels))
        self.convolutions = nn.ModuleList(
            ConvNeXtBlock(channels, 2 * channels, config.kernel) for _ in range(config.convolutions)
        )
        self.layers = nn.ModuleList(_Layer(channels, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(channels)
        self.duration = Linear(channels, 1)
        self.widen = Linear(channels + 2, inner)
        self.frame_layers = nn.ModuleList(
            ConvNeXtBlock(inner, 3 * inner, config.frame_kernel) for _ in range(config.frame_layers)
        )
        self.frame_norm = nn.LayerNorm(inner)
        self.out = Linear(inner, 6)

    def forward(self, phones: Tensor, mixture: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What stands for the phones, and how long they are.

        Args:
            phones: (B, P) int64. mixture: (B, S) weights of the speakers.
            present: (B, P) bool, which are no padding; all by default.

        Returns:
            (B, P, channels); (B, P) natural logarithms of frames.
        """
        x = self.phone(phones) + (mixture @ self.speaker)[:, None]
        seen = None if present is None else present[:, None] | torch.eye(phones.shape[1], dtype=torch.bool)
        for block in self.convolutions:
            x = block(x if present is None else x * present[:, :, None])
        for layer in self.layers:
            x = layer(x, seen)
        x = self.norm(x)
        return x, self.duration(x).squeeze(2)

    def curves(self, x: Tensor, frames: Frames) -> Tensor:
        """Pitch, voicing and energy of each half of the frames.

        Args:
            x: (B, P, channels) what `forward` gave.

        Returns:
            (B, F, 6): pitch, see `hertz`, twice; log-odds of voicing, twice; energy, twice.
        """
        each = x.gather(1, frames.phone[:, :, None].expand(-1, -1, x.shape[2]))
        y = self.widen(torch.cat([each, frames.place], dim=2))
        for block in self.frame_layers:
            y = block(y * frames.present[:, :, None])
        return self.out(self.frame_norm(y))


def frame_durations(log_durations: Tensor, speed: float) -> Tensor:
    """Whole frames of the phones (P,) of a word, at least 1 each; what rounding takes from one the next one gets."""
    wanted = (log_durations.clamp(max=math.log(LONGEST)).exp() / speed).double()
    durations, spare = [], 0.5
    for one in wanted.tolist():
        spare += one
        durations.append(max(int(spare), 1))
        spare = min(max(spare - durations[-1], -0.5), 1.0)
    return torch.tensor(durations, dtype=torch.long)


def places(durations: Tensor) -> tuple[Tensor, Tensor]:
    """The phone of each frame, (F,) int64, and (F, 2): where in the phone it lies, -1 … 1, and how long that is."""
    phone = torch.repeat_interleave(durations)
    start = durations.cumsum(0) - durations
    length = durations[phone].float()
    within = (torch.arange(len(phone)) - start[phone] + 0.5) / length
    return phone, torch.stack([2 * within - 1, length.log() - 1], dim=1)


def hertz(pitch: Tensor, voicing: Tensor) -> Tensor:
    """Predicted pitch and log-odds of voicing to Hz, 0 where there is no voice."""
    value = MIDDLE_PITCH * (PITCH_SCALE * pitch).exp()
    return torch.where(voicing > 0, value.clamp(LOWEST_PITCH, HIGHEST_PITCH), 0)


def scaled_pitch(pitch: Tensor) -> Tensor:
    """Inverse of `hertz` where there is voice; 0 where there is none."""
    return torch.where(pitch > 0, (pitch.clamp(min=1) / MIDDLE_PITCH).log() / PITCH_SCALE, 0)


class _Layer(nn.Module):
    """Attention and a feed-forward net, each after a norm and added to its input."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = ChunkAttention(channels, heads, rotary=Rotary(channels // heads))
        self.widen, self.narrow = Linear(channels, 3 * channels), Linear(3 * channels, channels)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), seen)
        return x + self.narrow(F.gelu(self.widen(self.feed_forward_norm(x))))
