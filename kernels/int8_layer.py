"""A linear layer in 8 bits with the normalisation before it and the activation after it, for the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.int8_linear import ZERO, Int8Weight, has_byte_products, int8_linear, pack_int8, quantise
from loquent.kernels.linear import finish
from loquent.kernels.registry import Operation

LANES, INPUTS = 16, 4  # outputs and inputs of one vector of products
STRIP = 64  # outputs that are computed together
ROWS = 64  # that a core takes at a time


@dataclass(frozen=True)
class Int8Layer:
    """A weight (N, K) in integers, as the kernel reads it or as `int8_linear` does.

    panels: (N / 16, K / 4, 16, 4) int8, or None where this processor or the weight's shape is not for the kernel.
    offset: (N,) int64, what the quantised zero adds to each output.
    plain:  without panels, the same weight.
    norm:   weight and bias (K,) of the layer normalisation of the inputs, if there is one.
    """

    scale: Tensor  # (N,) float32
    bias: Tensor  # (N,) float32
    panels: Tensor | None
    offset: Tensor | None
    plain: Int8Weight | None
    norm: tuple[Tensor, Tensor] | None

    def weight(self) -> Int8Weight:
        """The weight for `int8_linear`."""
        if self.plain is not None:
            return self.plain
        assert self.panels is not None
        values = self.panels.transpose(1, 2).reshape(len(self.scale), -1)
        return Int8Weight(values, self.scale, self.bias, None)


def pack_int8_layer(weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor] | None = None) -> Int8Layer:
    """Quantise a float layer, each output by its own largest value; see `pack_int8`."""
    outputs, inputs = weight.shape
    if outputs % STRIP or inputs % INPUTS or not has_byte_products():
        plain = pack_int8(weight, bias)
        return Int8Layer(plain.scale, bias, None, None, plain, norm)
    values, scale = quantise(weight)
    panels = values.view(outputs // LANES, LANES, inputs // INPUTS, INPUTS).transpose(1, 2).contiguous()
    return Int8Layer(scale, bias.contiguous(), panels, ZERO * values.sum(1), None, norm)


def int8_layer(x: Tensor, layer: Int8Layer, activation: Literal["none", "gelu"] = "none") -> Tensor:
    """Normalise, multiply by quantised weights, and activate::

        y = activation(int8_linear(norm(x)))

    A row's result is the same bits in every batch.

    Args:
        x: (..., K) float32.
        layer: as `pack_int8_layer` returned it.

    Returns:
        (..., N) float32.
    """
    return INT8_LAYER.choose(x)(x, layer, activation)


def _reference(x: Tensor, layer: Int8Layer, activation: Literal["none", "gelu"]) -> Tensor:
    if layer.norm is not None:
        x = F.layer_norm(x, x.shape[-1:], *layer.norm)
    return finish(int8_linear(x, layer.weight()), activation, None, 1.0)


def _numba(x: Tensor, layer: Int8Layer, activation: Literal["none", "gelu"]) -> Tensor:
    if layer.panels is None or layer.offset is None:
        return _reference(x, layer, activation)
    from loquent.kernels.cpu.runtime import kernel, run

    outputs, inputs, rows = len(layer.scale), x.shape[-1], x.numel() // x.shape[-1]
    y, x = x.new_empty(*x.shape[:-1], outputs), x.contiguous()
    norm = (None, None) if layer.norm is None else layer.norm
    run(
        kernel("int8_layer", "int8_layer"),
        -(-rows // ROWS),
        rows * inputs * outputs,
        *(rows, outputs, inputs, int(activation == "gelu")),
        *(
            0 if one is None else one.data_ptr()
            for one in (layer.panels, x, y, layer.scale, layer.offset, layer.bias, *norm)
        ),
    )
    return y


INT8_LAYER = Operation("int8_layer", reference=_reference, numba=_numba)
