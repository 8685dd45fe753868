"""The incremental encoder-decoder network: a causal encoder, and a decoder that sees what has been read so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.seq2seq.layers import DecoderLayer, EncoderLayer


class IncrementalEncoder(nn.Module):
    """Source pieces in, a state for each out. It is causal, so a piece that was read is never read again."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.embedding = nn.Embedding(config.vocabulary, config.channels)
        nn.init.normal_(self.embedding.weight, std=config.channels**-0.5)
        self.encoder: Sequence[EncoderLayer] = nn.ModuleList(  # type: ignore[assignment]
            EncoderLayer(config) for _ in range(config.encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(config.channels)
        self.dropout = nn.Dropout(config.dropout)

    def encode(self, source: Tensor) -> Tensor:
        """Pieces (B, S) int64 to (B, S, C)."""
        x = self.dropout(self.embed(source))
        for layer in self.encoder:
            x = layer(x)
        return self.encoder_norm(x)

    def initial_state(self, slots: int) -> tuple[State, ...]:
        """Pool of the encoder's caches."""
        return tuple(layer.attention.initial_state(slots) for layer in self.encoder)

    def step(self, chunk: Chunk, state: Sequence[Any], rows: Tensor) -> Tensor:
        """`encode` of the next pieces of some streams: a chunk of (B, T) int64 to (B, T, C)."""
        x = self.embed(chunk.data)
        for layer, cache in zip(self.encoder, state, strict=True):
            x = x + layer.attention.step(chunk.with_data(layer.attention_norm(x)), cache, rows).data
            x = x + layer.feed(layer.feed_norm(x))
        return self.encoder_norm(x)

    def embed(self, pieces: Tensor) -> Tensor:
        """Pieces (...) int64 to (..., C)."""
        return F.embedding(pieces, self.embedding.weight) * math.sqrt(self.channels)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) to scores (..., vocabulary) of pieces."""
        return F.linear(hidden, self.embedding.weight)


class Seq2Seq(IncrementalEncoder):
    """Source pieces in, target pieces out.

    Source and target count their positions apart (group position encoding), so neither moves the other. What the
    decoder sees at each piece is a mask while training, and what was read by then in a stream.
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config)
        self.config = config
        self.decoder: Sequence[DecoderLayer] = nn.ModuleList(  # type: ignore[assignment]
            DecoderLayer(config) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(config.channels)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Hidden states behind each piece of the target, of which `logits` makes scores of the next one.

        Args:
            source: (B, S) int64 pieces.
            target: (B, T) int64 pieces, a tag first.
            mask: (B, T, S) bool, what each piece of the target sees of the source; at least one piece.

        Returns:
            (B, T, C).
        """
        memory = self.encode(source)
        y = self.dropout(self.embed(target))
        for layer in self.decoder:
            y = layer(y, memory, mask)
        return self.decoder_norm(y)


def seen(source_words: Tensor, target_words: Tensor, k: Tensor) -> Tensor:
    """What each piece of the target sees under wait-k, (B, T, S) bool (Ma et al. 2019, equation 2, in words).

    Args:
        source_words: (B, S) int64, number of the word that a piece of the source belongs to, from 0.
        target_words: (B, T) int64, number of the word that the piece to be predicted belongs to, from 0.
        k: (B,) int64, words that are read before the first one is written.
    """
    return source_words[:, None] < (target_words + k[:, None])[:, :, None]
