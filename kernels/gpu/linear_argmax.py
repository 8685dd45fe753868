"""Linear layer of which only the largest output matters: no output is written, only what each program found among its.

One kernel takes the outputs part by part, a second one joins the parts of each row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import LOWEST, block_of, dot, launch

OUTPUTS = 64  # of a program


def linear_argmax(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """See `loquent.kernels.best_tokens`."""
    outputs, inputs = weight.shape
    shape, x = x.shape[:-1], x.reshape(-1, inputs).contiguous()
    rows, parts = len(x), triton.cdiv(outputs, OUTPUTS)
    marks = torch.empty(rows, parts, 2, device=x.device)
    found = torch.empty(rows, parts, dtype=torch.int32, device=x.device)
    block = block_of(rows, 16, 32)
    launch(
        best_of_part,
        (parts, triton.cdiv(rows, block)),
        *(x, weight, bias.contiguous(), marks, found, rows, inputs, outputs, parts),
        ROWS=block,
        OUTPUTS=OUTPUTS,
        INPUTS=128 // x.element_size(),
        num_stages=3,
    )
    ids, log_probs = found.new_empty(rows, dtype=torch.long), marks.new_empty(rows)
    launch(best, (rows,), marks, found, ids, log_probs, parts, PARTS=block_of(parts, 2))
    return ids.view(shape), log_probs.view(shape)


@triton.jit
def best_of_part(
    x, weight, bias, marks, found, rows, inputs, outputs, parts,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """The largest of some outputs of a block of rows, and the sum of exponentials relative to it."""
    row, n = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    here, inside = row < rows, n < outputs
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    at = n.to(tl.int64) * inputs
    for k_0 in range(0, inputs, INPUTS):
        k = k_0 + tl.arange(0, INPUTS)
        a = tl.load(x + row[:, None] * inputs + k, mask=here[:, None] & (k < inputs), other=0)
        b = tl.load(weight + at[None, :] + k[:, None], mask=inside & (k < inputs)[:, None], other=0)
        total = dot(a, b, total)
    score = (total + tl.load(bias + n, mask=inside, other=0).to(tl.float32)).to(x.dtype.element_ty).to(tl.float32)
    score = tl.where(inside, score, LOWEST)
    top, place = tl.max(score, 1, return_indices=True)
    at = row * parts + tl.program_id(0)
    tl.store(found + at, tl.program_id(0) * OUTPUTS + place, mask=here)
    tl.store(marks + at * 2, top, mask=here)
    tl.store(marks + at * 2 + 1, tl.sum(tl.exp(score - top[:, None]), 1), mask=here)


@triton.jit
def best(marks, found, ids, log_probs, parts, PARTS: tl.constexpr):
    """The best of one row's parts."""
    part = tl.arange(0, PARTS)
    at, there = tl.program_id(0) * parts + part, part < parts
    tops = tl.load(marks + at * 2, mask=there, other=LOWEST)
    totals = tl.load(marks + at * 2 + 1, mask=there, other=0)
    top, place = tl.max(tops, 0, return_indices=True)
    tl.store(ids + tl.program_id(0), tl.load(found + tl.program_id(0) * parts + place).to(tl.int64))
    tl.store(log_probs + tl.program_id(0), -tl.log(tl.sum(totals * tl.exp(tops - top), 0)))
