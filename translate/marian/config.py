"""The shape of a Marian transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loquent.speech.sizes import check_sizes

Activation = Literal["relu", "swish", "gelu"]
OPERATIONS = {"d", "a", "n"}  # dropout, the sum with the input, layer normalisation
LARGEST = {
    "source_vocabulary": 1 << 20,
    "target_vocabulary": 1 << 20,
    "channels": 8192,
    "encoder_layers": 64,
    "decoder_layers": 64,
    "encoder_heads": 128,
    "decoder_heads": 128,
    "encoder_hidden": 1 << 16,
    "decoder_hidden": 1 << 16,
}


@dataclass(frozen=True)
class MarianConfig:
    """Sizes of the network, and the choices that its weights were trained with.

    source_vocabulary, target_vocabulary: pieces.
    channels:       of a piece.
    encoder_layers, decoder_layers; encoder_heads, decoder_heads: of every attention.
    encoder_hidden, decoder_hidden: channels inside the feed-forward layers.
    decoder:        what sees the pieces before: "attention", or "ssru", a recurrence.
    activation:     of the feed-forward layers.
    before, after:  operations around every layer, in order: ``d`` dropout (none when translating), ``a`` the sum with
                    the layer's input, ``n`` normalisation. Marian's ``transformer-preprocess`` and ``-postprocess``.
    top:            operations above the last layer of encoder and decoder, ``transformer-postprocess-top``.
    epsilon:        of the normalisation.
    positions:      how wavelengths of positions are spaced: as in "marian" itself, or as in "transformers".
    scaled:         whether embeddings are multiplied by √channels.
    start:          the piece that the decoder begins with; None for an embedding of zeros.
    """

    source_vocabulary: int
    target_vocabulary: int
    channels: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_hidden: int
    decoder_hidden: int
    decoder: Literal["attention", "ssru"] = "attention"
    activation: Activation = "swish"
    before: str = ""
    after: str = "dan"
    top: str = ""
    epsilon: float = 1e-6
    positions: Literal["marian", "transformers"] = "marian"
    scaled: bool = True
    start: int | None = None

    def __post_init__(self) -> None:
        check_sizes(self, LARGEST)
        heads = self.encoder_heads, self.decoder_heads
        if self.channels < 4 or self.channels % 2 or any(self.channels % one for one in heads):
            raise ValueError(
                f"channels={self.channels} must be an even number, 4 or more, and be divided by heads={heads}"
            )
        for operations in (self.before, self.after, self.top):
            if not OPERATIONS.issuperset(operations):
                raise ValueError(f"operations {operations!r} around a layer: expected some of d, a and n")
        if "a" in self.before:
            raise ValueError("operations before a layer: the sum with the input comes after it")
        if self.start is not None and not 0 <= self.start < self.target_vocabulary:
            raise ValueError(f"start={self.start} is none of the {self.target_vocabulary} pieces")
