"""A small estimator for a voice on a CPU: causal ConvNeXt layers that know the time, chunk attention between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.tts.flow.attention import ChunkAttention
from loquent.tts.flow.incremental import Estimator, View


@dataclass(frozen=True)
class CompactConfig:
    """Size of a `CompactEstimator`.

    bins, conditions: M of a frame and C of what it depends on.
    channels, layers: width and number of the layers.
    kernel:    frames that a layer's convolution sees, its own and those before.
    expansion: inner width of a layer, relative to ``channels``.
    attention: layers that begin with attention, by number from 0.
    heads:     of the attention.
    """

    bins: int
    conditions: int
    channels: int = 256
    layers: int = 6
    kernel: int = 7
    expansion: int = 3
    attention: tuple[int, ...] = (1, 3, 5)
    heads: int = 4

    def __post_init__(self) -> None:
        if not all(0 <= layer < self.layers for layer in self.attention):
            raise ValueError(f"attention={self.attention} names layers outside 0 … {self.layers - 1}")


class CompactEstimator(Estimator):
    """Causal ConvNeXt (arXiv 2201.03545) with time as feature-wise scale and shift (FiLM, arXiv 1709.07871)."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config, self.bins, self.conditions = config, config.bins, config.conditions
        channels = config.channels
        self.time = TimeEmbedding(channels, channels)
        self.film = Linear(channels, config.layers * 2 * channels)
        self.inputs = Linear(config.bins + config.conditions, channels)
        self.layers = nn.ModuleList(CompactLayer(config, index in config.attention) for index in range(config.layers))
        self.norm = nn.LayerNorm(channels)
        self.out = Linear(channels, config.bins)
        for head in (self.film, self.out):  # begins as the same network at all times, and with a small output
            nn.init.zeros_(head.bias)
        nn.init.zeros_(self.film.weight)

    def moment(self, t: Tensor) -> Tensor:
        """Scale and shift of each layer; see `Estimator`."""
        return self.film(F.silu(self.time(t)))

    def estimate(self, x: Tensor, moment: Tensor, view: View) -> Tensor:
        """See `Estimator`."""
        h = self.inputs(x)
        film = moment.unflatten(1, (self.config.layers, 2, 1, -1))
        for layer, (scale, shift) in zip(self.layers, (both.unbind(1) for both in film.unbind(1)), strict=True):
            h = layer(h, scale, shift, view)
        return self.out(self.norm(h))


class CompactLayer(nn.Module):
    """Attention, where asked for, and a ConvNeXt block, each added to its input."""

    def __init__(self, config: CompactConfig, attention: bool) -> None:
        super().__init__()
        channels = config.channels
        self.attention: ChunkAttention | None = None
        if attention:
            self.attention_norm = nn.LayerNorm(channels)
            self.attention = ChunkAttention(channels, config.heads, rotary=Rotary(channels // config.heads))
        self.conv = Conv1d(channels, channels, config.kernel, groups=channels)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.widen = Linear(channels, config.expansion * channels)
        self.narrow = Linear(config.expansion * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1 / config.layers))

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, view: View) -> Tensor:
        """(B, T, C) to the same, with scale and shift (B or 1, 1, C) of its normalised inner values."""
        if self.attention is not None:
            x = x + view.attend(self.attention, self.attention_norm(x))
        y = torch.addcmul(shift, self.norm(view.convolve(self.conv, x)), 1 + scale)
        return torch.addcmul(x, self.narrow(F.gelu(self.widen(y))), self.gamma)


class TimeEmbedding(nn.Module):
    """Time of the flow as a vector: sinusoids, then two linear layers. Those of CosyVoice 2 and 3 are the same."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.features = features
        self.widen, self.out = Linear(features, channels), Linear(channels, channels)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) in 0 … 1 to (B, C)."""
        half = self.features // 2
        wave = torch.exp(torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10_000) / (half - 1)))
        angle = 1000 * t.float()[:, None] * wave
        return self.out(F.silu(self.widen(torch.cat([angle.sin(), angle.cos()], dim=1).to(t.dtype))))
