"""The recurrence of an LSTM over the steps of a chunk.

A small layer is one launch: a program takes a block of rows through all steps, and the weight stays in the nearest
caches from step to step. (FlashRNN, arXiv 2412.07752, keeps it in registers; one processor has room for 64 cells of
float32.) A large layer shares out its cells, and every step is a launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import dot, launch, sigmoid, strides_of, tanh

ROWS, CELLS = 16, 32  # that a program takes at a time
MOST = 128  # cells of a layer that one program runs through


def lstm_steps(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `loquent.kernels.lstm_steps`."""
    (batch, steps, _), size = gates.shape, hidden.shape[1]
    if steps == 0:
        return gates.new_empty(batch, 0, size), hidden, cell
    outputs = gates.new_empty(batch, steps, size)
    cells = torch.empty(batch, size, device=gates.device)
    hidden, cell, weight, length = (one.contiguous() for one in (hidden, cell, weight, length))
    blocks = 1 if size <= MOST else triton.cdiv(size, CELLS)
    at_once = steps if blocks == 1 else 1
    for first in range(0, steps, at_once):
        launch(
            recur,
            (triton.cdiv(batch, ROWS), blocks),
            *(gates, weight, hidden, cell, length, outputs, cells),
            *(*strides_of(gates), batch, steps, size, first, at_once),
            ROWS=ROWS,
            CELLS=CELLS,
            INPUTS=32,
            num_stages=2,
        )
    return outputs, outputs[:, -1], cells.to(cell.dtype)


@triton.jit
def recur(
    gates, weight, hidden, cell, length, outputs, cells, gate_row, gate_step, batch, steps, size, first, count,
    ROWS: tl.constexpr, CELLS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Some steps of a block of rows: all of its cells, block by block, or those that fall to the program."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = row < batch
    valid = tl.load(length + row, mask=here, other=0)
    for step in range(first, first + count):
        before = outputs + row[:, None] * steps * size + (step - 1) * size
        begins = step == 0
        for n_0 in range(tl.program_id(1) * CELLS, size, tl.num_programs(1) * CELLS):
            n = n_0 + tl.arange(0, CELLS)
            mask = here[:, None] & (n < size)
            moving = mask & (step < valid)[:, None]
            gate = gates + row[:, None] * gate_row + step * gate_step + n
            write = tl.load(gate, mask=moving, other=0).to(tl.float32)
            keep = tl.load(gate + size, mask=moving, other=0).to(tl.float32)
            new = tl.load(gate + 2 * size, mask=moving, other=0).to(tl.float32)
            show = tl.load(gate + 3 * size, mask=moving, other=0).to(tl.float32)
            for k_0 in range(0, size, INPUTS):
                k = k_0 + tl.arange(0, INPUTS)
                known = here[:, None] & (k < size)
                h = tl.load(hidden + row[:, None] * size + k, mask=known & begins, other=0)
                h += tl.load(before + k, mask=known & (step > 0), other=0)
                w, there = weight + n[None, :] * size + k[:, None], (k < size)[:, None] & (n < size)
                write = dot(h, tl.load(w, mask=there, other=0), write)
                keep = dot(h, tl.load(w + size * size, mask=there, other=0), keep)
                new = dot(h, tl.load(w + 2 * size * size, mask=there, other=0), new)
                show = dot(h, tl.load(w + 3 * size * size, mask=there, other=0), show)
            at = row[:, None] * size + n
            now = tl.load(cell + at, mask=mask & begins, other=0).to(tl.float32)
            now += tl.load(cells + at, mask=mask & (step > 0), other=0)
            shown = tl.load(hidden + at, mask=mask & begins, other=0).to(tl.float32)
            shown += tl.load(before + n, mask=mask & (step > 0), other=0).to(tl.float32)
            now = tl.where(moving, sigmoid(keep) * now + sigmoid(write) * tanh(new), now)
            shown = tl.where(moving, sigmoid(show) * tanh(now), shown).to(outputs.dtype.element_ty)
            tl.store(cells + at, now, mask=mask)
            tl.store(before + size + n, shown, mask=mask)
        tl.debug_barrier()  # the next step reads what this one has written
