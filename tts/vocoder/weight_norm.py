"""Weights that a checkpoint stores as length and direction (weight normalisation, arXiv 1602.07868)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SPELLINGS = (  # endings of the length, of the direction: of torch's parametrisations, and of those before
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)


def without_weight_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Plain weights: g · v / ‖v‖ with a norm over all but the first axis; other tensors as they are.

    Raises:
        ValueError: one of a pair is missing, or their shapes do not fit.
    """
    found = dict(weights)
    for length, direction in _SPELLINGS:
        for name in [name for name in weights if name.endswith((length, direction))]:
            layer = name.removesuffix(length).removesuffix(direction)
            if layer + length not in found or layer + direction not in found:
                if f"{layer}.weight" not in found:
                    raise ValueError(f"of {layer}, only {name} is there: the normalised weight needs both parts")
                continue
            g, v = found.pop(layer + length), found.pop(layer + direction)
            if v.ndim < 2 or g.shape != (len(v), *[1] * (v.ndim - 1)):
                raise ValueError(f"of {layer}, shapes {list(g.shape)} and {list(v.shape)} make no normalised weight")
            found[f"{layer}.weight"] = torch._weight_norm(v, g, 0)
    return found
