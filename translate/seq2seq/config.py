"""The shape of an incremental encoder-decoder model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Sizes of the network.

    vocabulary:     pieces; source, target and output share one embedding.
    channels:       of a piece.
    heads:          of every attention.
    hidden:         channels inside the feed-forward layers.
    encoder_layers: causal self-attention.
    decoder_layers: recurrent units or self-attention, with cross-attention each.
    decoder:        "ssru": the memory of what was written is one vector a layer; "attention": keys and values of it.
    left_context:   source pieces before it that a piece of the source sees, and pieces of the target likewise.
    memory:         source pieces that can be attended to at a time.
    dropout:        while training.
    """

    vocabulary: int
    channels: int = 256
    heads: int = 4
    hidden: int = 1024
    encoder_layers: int = 6
    decoder_layers: int = 2
    decoder: Literal["ssru", "attention"] = "ssru"
    left_context: int = 256
    memory: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.channels % (2 * self.heads):
            raise ValueError(f"channels={self.channels} must be an even number for each of {self.heads} heads")
        if self.decoder not in ("ssru", "attention"):
            raise ValueError(f"decoder must be 'ssru' or 'attention', got {self.decoder!r}")
