"""Finite scalar quantisation: a frame becomes a few bounded numbers, each rounded, and these the digits of a code."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from loquent.kernels.linear import linear
from loquent.kernels.registry import Operation


class Digits(NamedTuple):
    """How each of K numbers is bounded and rounded, and what its digit is worth."""

    shift: Tensor  # (K,) float32
    half_width: Tensor  # (K,) float32
    offset: Tensor  # (K,) float32
    lowest: Tensor  # (K,) float32
    powers: Tensor  # (K,) int64


def finite_scalar_codes(x: Tensor, weight: Tensor, bias: Tensor, digits: Digits) -> Tensor:
    """Quantise frames::

        h = bias + weight x,   z_j = round(tanh(h_j + shift_j) · half_width_j - offset_j)
        code = Σ_j (z_j + lowest_j) · powers_j

    Args:
        x: (..., C) frames.
        weight: (K, C). bias: (K,).
        digits: see there.

    Returns:
        (...) int64.

    Source: Mentzer et al. 2023 (arXiv 2309.15505).
    """
    return FINITE_SCALAR_CODES.choose(x, weight, bias)(x, weight, bias, digits)


def bounded(h: Tensor, digits: Digits) -> Tensor:
    """Numbers (..., K) before they are rounded."""
    return (h + digits.shift).tanh() * digits.half_width - digits.offset


def code_of(levels: Tensor, digits: Digits) -> Tensor:
    """Rounded numbers (..., K) to codes (...)."""
    return ((levels + digits.lowest).long() * digits.powers).sum(-1)


def _reference(x: Tensor, weight: Tensor, bias: Tensor, digits: Digits) -> Tensor:
    return code_of(bounded(linear(x, weight, bias).float(), digits).round(), digits)


def _triton(x: Tensor, weight: Tensor, bias: Tensor, digits: Digits) -> Tensor:
    if x.shape[-1] != weight.shape[1]:
        return _reference(x, weight, bias, digits)
    from loquent.kernels.gpu.finite_scalar import finite_scalar_codes

    return finite_scalar_codes(x, weight, bias, *digits)


FINITE_SCALAR_CODES = Operation("finite_scalar_codes", reference=_reference, triton=_triton)
