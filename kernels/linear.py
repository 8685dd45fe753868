"""Linear layer: few rows as fast as the weight can be read, many as fast as the processor can multiply."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.registry import LANES, Operation

Activation = Literal["none", "gelu", "silu"]

FEW = 16  # rows; for more, libraries are as good
FEW_ON_GPU = 64  # likewise
SMALL = 1 << 17  # numbers of a weight that is read faster than a call is made
OUTPUTS = 16  # that a task of the kernel takes
MANY = 1 << 20  # multiply-adds that are worth asking which library is the faster one


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = "none",
    residual: Tensor | None = None,
    alpha: float = 1.0,
) -> Tensor:
    """Multiply rows by a weight, and do what often follows::

        y[n] = residual[n] + alpha · activation(bias[n] + Σ_k x[k] weight[n, k])

    A chunk of one stream is a few rows: then the time is that of reading the weight, and matrix libraries, which are
    made for many rows, take up to three times as long. Many rows go to the better library: torch's first choice, MKL,
    uses half the width of the vectors of AMD's processors, which oneDNN uses in full.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,) or None.
        activation: "none", "gelu" (the exact one) or "silu".
        residual: (..., N), or None for zeros.
        alpha: what the activation is multiplied by where there is a residual.

    Returns:
        (..., N).

    Raises:
        RuntimeError: torch's, for shapes that do not fit.
    """
    outputs, inputs = weight.shape
    if outputs * inputs < SMALL and x.numel() * outputs < MANY:
        return finish(F.linear(x, weight, bias), activation, residual, alpha)  # sooner than a choice is made
    tensors = [one for one in (x, weight, bias, residual) if one is not None]
    return LINEAR.choose(*tensors)(x, weight, bias, activation, residual, alpha)


def finish(y: Tensor, activation: Activation, residual: Tensor | None, alpha: float) -> Tensor:
    """What follows the product."""
    if activation != "none":
        y = F.gelu(y) if activation == "gelu" else F.silu(y)
    return y if residual is None else torch.add(residual, y, alpha=alpha)


def _reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation, residual: Tensor | None, alpha: float
) -> Tensor:
    return finish(F.linear(x, weight, bias), activation, residual, alpha)


def _numba(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation, residual: Tensor | None, alpha: float
) -> Tensor:
    return finish(_product(x, weight, bias), activation, residual, alpha)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    outputs, inputs = weight.shape
    few = 0 < x.numel() <= FEW * inputs and outputs * inputs >= SMALL and not (inputs % LANES or outputs % 4)
    contiguous = weight.is_contiguous() and (bias is None or bias.is_contiguous())
    if x.shape[-1] == inputs and contiguous and not torch.is_autocast_enabled("cpu"):
        if few:
            return _few_rows(x.contiguous(), weight, bias)
        if x.numel() * outputs >= MANY and _mkl_is_slow():
            return _onednn(x.contiguous(), weight, bias)
    return F.linear(x, weight, bias)


@functools.cache
def _mkl_is_slow() -> bool:
    from llvmlite.binding import get_host_cpu_name

    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return wide and get_host_cpu_name().startswith("znver") and torch.backends.mkldnn.is_available()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # what torch.compile calls, too
    return y


def _few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from loquent.kernels.cpu.runtime import kernel, run

    outputs, inputs = weight.shape
    y = x.new_empty(*x.shape[:-1], outputs)
    run(
        kernel("linear", "linear"),
        -(-outputs // OUTPUTS),
        x.numel() * outputs,
        *(x.numel() // inputs, outputs, inputs),
        *(x.data_ptr(), weight.data_ptr(), y.data_ptr(), 0 if bias is None else bias.data_ptr()),
    )
    return y


def _triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation, residual: Tensor | None, alpha: float
) -> Tensor:
    outputs, inputs = weight.shape
    few = 0 < x.numel() <= FEW_ON_GPU * inputs and outputs > 0
    if x.shape[-1] != inputs or not few or not weight.is_contiguous():
        return _reference(x, weight, bias, activation, residual, alpha)
    from loquent.kernels.gpu.linear import linear

    return linear(x, weight, bias, activation, residual, alpha)


LINEAR = Operation("linear", reference=_reference, numba=_numba, triton=_triton)
