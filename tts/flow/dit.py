"""The estimator of CosyVoice 3: a diffusion transformer, whose layers are scaled, shifted and gated by the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.tts.flow.attention import ChunkAttention
from loquent.tts.flow.estimator import TimeEmbedding
from loquent.tts.flow.incremental import Estimator, View


@dataclass(frozen=True)
class DiTConfig:
    """Size of a `DiffusionTransformer`; as in CosyVoice 3 unless given.

    bins, conditions: M of a frame; C of what it depends on: what the encoder says, the speaker, the prompt.
    channels, layers: width and depth.
    heads, head_size: of the attention.
    expansion: inner width of the feed-forward layers, relative to ``channels``.
    kernel, groups: of the two causal convolutions at the input, which stand for positions.
    time_features: sinusoids of the time.
    """

    bins: int = 80
    conditions: int = 240
    channels: int = 1024
    layers: int = 22
    heads: int = 16
    head_size: int = 64
    expansion: int = 2
    kernel: int = 31
    groups: int = 16
    time_features: int = 256


class DiffusionTransformer(Estimator):
    """DiT (arXiv 2212.09748) over mel frames, as in F5-TTS (arXiv 2410.06885).

    Only the first head has rotary positions: upstream turns the first ``head_size`` channels before it splits heads.

    Source: `DiT` of CosyVoice 3 (arXiv 2505.17589; upstream cosyvoice/flow/DiT/dit.py), whose weights
    `cosyvoice_weights.from_cosyvoice` renames to these.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, self.bins, self.conditions = config, config.bins, config.conditions
        channels = config.channels
        self.time = TimeEmbedding(config.time_features, channels)
        self.inputs = Linear(config.bins + config.conditions, channels)
        self.positions = nn.ModuleList(
            Conv1d(channels, channels, config.kernel, groups=config.groups) for _ in range(2)
        )
        self.layers = nn.ModuleList(DiTLayer(config) for _ in range(config.layers))
        self.modulation = Linear(channels, 2 * channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        self.out = Linear(channels, config.bins)

    def moment(self, t: Tensor) -> Tensor:
        """What scales, shifts and gates each layer; see `Estimator`."""
        time = F.silu(self.time(t))
        layers = cast(list[DiTLayer], list(self.layers))  # ModuleList does not tell
        return torch.cat([*(layer.modulation(time) for layer in layers), self.modulation(time)], dim=1)

    def estimate(self, x: Tensor, moment: Tensor, view: View) -> Tensor:
        """See `Estimator`."""
        parts = moment.unflatten(1, (6 * len(self.layers) + 2, 1, -1)).unbind(1)
        x = self.inputs(x)
        y = x
        for conv in cast(list[Conv1d], list(self.positions)):
            y = F.mish(view.convolve(conv, y))
        x = x + y
        for index, layer in enumerate(self.layers):
            x = layer(x, parts[6 * index : 6 * index + 6], view)
        scale, shift = parts[-2:]
        return self.out(torch.addcmul(shift, self.norm(x), 1 + scale))


class DiTLayer(nn.Module):
    """Attention and a feed-forward layer, whose inputs are scaled and shifted and whose outputs are gated."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        channels, inner = config.channels, config.expansion * config.channels
        self.modulation = Linear(channels, 6 * channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
        rotary = Rotary(config.head_size, interleaved=True)
        self.attention = ChunkAttention(channels, config.heads, config.head_size, rotary=rotary, rotated=1)
        self.widen, self.narrow = Linear(channels, inner), Linear(inner, channels)

    def forward(self, x: Tensor, moment: tuple[Tensor, ...], view: View) -> Tensor:
        """(B, T, C) to the same; the moment is shift, scale and gate of both parts, six of (B or 1, 1, C)."""
        shift, scale, gate, feed_shift, feed_scale, feed_gate = moment
        y = view.attend(self.attention, torch.addcmul(shift, self.norm(x), 1 + scale))
        x = torch.addcmul(x, gate, y)
        y = self.widen(torch.addcmul(feed_shift, self.norm(x), 1 + feed_scale))
        return torch.addcmul(x, feed_gate, self.narrow(F.gelu(y, approximate="tanh")))
