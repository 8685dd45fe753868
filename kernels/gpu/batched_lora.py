"""Low-rank adapters, a different one for every row: tiles of steps with one adapter (S-LoRA, arXiv 2311.03285).

One kernel takes a tile down to the adapter's rank, a second one up again, with a part of the outputs for each program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import block_of, dot, launch, strides_of
from loquent.kernels.registry import TILE

INPUTS, OUTPUTS = 64, 64  # that a program takes at a time, and makes


def batched_lora(y: Tensor, x: Tensor, down: Tensor, up: Tensor, order: Tensor, tiles: Tensor) -> None:
    """See `loquent.kernels.batched_lora`.

    Args:
        y, x: (B, T, M), changed in place, and (B, T, K).
        down, up: (N, K, R) and (N, R, M).
        order: rows that have an adapter, those of the same one together.
        tiles: (G, 3) int64 of adapter, start and length in ``order``, in steps; of length 0 to do nothing.
    """
    (_, steps, inputs), outputs, rank = x.shape, y.shape[2], up.shape[1]
    narrow = torch.empty(len(tiles), TILE, rank, dtype=x.dtype, device=x.device)
    part = block_of(rank, 16, 64)
    launch(
        shrink,
        (len(tiles), triton.cdiv(rank, part)),
        *(x, down, narrow, order, tiles, *strides_of(x), *strides_of(down), steps, inputs, rank),
        TILE=TILE,
        RANK=part,
        INPUTS=INPUTS,
    )
    launch(
        expand,
        (len(tiles), triton.cdiv(outputs, OUTPUTS)),
        *(y, up, narrow, order, tiles, *strides_of(y), *strides_of(up), steps, outputs, rank),
        TILE=TILE,
        RANK=part,
        OUTPUTS=OUTPUTS,
    )


@triton.jit
def _places(order, tiles, steps, tensor_row, tensor_step, TILE: tl.constexpr):
    """Adapter of the program's tile, which of its steps there are, and where they lie in a tensor."""
    tile = tiles + tl.program_id(0) * 3
    i, adapter, start, count = tl.arange(0, TILE), tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    there = i < count
    row = tl.load(order + (start + i) // steps, mask=there, other=0)
    return adapter, there, row * tensor_row + (start + i) % steps * tensor_step


@triton.jit
def shrink(
    x, down, narrow, order, tiles, x_row, x_step, down_slot, down_row, steps, inputs, rank,
    TILE: tl.constexpr, RANK: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Part of the rank of one tile."""
    adapter, there, at = _places(order, tiles, steps, x_row, x_step, TILE)
    r = tl.program_id(1) * RANK + tl.arange(0, RANK)
    total = tl.zeros([TILE, RANK], tl.float32)
    down += adapter * down_slot
    end = tl.where(tl.max(there.to(tl.int32), 0) > 0, inputs, 0)
    for k_0 in range(0, end, INPUTS):
        k = k_0 + tl.arange(0, INPUTS)
        a = tl.load(x + at[:, None] + k, mask=there[:, None] & (k < inputs), other=0)
        b = tl.load(down + k[:, None] * down_row + r, mask=(k < inputs)[:, None] & (r < rank), other=0)
        total = dot(a, b, total)
    at = (tl.program_id(0) * TILE + tl.arange(0, TILE))[:, None] * rank + r
    tl.store(narrow + at, total.to(narrow.dtype.element_ty), mask=there[:, None] & (r < rank))


@triton.jit
def expand(
    y, up, narrow, order, tiles, y_row, y_step, up_slot, up_row, steps, outputs, rank,
    TILE: tl.constexpr, RANK: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Some outputs of one tile."""
    adapter, there, at = _places(order, tiles, steps, y_row, y_step, TILE)
    n = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    total = tl.zeros([TILE, OUTPUTS], tl.float32)
    up += adapter * up_slot
    source = narrow + (tl.program_id(0) * TILE + tl.arange(0, TILE))[:, None] * rank
    end = tl.where(tl.max(there.to(tl.int32), 0) > 0, rank, 0)
    for r_0 in range(0, end, RANK):
        r = r_0 + tl.arange(0, RANK)
        a = tl.load(source + r, mask=there[:, None] & (r < rank), other=0)
        b = tl.load(up + r[:, None] * up_row + n, mask=(r < rank)[:, None] & (n < outputs), other=0)
        total = dot(a, b, total)
    mask = there[:, None] & (n < outputs)
    total += tl.load(y + at[:, None] + n, mask=mask, other=0).to(tl.float32)
    tl.store(y + at[:, None] + n, total.to(y.dtype.element_ty), mask=mask)
