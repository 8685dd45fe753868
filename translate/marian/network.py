"""Marian's transformer: encoder, and a decoder whose memory of what was written is attention or a recurrence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.cross_attention import cross_attention
from loquent.kernels.linear import linear
from loquent.speech.nn.attention import RingAttention, RingState
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import sinusoids
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule
from loquent.translate.marian.config import MarianConfig
from loquent.translate.seq2seq.layers import SSRU

START = -1  # the piece that stands for an embedding of zeros
MOST_WRITTEN = 1 << 20  # pieces; the past of a decoder is as large as the text at hand
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "swish": F.silu, "gelu": F.gelu}

Keys = Sequence[tuple[Tensor, Tensor]]  # of each layer of the decoder, keys and values (B, H, S, D) of the source


class MarianNetwork(nn.Module):
    """Pieces of the source in, scores of the next piece of the target out.

    Source: marian-dev, ``src/models/transformer.h``; for "transformers", ``modeling_marian.py`` of that library.
    """

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.source_embedding = nn.Parameter(torch.empty(config.source_vocabulary, channels))
        self.target_embedding = nn.Parameter(torch.empty(config.target_vocabulary, channels))
        self.output = nn.Parameter(torch.empty(config.target_vocabulary, channels))
        self.output_bias = nn.Parameter(torch.empty(config.target_vocabulary))
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_top = Around(config, "", config.top)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_top = Around(config, "", config.top)

    def encode(self, source: Tensor, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the decoder attends to.

        Args:
            source: (B, S) int64 pieces, the end last; what lies beyond a row's frames is arbitrary.
            frames: (B,) int64, pieces of each row.

        Returns:
            See `Keys`.
        """
        positions = torch.arange(source.shape[1], device=source.device)
        first = x = self._embed(self.source_embedding, source, positions)
        for layer in self.encoder:
            x = layer(x, frames)
        x = self.encoder_top.leave(x, first)
        return [layer.keys(x) for layer in self._decoder()]

    def past(self, batch: int, capacity: int) -> tuple[State, ...]:
        """The memory of decoders that have written nothing, and may write ``capacity`` pieces."""
        return tuple(layer.initial_past(batch, capacity) for layer in self._decoder())

    def decode(
        self, chunk: Chunk, past: Sequence[State], written: Tensor, keys: Keys, rows: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give pieces to decoders.

        Args:
            chunk: (N, T) int64 pieces; `START` stands for an embedding of zeros.
            past: moves on, in place.
            written: (N,) int64, pieces that were given before.
            keys: of the source.
            rows: (N,) int64, row of ``keys`` that each decoder attends to.
            frames: (N,) int64, pieces of that source.

        Returns:
            Hidden states (N, T, C) behind each piece, and how the last layer attends to the source, (N, T, S): the mean
            over heads.
        """
        steps = torch.arange(chunk.data.shape[1], device=rows.device)
        first = y = self._embed(self.target_embedding, chunk.data, written[:, None] + steps)
        heads = torch.arange(self.config.decoder_heads, device=rows.device)
        weights: Tensor | None = None
        for number, (layer, own, (k, v)) in enumerate(zip(self._decoder(), past, keys, strict=True), start=1):
            last = number == len(self.decoder)
            y, weights = layer(chunk.with_data(y), own, k, v, rows, frames, heads if last else None)
        assert weights is not None
        return self.decoder_top.leave(y, first), weights.mean(1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocabulary) of the next piece."""
        return linear(hidden, self.output, self.output_bias)

    def _decoder(self) -> Iterator[DecoderLayer]:
        return (layer for layer in self.decoder if isinstance(layer, DecoderLayer))

    def _embed(self, table: Tensor, pieces: Tensor, positions: Tensor) -> Tensor:
        channels = self.config.channels
        x = F.embedding(pieces.clamp(min=0), table).masked_fill((pieces < 0)[..., None], 0)
        # Wavelengths grow from 2π to 10,000 · 2π, which in Marian is the last one; in transformers it would follow it.
        longest = channels / 2 / (channels / 2 - 1) if self.config.positions == "marian" else 1
        wave = sinusoids(positions, channels, 10_000**longest).to(x.dtype)
        scale = math.sqrt(channels) if self.config.scaled else 1
        return scale * x + torch.cat([wave[..., 0::2], wave[..., 1::2]], dim=-1)


class Around(nn.Module):
    """What is done before and after a layer; see `MarianConfig`."""

    def __init__(self, config: MarianConfig, before: str, after: str) -> None:
        super().__init__()
        self.operations = after
        norm = nn.LayerNorm(config.channels, config.epsilon) if "n" in before else None
        self.norm_before = norm
        self.norm_after = nn.LayerNorm(config.channels, config.epsilon) if "n" in after else None

    def enter(self, x: Tensor) -> Tensor:
        """What the layer is given."""
        return x if self.norm_before is None else self.norm_before(x)

    def leave(self, y: Tensor, x: Tensor) -> Tensor:
        """What comes of the layer's output y and its input x, as it was before `enter`."""
        for operation in self.operations:
            if operation == "a":
                y = y + x
            elif operation == "n" and self.norm_after is not None:
                y = self.norm_after(y)
        return y


class Attention(nn.Module):
    """Multi-head attention to keys that are all there."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (Linear(channels, channels) for _ in range(4))

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of (B, S, C)."""
        k, v = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.key, self.value))
        return k.contiguous(), v.contiguous()

    def forward(
        self, x: Tensor, k: Tensor, v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """See `loquent.kernels.cross_attention.cross_attention`; (N, T, C) to the same, and weights."""
        q = self.query(x).unflatten(-1, (self.heads, -1))
        seen, weights = cross_attention(q, k, v, rows, frames, heads=heads)
        return self.out(seen.flatten(2)), weights


class FeedForward(nn.Module):
    """(B, T, C) to the same."""

    def __init__(self, config: MarianConfig, hidden: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.first, self.second = Linear(config.channels, hidden), Linear(hidden, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.second(self.activation(self.first(x)))


class EncoderLayer(nn.Module):
    """Self-attention, which sees the whole source, and a feed-forward layer."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        self.attention = Attention(config.channels, config.encoder_heads)
        self.feed = FeedForward(config, config.encoder_hidden)
        self.around_attention, self.around_feed = (Around(config, config.before, config.after) for _ in range(2))

    def forward(self, x: Tensor, frames: Tensor) -> Tensor:
        """(B, S, C) to the same."""
        y = self.around_attention.enter(x)
        rows = torch.arange(len(x), device=x.device)
        x = self.around_attention.leave(self.attention(y, *self.attention.keys(y), rows, frames)[0], x)
        return self.around_feed.leave(self.feed(self.around_feed.enter(x)), x)


class DecoderLayer(nn.Module):
    """What was written, what was read, and a feed-forward layer."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__()
        channels, heads = config.channels, config.decoder_heads
        projections = (Linear(channels, channels) for _ in range(4))
        self.past: StreamingModule = (
            SSRU(channels)
            if config.decoder == "ssru"
            else RingAttention(heads, *projections, left=None, capacity=MOST_WRITTEN)
        )
        self.cross = Attention(channels, heads)
        self.feed = FeedForward(config, config.decoder_hidden)
        self.around_past, self.around_cross, self.around_feed = (
            Around(config, config.before, config.after) for _ in range(3)
        )

    def initial_past(self, batch: int, capacity: int) -> State:
        """See `MarianNetwork.past`."""
        if isinstance(self.past, SSRU):
            return self.past.initial_state(batch)
        weight = self.cross.key.weight
        k, v = weight.new_zeros(2, batch, self.cross.heads, capacity, weight.shape[0] // self.cross.heads)
        return RingState(k, v, torch.zeros(batch, dtype=torch.long, device=weight.device), capacity)

    def keys(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of what the encoder gives, (B, S, C)."""
        return self.cross.keys(memory)

    def forward(
        self, chunk: Chunk, past: State, k: Tensor, v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `MarianNetwork.decode`."""
        x = chunk.data
        x = self.around_past.leave(self.past.step(chunk.with_data(self.around_past.enter(x)), past).data, x)
        y, weights = self.cross(self.around_cross.enter(x), k, v, rows, frames, heads)
        x = self.around_cross.leave(y, x)
        return self.around_feed.leave(self.feed(self.around_feed.enter(x)), x), weights
