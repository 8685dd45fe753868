"""Linear layer with 8-bit weights: a row's numbers are rounded on their way, and integers are added."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, dot, launch

INPUTS = 128  # that a program takes at a time
NEAREST = tl.constexpr(
    12582912.0
)  # 3 · 2**22: the sum with it has no digits after the point, the last one rounded to even


def int8_linear(unit: Tensor, values: Tensor, scale: Tensor, levels: int) -> Tensor:
    """scale / levels · Σ round(levels · unit) values for rows (..., K) from -1 to 1 and integers (N, K): (..., N)."""
    outputs, inputs = values.shape
    rows, y = unit.numel() // max(inputs, 1), unit.new_empty(*unit.shape[:-1], outputs)
    block, width = block_of(rows, 16, 64), 32 if outputs <= 4096 else 64
    launch(
        integers,
        (triton.cdiv(outputs, width), triton.cdiv(rows, block)),
        *(unit.contiguous(), values.contiguous(), scale.contiguous(), y, rows, inputs, outputs),
        LEVELS=levels,
        ROWS=block,
        WIDTH=width,
        INPUTS=INPUTS,
        num_stages=2,
    )
    return y


@triton.jit
def integers(
    unit, values, scale, y, rows, inputs, outputs,
    LEVELS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """One block of rows and outputs; all tensors are contiguous."""
    row, n = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    here, inside = row < rows, n < outputs
    total = tl.zeros([ROWS, WIDTH], tl.int32)
    at = n.to(tl.int64) * inputs
    for k_0 in range(0, inputs, INPUTS):
        k = k_0 + tl.arange(0, INPUTS)
        a = tl.load(unit + row[:, None] * inputs + k, mask=here[:, None] & (k < inputs), other=0)
        b = tl.load(values + at[None, :] + k[:, None], mask=inside & (k < inputs)[:, None], other=0)
        total = dot(((a * LEVELS + NEAREST) - NEAREST).to(tl.int8), b, total)
    found = total.to(tl.float32) * (tl.load(scale + n, mask=inside, other=0) / LEVELS)
    tl.store(y + row[:, None] * outputs + n, found, mask=here[:, None] & inside)
