"""The estimator of CosyVoice 2: residual convolutions and transformer blocks, in the order of a U-Net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.tts.flow.attention import ChunkAttention
from loquent.tts.flow.estimator import TimeEmbedding
from loquent.tts.flow.incremental import Estimator, View


@dataclass(frozen=True)
class UNetConfig:
    """Size of a `CausalUNet`; as in CosyVoice 2 unless given.

    bins, conditions: M of a frame; C of what it depends on: what the encoder says, the speaker, the prompt.
    channels: width.
    middle:   stages between the first and the last.
    blocks:   transformer blocks of a stage.
    heads, head_size: of the attention.
    """

    bins: int = 80
    conditions: int = 240
    channels: int = 256
    middle: int = 12
    blocks: int = 4
    heads: int = 8
    head_size: int = 64


class CausalUNet(Estimator):
    """One stage down, some in the middle and one up that sees the first one's output, too; nothing is down-sampled.

    Source: `CausalConditionalDecoder` of CosyVoice 2 (arXiv 2412.10117; upstream cosyvoice/flow/decoder.py), whose
    weights `cosyvoice_weights.from_cosyvoice` renames to these.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.bins, self.conditions = config, config.bins, config.conditions
        channels, inputs = config.channels, config.bins + config.conditions
        self.time = TimeEmbedding(inputs, 4 * channels)
        self.down = Stage(inputs, config)
        self.down_conv = Conv1d(channels, channels, 3)
        self.middle = nn.ModuleList(Stage(channels, config) for _ in range(config.middle))
        self.up = Stage(2 * channels, config)
        self.up_conv = Conv1d(channels, channels, 3)
        self.last = CausalBlock(channels, channels)
        self.out = Linear(channels, config.bins)

    def moment(self, t: Tensor) -> Tensor:
        """What each stage adds; see `Estimator`."""
        time = F.mish(self.time(t))
        return torch.cat([stage.time(time) for stage in self._stages()], dim=1)

    def estimate(self, x: Tensor, moment: Tensor, view: View) -> Tensor:
        """See `Estimator`."""
        first, *middle, last = moment.unflatten(1, (len(self.middle) + 2, 1, -1)).unbind(1)
        skipped = self.down(x, first, view)
        x = view.convolve(self.down_conv, skipped)
        for stage, time in zip(self.middle, middle, strict=True):
            x = stage(x, time, view)
        x = self.up(torch.cat([x, skipped], dim=2), last, view)
        x = self.last(view.convolve(self.up_conv, x), view)
        return self.out(x)

    def _stages(self) -> list[Stage]:
        return [self.down, *cast(list[Stage], list(self.middle)), self.up]  # ModuleList does not tell


class Stage(nn.Module):
    """A residual block that is told the time, and transformer blocks."""

    def __init__(self, inputs: int, config: UNetConfig) -> None:
        super().__init__()
        channels = config.channels
        self.time = Linear(4 * channels, channels)
        self.first, self.second = CausalBlock(inputs, channels), CausalBlock(channels, channels)
        self.skip = Linear(inputs, channels)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.blocks))

    def forward(self, x: Tensor, time: Tensor, view: View) -> Tensor:
        """(B, T, inputs) to (B, T, C); ``time`` (B or 1, 1, C) is added between the two convolutions."""
        x = self.second(self.first(x, view) + time, view) + self.skip(x)
        for block in self.blocks:
            x = block(x, view)
        return x


class CausalBlock(nn.Module):
    """Causal convolution over 3 frames, norm, Mish."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = Conv1d(inputs, channels, 3), nn.LayerNorm(channels)

    def forward(self, x: Tensor, view: View) -> Tensor:
        """(B, T, inputs) to (B, T, C)."""
        return F.mish(self.norm(view.convolve(self.conv, x)))


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer, each with a norm before it."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        channels = config.channels
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = ChunkAttention(channels, config.heads, config.head_size, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.widen, self.narrow = Linear(channels, 4 * channels), Linear(4 * channels, channels)

    def forward(self, x: Tensor, view: View) -> Tensor:
        """(B, T, C) to the same."""
        x = x + view.attend(self.attention, self.attention_norm(x))
        return x + self.narrow(F.gelu(self.widen(self.norm(x))))
