"""The non-autoregressive network: the states of an incremental encoder to a whole translation in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.speech.nn.linear import Linear
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.seq2seq.layers import CrossAttention, FeedForward
from loquent.translate.seq2seq.network import IncrementalEncoder


@dataclass(frozen=True)
class NonAutoregressiveConfig:
    """Sizes of the network.

    encoder:    of the autoregressive model whose encoder it is; its other sizes hold for the layers of this one, too.
    layers:     of self-attention among all frames.
    upsampling: frames that each source piece becomes; a translation has no more pieces than there are frames.
    """

    encoder: Seq2SeqConfig
    layers: int = 3
    upsampling: int = 3

    def __post_init__(self) -> None:
        if self.layers < 1 or self.upsampling < 1:
            raise ValueError(f"expected 1 or more layers and frames, got {self.layers} and {self.upsampling}")


class NonAutoregressive(IncrementalEncoder):
    """Source pieces in, a piece of the target or the blank out for each of the frames that they become (CTC).

    The encoder reads a piece at a time and is that of a `Seq2Seq`; what is behind it sees all of the segment so far,
    both ways, and is computed anew whenever that has grown. Source: re-translation with a non-autoregressive decoder,
    arXiv 2012.14681; CTC over upsampled states, Libovický and Helcl 2018 (arXiv 1811.04719).
    """

    def __init__(self, config: NonAutoregressiveConfig) -> None:
        super().__init__(config.encoder)
        self.config, channels = config, config.encoder.channels
        self.frame = nn.Parameter(torch.randn(config.upsampling, channels))  # tells the frames of a piece apart
        self.layers: Sequence[FrameLayer] = nn.ModuleList(  # type: ignore[assignment]
            FrameLayer(config.encoder) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.blank = Linear(channels, 1)

    def forward(self, source: Tensor, length: Tensor) -> Tensor:
        """Scores of whole segments.

        Args:
            source: (B, S) int64 pieces.
            length: (B,) int64, how many of them there are, at least one.

        Returns:
            (B, S U, V + 1), the blank last; those beyond U times the length are arbitrary.
        """
        return self.write(self.encode(source), length)

    def write(self, memory: Tensor, length: Tensor) -> Tensor:
        """The scores of `forward`, from states (B, S, C) of the encoder."""
        x = (memory[:, :, None] + self.frame).flatten(1, 2)
        mask = torch.arange(x.shape[1], device=x.device) < self.config.upsampling * length[:, None]
        for layer in self.layers:
            x = layer(x, mask[:, None])
        x = self.norm(x)
        return torch.cat([self.logits(x), self.blank(x)], dim=-1)


class FrameLayer(nn.Module):
    """Self-attention among all frames and a feed-forward layer, pre-norm."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(config.channels), nn.LayerNorm(config.channels)
        self.attention, self.feed = CrossAttention(config), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) to the same; ``mask`` (B, 1, T) says which frames there are."""
        y = self.attention_norm(x)
        x = x + self.dropout(self.attention(y, y, mask))
        return x + self.dropout(self.feed(self.feed_norm(x)))
