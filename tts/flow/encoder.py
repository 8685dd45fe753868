"""From speech tokens to what the flow is conditioned on: the encoders of CosyVoice 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.attention import RingState
from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.relative_attention import RelativeAttention, Sight
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import (
    Blocks,
    Chunk,
    StreamingModule,
    WindowState,
    as_chunk,
    as_rows,
    slide,
)
from loquent.tts.flow.attention import bounded
from loquent.tts.flow.masks import ChunkMask


@dataclass(frozen=True)
class EncoderConfig:
    """Size of an `UpsampleEncoder`; as in CosyVoice 2 unless given.

    channels, heads, inner: width of the layers, heads of the attention, width of the feed-forward layers.
    layers, up_layers: before and after the frame rate is doubled.
    lookahead: tokens after its own that a token sees, besides those of its chunk.
    """

    channels: int = 512
    heads: int = 8
    inner: int = 2048
    layers: int = 6
    up_layers: int = 4
    lookahead: int = 3


@dataclass(frozen=True)
class RepeatConfig:
    """Size of a `RepeatEncoder`; as in CosyVoice 3 unless given. See `EncoderConfig`."""

    channels: int = 80
    inner: int = 1024
    lookahead: int = 3


@dataclass
class PreLookaheadState(State):
    """Of the two convolutions."""

    ahead: WindowState
    behind: WindowState


class PreLookahead(StreamingModule):
    """Tells each step of the few after it: a convolution that looks ahead, one that looks back, and the step itself.

    Args:
        channels, inner: C of a step, and between the convolutions. lookahead: steps.

    Source: `PreLookaheadLayer`, upstream cosyvoice/transformer/upsample_encoder.py.
    """

    def __init__(self, channels: int, inner: int, lookahead: int) -> None:
        super().__init__()
        self.ahead = Conv1d(channels, inner, lookahead + 1, left=0, right=lookahead)
        self.behind = Conv1d(inner, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same, with zeros after the last step."""
        return x + self.behind(F.leaky_relu(self.ahead(x)))

    def initial_state(self, batch: int) -> PreLookaheadState:
        """See `StreamingModule`."""
        return PreLookaheadState(self.ahead.initial_state(batch), self.behind.initial_state(batch))

    def step(
        self, x: Chunk | Tensor, state: PreLookaheadState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Steps whose look-ahead has come."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        windows = slide(self.ahead.window, chunk, state.ahead, rows)  # each begins with the step itself
        steps = max(windows.data.shape[1] - self.ahead.window.context, 0)
        if not steps:
            return windows.with_data(windows.data.new_zeros(len(rows), 0, chunk.data.shape[2]))
        inner = F.leaky_relu(F.conv1d(windows.data.transpose(1, 2), self.ahead.weight, self.ahead.bias).transpose(1, 2))
        behind = self.behind.step(windows.with_data(inner), state.behind, rows)
        return behind.with_data(windows.data[:, :steps] + behind.data)

    def inputs_for(self, outputs: int) -> int:
        """With the look-ahead of the last of them."""
        return self.ahead.inputs_for(outputs)


class RepeatEncoder(StreamingModule):
    """Tokens that know the few after them, each repeated for its two frames: (B, T, C) to (B, 2T, C)."""

    def __init__(self, config: RepeatConfig) -> None:
        super().__init__()
        self.lookahead = PreLookahead(config.channels, config.inner, config.lookahead)

    def forward(self, x: Tensor) -> Tensor:
        """See above."""
        return self.lookahead(x).repeat_interleave(2, dim=1)

    def initial_state(self, batch: int) -> PreLookaheadState:
        """That of the look-ahead."""
        return self.lookahead.initial_state(batch)

    def step(
        self, x: Chunk | Tensor, state: PreLookaheadState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Frames of the tokens whose look-ahead has come."""
        chunk = self.lookahead.step(as_chunk(x, last), state, rows)
        return chunk.with_data(chunk.data.repeat_interleave(2, dim=1), 2 * chunk.length)

    def inputs_for(self, outputs: int) -> int:
        """Two frames for each token, and its look-ahead."""
        return self.lookahead.inputs_for(-(-outputs // 2))


@dataclass
class UpsampleEncoderState(State):
    """Of each part, in order."""

    lookahead: PreLookaheadState
    waiting: WindowState
    layers: tuple[RingState, ...]
    up_conv: WindowState
    up_layers: tuple[RingState, ...]


class UpsampleEncoder(StreamingModule):
    """Transformer with relative positions that doubles the frame rate half-way; (B, T, C) to (B, 2T, C).

    A step sees its chunk, the mask's left context and ``lookahead`` steps; after the doubling, twice as many.

    Args:
        config: its size. mask: in tokens, which are the steps of the input.

    Source: `UpsampleConformerEncoder` of CosyVoice 2 (upstream cosyvoice/transformer/upsample_encoder.py), whose
    weights `cosyvoice_weights.from_cosyvoice` renames to these.
    """

    def __init__(self, config: EncoderConfig, mask: ChunkMask) -> None:
        super().__init__()
        channels = config.channels
        self.config, self.mask = config, mask
        self.up_mask = mask.times(2)
        self.embed = Embed(channels)
        self.lookahead = PreLookahead(channels, channels, config.lookahead)
        self.blocks = Blocks(mask.chunk or 1, channels)
        self.layers = nn.ModuleList(EncoderLayer(config, self.mask) for _ in range(config.layers))
        self.up_conv = Conv1d(channels, channels, 5)
        self.up_embed = Embed(channels)
        self.up_layers = nn.ModuleList(EncoderLayer(config, self.up_mask) for _ in range(config.up_layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The whole (B, T, C) under the mask: (B, 2T, C)."""
        x = self.lookahead(self.embed(x))
        sight = _sight(self.mask, torch.zeros(1, dtype=torch.long, device=x.device), x.shape[1])
        for layer in self.layers:
            x = layer(x, sight)
        x = self.up_embed(self.up_conv(x.repeat_interleave(2, dim=1)))
        sight = _sight(self.up_mask, torch.zeros(1, dtype=torch.long, device=x.device), x.shape[1])
        for layer in self.up_layers:
            x = layer(x, sight)
        return self.norm(x)

    def initial_state(self, batch: int) -> UpsampleEncoderState:
        """Empty; the mask needs a bound to the left."""
        bounded(self.mask)
        return UpsampleEncoderState(
            self.lookahead.initial_state(batch),
            self.blocks.initial_state(batch),
            tuple(layer.attention.initial_state(batch) for layer in _typed(self.layers)),
            self.up_conv.initial_state(batch),
            tuple(layer.attention.initial_state(batch) for layer in _typed(self.up_layers)),
        )

    def step(
        self, x: Chunk | Tensor, state: UpsampleEncoderState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Chunks of the mask that are complete, with their look-ahead."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        chunk = self.lookahead.step(chunk.with_data(self.embed(chunk.data)), state.lookahead, rows)
        chunk = self.blocks.step(chunk, state.waiting, rows)
        if chunk.data.shape[1] == 0:
            return chunk
        chunk = self._attend(self.layers, self.mask, chunk, state.layers, rows)
        chunk = chunk.with_data(chunk.data.repeat_interleave(2, dim=1), 2 * chunk.length)
        chunk = self.up_conv.step(chunk, state.up_conv, rows)
        chunk = chunk.with_data(self.up_embed(chunk.data))
        chunk = self._attend(self.up_layers, self.up_mask, chunk, state.up_layers, rows)
        return chunk.with_data(self.norm(chunk.data))

    def inputs_for(self, outputs: int) -> int:
        """Whole chunks and their look-ahead."""
        return self.lookahead.inputs_for(self.blocks.inputs_for(-(-outputs // 2)))

    def _attend(
        self, layers: nn.ModuleList, mask: ChunkMask, chunk: Chunk, states: Sequence[RingState], rows: Tensor
    ) -> Chunk:
        sight = _sight(mask, states[0].position[rows], chunk.data.shape[1], chunk.length)
        for layer, state in zip(_typed(layers), states, strict=True):
            chunk = chunk.with_data(layer.step(chunk, state, rows, sight))
        return chunk


class Embed(nn.Module):
    """Linear layer and norm, scaled by √C as what comes before relative positions is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear, self.norm, self.scale = Linear(channels, channels), nn.LayerNorm(channels), math.sqrt(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        return self.norm(self.linear(x)) * self.scale


class EncoderLayer(nn.Module):
    """Attention with relative positions and a feed-forward layer, each with a norm before it."""

    def __init__(self, config: EncoderConfig, mask: ChunkMask) -> None:
        super().__init__()
        channels, ahead = config.channels, (mask.chunk or 1) - 1
        left = mask.left or 0  # where the past has no bound, `forward` alone is used, which needs none
        self.attention_norm = nn.LayerNorm(channels, eps=1e-12)
        self.attention = RelativeAttention(channels, config.heads, past=left + ahead, future=ahead, memory=left)
        self.norm = nn.LayerNorm(channels, eps=1e-12)
        self.widen, self.narrow = Linear(channels, config.inner), Linear(config.inner, channels)

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """The whole (B, T, C)."""
        return self._feed(x + self.attention(self.attention_norm(x), sight))

    def step(self, chunk: Chunk, state: RingState, rows: Tensor, sight: Sight) -> Tensor:
        """New steps (B, T, C) in whole chunks of the mask."""
        x = chunk.data
        return self._feed(x + self.attention.step(chunk.with_data(self.attention_norm(x)), state, rows, sight))

    def _feed(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.silu(self.widen(self.norm(x))))


def _typed(layers: nn.ModuleList) -> list[EncoderLayer]:
    return cast(list[EncoderLayer], list(layers))  # ModuleList does not tell


def _sight(mask: ChunkMask, position: Tensor, steps: int, length: Tensor | None = None) -> Sight:
    """What ``steps`` steps from ``position`` (B,) on see; ``length`` (B,) of them are valid, all by default."""
    end = position + (steps if length is None else length)
    query = position[:, None] + torch.arange(steps, device=position.device)
    if mask.chunk is None:
        start, stop = torch.zeros_like(query), end[:, None].expand_as(query)
    else:
        start = query - query % mask.chunk
        stop = (start + mask.chunk).minimum(end[:, None])
    first = torch.zeros_like(query) if mask.left is None else (start - mask.left).clamp(min=0)
    return Sight(query, first, torch.where(query < end[:, None], stop, 0))
