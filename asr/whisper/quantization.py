"""Whisper in int8, for the CPU."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from loquent.asr.whisper.model import Whisper
from loquent.kernels.int8_linear import int8_linear, pack_int8
from loquent.speech.nn.linear import Linear


def quantize_int8(model: Whisper) -> Whisper:
    """Compute the scores over the vocabulary in int8, in place, and return the model.

    That product takes most of a decoder's time: a step reads the whole embedding, tens of megabytes, for every few
    tokens. The other layers stay in float32, and adapters can be put on them. The embedding itself is then only there
    to look up tokens, in any floating-point type.
    """
    model.decoder.int8_vocabulary = pack_int8(model.decoder.token_embedding.weight)
    return model


def int8_layers(model: Whisper) -> Whisper:
    """A view of a model whose linear layers have 8-bit weights; it shares all else.

    It has the weights that the model has now, and takes no adapters.
    """
    return cast(Whisper, _view(model))


def _view(module: nn.Module) -> nn.Module:
    if isinstance(module, Linear):
        return _Int8Linear(module)
    view = copy.copy(module)
    view._modules = {name: None if one is None else _view(one) for name, one in module._modules.items()}
    return view


class _Int8Linear(nn.Module):
    """A linear layer in int8."""

    def __init__(self, layer: Linear) -> None:
        super().__init__()
        self.packed = pack_int8(layer.weight, layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return int8_linear(x, self.packed)
