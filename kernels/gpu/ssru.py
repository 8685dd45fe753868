"""The recurrence of the simpler simple recurrent unit: a program keeps some cells of one row through all steps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import launch, strides_of

CELLS = 128  # of a program


def ssru(x: Tensor, forget: Tensor, cell: Tensor) -> Tensor:
    """See `loquent.kernels.ssru`."""
    batch, steps, channels = x.shape
    cells = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    strides = (*strides_of(x), *strides_of(forget), *strides_of(cell))
    grid = batch, triton.cdiv(channels, CELLS)
    launch(recur, grid, x, forget, cell, cells, *strides, steps, channels, CELLS=CELLS)
    return cells


@triton.jit
def recur(
    x, forget, cell, cells, x_row, x_step, forget_row, forget_step, cell_row, steps, channels, CELLS: tl.constexpr
):  # fmt: skip
    """Some cells of one row."""
    row, c = tl.program_id(0), tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    inside = c < channels
    now = tl.load(cell + row * cell_row + c, mask=inside, other=0).to(tl.float32)
    for step in range(steps):
        new = tl.load(x + row * x_row + step * x_step + c, mask=inside, other=0).to(tl.float32)
        kept = tl.load(forget + row * forget_row + step * forget_step + c, mask=inside, other=0).to(tl.float32)
        now = new + kept * (now - new)
        tl.store(cells + (row * steps + step) * channels + c, now.to(cells.dtype.element_ty), mask=inside)
