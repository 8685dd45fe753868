"""Linear layer for few rows, as fast as its weight can be read, and what follows it.

A program takes a few outputs of a block of rows and runs through all inputs: the sum is in one order for every batch.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, dot, gelu, launch, sigmoid


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str = "none",
    residual: Tensor | None = None,
    alpha: float = 1.0,
    scale: Tensor | None = None,
) -> Tensor:
    """See `loquent.kernels.linear`; with a scale (N,) of every output before the residual is added."""
    outputs, inputs = weight.shape
    x = x.contiguous()
    rows, y = x.numel() // inputs, x.new_empty(*x.shape[:-1], outputs)
    block, width = block_of(rows, 16, 64), _outputs_of(outputs)
    launch(
        multiply,
        (triton.cdiv(outputs, width), triton.cdiv(rows, block)),
        *(x, weight, weight if bias is None else bias.contiguous(), y if residual is None else residual.contiguous()),
        *(weight if scale is None else scale.contiguous(), y, rows, inputs, outputs),
        ROWS=block,
        WIDTH=width,
        INPUTS=256 // x.element_size(),
        BIAS=bias is not None,
        ACTIVATION=activation,
        RESIDUAL=residual is not None,
        ALPHA=alpha,
        SCALE=scale is not None,
        num_stages=3,
    )
    return y


def _outputs_of(outputs: int) -> int:
    """Outputs of a program: few enough that a device of 132 or 108 processors is full, where there are so many."""
    return 16 if outputs <= 2048 else 32 if outputs <= 8192 else 64


@triton.jit
def multiply(
    x, weight, bias, residual, scale, y, rows, inputs, outputs,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, INPUTS: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
    RESIDUAL: tl.constexpr, ALPHA: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """One block of rows and outputs; all tensors are contiguous."""
    row, n = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    here, inside = row < rows, n < outputs
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    at = n.to(tl.int64) * inputs
    for k_0 in range(0, inputs, INPUTS):
        k = k_0 + tl.arange(0, INPUTS)
        a = tl.load(x + row[:, None] * inputs + k, mask=here[:, None] & (k < inputs), other=0)
        b = tl.load(weight + at[None, :] + k[:, None], mask=inside & (k < inputs)[:, None], other=0)
        total = dot(a, b, total)
    if BIAS:
        total += tl.load(bias + n, mask=inside, other=0).to(tl.float32)
    if ACTIVATION == "gelu":
        total = gelu(total)
    if ACTIVATION == "silu":
        total = total * sigmoid(total)
    if SCALE:
        total = total * tl.load(scale + n, mask=inside, other=0).to(tl.float32)
    at = row[:, None] * outputs + n
    mask = here[:, None] & inside
    if RESIDUAL:
        total = total * ALPHA + tl.load(residual + at, mask=mask, other=0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=mask)
