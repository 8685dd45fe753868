"""Whisper with an 8-bit vocabulary, for the CPU."""

from __future__ import annotations

from loquent.asr.whisper.model import Whisper
from loquent.kernels.int8_linear import pack_int8


def quantize_int8(model: Whisper) -> Whisper:
    """Compute the scores over the vocabulary in int8, in place, and return the model.

    That product takes most of a decoder's time: a step reads the whole embedding, tens of megabytes, for every few
    tokens. The other layers stay in float32: int8 gains little there, costs accuracy in the feed-forward layers, whose
    activations have outliers, and adapters are put on the projections of attention. The embedding itself is then only
    there to look up tokens, in any floating-point type.
    """
    model.decoder.int8_vocabulary = pack_int8(model.decoder.token_embedding.weight)
    return model
