"""Layers of the incremental encoder-decoder model. All are pre-norm: x + layer(norm(x))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.ssru import ssru
from loquent.speech.nn.attention import RingAttention, RingState
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule, as_chunk, as_rows
from loquent.translate.seq2seq.config import Seq2SeqConfig


def self_attention(config: Seq2SeqConfig) -> RingAttention:
    """A step sees the steps before it."""
    channels = config.channels
    projections = (Linear(channels, channels, bias=False) for _ in range(4))
    rotary = Rotary(channels // config.heads)
    return RingAttention(config.heads, *projections, left=config.left_context, rotary=rotary)


class FeedForward(nn.Sequential):
    """(B, T, C) to the same."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(Linear(config.channels, config.hidden), nn.ReLU(), Linear(config.hidden, config.channels))


@dataclass
class SSRUState(State):
    """All that a recurrent unit remembers of a stream."""

    cell: Tensor  # (S, C)


class SSRU(StreamingModule):
    """The simpler simple recurrent unit (see `loquent.kernels.ssru`); its output is rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gates = Linear(channels, 2 * channels)  # candidates, and what is forgotten

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same, from the start of a stream."""
        return self._run(x, x.new_zeros(x.shape[0], self.channels)).relu()

    def initial_state(self, batch: int) -> SSRUState:
        """Nothing was read."""
        weight = self.gates.weight
        return SSRUState(torch.zeros(batch, self.channels, device=weight.device, dtype=weight.dtype))

    def step(self, x: Chunk | Tensor, state: SSRUState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """See `StreamingModule.step`."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        before = state.cell[rows]
        cells = self._run(chunk.data, before)
        at = (chunk.length - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.channels)
        moved = (chunk.length > 0)[:, None]
        state.cell[rows] = torch.where(moved, cells.gather(1, at)[:, 0], before) if cells.shape[1] else before
        return chunk.with_data(cells.relu())

    def inputs_for(self, outputs: int) -> int:
        """Each step is final at once."""
        return outputs

    def _run(self, x: Tensor, cell: Tensor) -> Tensor:
        candidate, forget = self.gates(x).chunk(2, dim=-1)
        return ssru(candidate, forget.sigmoid(), cell)


class CrossAttention(nn.Module):
    """Attention from target pieces to source pieces, whose positions are counted apart (group position encoding)."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        channels, self.heads = config.channels, config.heads
        self.query, self.key, self.value, self.out = (Linear(channels, channels, bias=False) for _ in range(4))
        self.rotary = Rotary(channels // config.heads)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attend from (B, T, C) to (B, S, C) where ``mask`` (B, T, S) is true."""
        q = self.queries(x, torch.arange(x.shape[1], device=x.device)).transpose(1, 2)
        k, v = self.keys(memory, torch.arange(memory.shape[1], device=x.device))
        y = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2), mask[:, None])
        return self.out(y.transpose(1, 2).flatten(2))

    def queries(self, x: Tensor, position: Tensor) -> Tensor:
        """Queries (B, T, H, D) of target pieces at their positions (B, T) or (T,)."""
        return self.rotary(self.query(x).unflatten(-1, (self.heads, -1)), position)

    def keys(self, memory: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, S, H, D) of source pieces at their positions (B, S) or (S,)."""
        k, v = (project(memory).unflatten(-1, (self.heads, -1)) for project in (self.key, self.value))
        return self.rotary(k, position), v


class EncoderLayer(nn.Module):
    """Causal self-attention and a feed-forward layer."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(config.channels), nn.LayerNorm(config.channels)
        self.attention, self.feed = self_attention(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, C) to the same."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed(self.feed_norm(x)))


class DecoderLayer(nn.Module):
    """What was written, what was read, and a feed-forward layer."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.past_norm, self.cross_norm, self.feed_norm = (nn.LayerNorm(config.channels) for _ in range(3))
        self.past: SSRU | RingAttention = SSRU(config.channels) if config.decoder == "ssru" else self_attention(config)
        self.cross, self.feed = CrossAttention(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) to the same; ``mask`` (B, T, S) says what each piece of the target sees of ``memory``."""
        x = x + self.dropout(self.past(self.past_norm(x)))
        x = x + self.dropout(self.cross(self.cross_norm(x), memory, mask))
        return x + self.dropout(self.feed(self.feed_norm(x)))


__all__ = ["SSRU", "CrossAttention", "DecoderLayer", "EncoderLayer", "FeedForward", "RingState", "SSRUState"]
