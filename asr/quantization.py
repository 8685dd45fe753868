"""Whisper with 8-bit weights, for the CPU."""

from __future__ import annotations

from torch import Tensor, nn

from loquent.asr.whisper import Whisper
from loquent.kernels.int8_linear import int8_linear, pack_int8


class Int8Linear(nn.Module):
    """Takes the place of an `nn.Linear`; the float weights are not kept."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = pack_int8(linear.weight, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features), float32."""
        return int8_linear(x, self.packed)


def quantize_int8(model: Whisper) -> Whisper:
    """Replace the layers that int8 makes faster, in place, and return the model.

    These are the scores over the vocabulary and the feed-forward layers. The attention projections stay in float32:
    they are too small to gain much, and adapters are put on them.
    """
    for block in [*model.encoder.blocks, *model.decoder.blocks]:
        block.mlp[0], block.mlp[2] = Int8Linear(block.mlp[0]), Int8Linear(block.mlp[2])
    model.decoder.int8_vocabulary = pack_int8(model.decoder.token_embedding.weight)
    return model
