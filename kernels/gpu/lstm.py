"""The recurrence of an LSTM: a program keeps the cells of a block of rows through all steps.

Where one program can hold all cells, a chunk is one launch, and the weight stays in the caches from step to step
(FlashRNN, arXiv 2412.07752, keeps it in registers, which fit no more than 64 cells of float32). Larger layers share out
their cells, and every step is a launch.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, dot, launch, sigmoid, strides_of, tanh

ROWS = 16  # of a program
MOST = 128  # cells of a program that goes on to the next step


def lstm_steps(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `loquent.kernels.lstm_steps`."""
    (batch, steps, _), size = gates.shape, hidden.shape[1]
    outputs, cells = gates.new_empty(batch, steps, size), cell.new_empty(batch, size)
    hidden, cell, weight = hidden.contiguous(), cell.contiguous(), weight.contiguous()
    if steps == 0:
        return outputs, hidden, cell
    at_once = 1 if size > MOST else steps
    width = block_of(size) if at_once > 1 else 16
    for first in range(0, steps, at_once):
        launch(
            recur,
            (triton.cdiv(batch, ROWS), triton.cdiv(size, width)),
            *(gates, weight, hidden, cell if first == 0 else cells, length.contiguous(), outputs, cells),
            *(*strides_of(gates), batch, steps, size, first, at_once),
            ROWS=ROWS,
            WIDTH=width,
            INPUTS=32,
            num_warps=8 if width > 64 else 4,
            num_stages=2,
        )
    return outputs, outputs[:, -1], cells


@triton.jit
def recur(
    gates, weight, hidden, cell, length, outputs, cells, gate_row, gate_step, batch, steps, size, first, count,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Some steps of some cells of a block of rows; of all cells where the steps are several."""
    row, n = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here, inside = row < batch, n < size
    mask = here[:, None] & inside
    valid = tl.load(length + row, mask=here, other=0)
    now = tl.load(cell + row[:, None] * size + n, mask=mask, other=0).to(tl.float32)
    for step in range(first, first + count):
        at = gates + row[:, None] * gate_row + step * gate_step + n
        moving = mask & (step < valid)[:, None]
        write = tl.load(at, mask=moving, other=0).to(tl.float32)
        keep = tl.load(at + size, mask=moving, other=0).to(tl.float32)
        new = tl.load(at + 2 * size, mask=moving, other=0).to(tl.float32)
        show = tl.load(at + 3 * size, mask=moving, other=0).to(tl.float32)
        before = outputs + row[:, None] * steps * size + (step - 1) * size
        for k_0 in range(0, size, INPUTS):
            k = k_0 + tl.arange(0, INPUTS)
            known = here[:, None] & (k < size)
            h = tl.load(hidden + row[:, None] * size + k, mask=known & (step == 0), other=0)
            h += tl.load(before + k, mask=known & (step > 0), other=0)
            w = weight + n[None, :] * size + k[:, None]
            there = (k < size)[:, None] & inside
            write = dot(h, tl.load(w, mask=there, other=0), write)
            keep = dot(h, tl.load(w + size * size, mask=there, other=0), keep)
            new = dot(h, tl.load(w + 2 * size * size, mask=there, other=0), new)
            show = dot(h, tl.load(w + 3 * size * size, mask=there, other=0), show)
        then = tl.load(hidden + row[:, None] * size + n, mask=mask & (step == 0), other=0)
        then += tl.load(before + n, mask=mask & (step > 0), other=0)
        now = tl.where(moving, sigmoid(keep) * now + sigmoid(write) * tanh(new), now)
        shown = tl.where(moving, sigmoid(show) * tanh(now), then.to(tl.float32))
        at = outputs + row[:, None] * steps * size + step * size + n
        tl.store(at, shown.to(outputs.dtype.element_ty), mask=mask)
        tl.debug_barrier()  # the next step reads what this one has written
    tl.store(cells + row[:, None] * size + n, now.to(cells.dtype.element_ty), mask=mask)
