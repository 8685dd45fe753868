"""The recurrence of the simpler simple recurrent unit: a decoder's whole memory in one vector a layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from loquent.kernels.registry import Operation


def ssru(x: Tensor, forget: Tensor, cell: Tensor) -> Tensor:
    """Run the recurrence over time::

        c[t] = f[t] ⊙ c[t - 1] + (1 - f[t]) ⊙ x[t]        with c[-1] = cell

    Args:
        x: (B, T, C) candidates.
        forget: (B, T, C) gates f, from 0 to 1.
        cell: (B, C) where each row begins.

    Returns:
        (B, T, C): the cell after every step.

    Source: Kim et al. 2019, "From Research to Production and Back: Ludicrously Fast Neural Machine Translation",
    equations 1 to 3 without the output's rectifier.
    """
    return SSRU.choose(x, forget, cell)(x, forget, cell)


class _Recurrence(torch.autograd.Function):
    """Time goes in a loop: a step is a vector a row, and there are few of them in a sentence."""

    @staticmethod
    def forward(x: Tensor, forget: Tensor, cell: Tensor) -> Tensor:
        cells = torch.empty_like(x)
        for t in range(x.shape[1]):
            cell = torch.lerp(x[:, t], cell, forget[:, t])
            cells[:, t] = cell
        return cells

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, forget, cell, cells = ctx.saved_tensors
        (gradient,) = gradients
        carried, steps = torch.zeros_like(cell), x.shape[1]
        total = torch.empty_like(x)  # gradient of each cell
        for t in reversed(range(steps)):
            carried = carried + gradient[:, t]
            total[:, t] = carried
            carried = carried * forget[:, t]
        before = torch.cat([cell[:, None], cells[:, :-1]], dim=1)
        return total * (1 - forget), total * (before - x), carried


def _reference(x: Tensor, forget: Tensor, cell: Tensor) -> Tensor:
    return _Recurrence.apply(x, forget, cell)


def _triton(x: Tensor, forget: Tensor, cell: Tensor) -> Tensor:
    from loquent.kernels.gpu.ssru import ssru

    return ssru(x, forget, cell)


SSRU = Operation("ssru", reference=_reference, triton=_triton)
