"""Attention over cached keys: of new steps over a ring, which they join, and of decoder steps over encoder frames.

A program takes a block of queries of one head of one row, and where the queries are few a stretch of the cache, too:
what it finds there is joined by a second kernel, so that one stream can use a whole device (Lean Attention, arXiv
2405.10480). Stretches have the same length for every batch.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import LOG2_E, LOWEST, block_of, dot, launch, strides_of

FEW = 16  # queries whose cache is read in stretches
STRETCH = 512  # keys
KEYS = 64  # that a program takes at a time


def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    rows: Tensor,
    position: Tensor,
    length: Tensor,
    block: int,
    left: int | None,
    sinks: int,
) -> Tensor:
    """See `loquent.kernels.cached_attention`."""
    batch, steps, heads, _ = q.shape
    ring = cache_k.shape[2]
    places = [one.contiguous() for one in (rows, position, length)]
    plan = _Plan(q, cache_k)
    alone = plan.blocks == plan.stretches == 1  # one program sees all of a head, so it may overwrite the ring itself
    new = k, v, cache_k, cache_v
    plan.attend(
        (q, *new),
        (*places, ring, block, left or 0, sinks),
        {"BOUNDED": left is not None, "NEW": True, "REMEMBER": alone},
    )
    if not alone:
        launch(
            remember,
            (batch * heads, plan.blocks),
            *(*new, *places, *(stride for one in new for stride in strides_of(one)), steps, ring, sinks),
            **plan.sizes,
        )
    return plan.out


def cross_attention(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """See `loquent.kernels.cross_attention`."""
    batch, steps, _, dim = q.shape
    capacity = cache_k.shape[2]
    rows, frames = rows.contiguous(), frames.contiguous()
    plan = _Plan(q, cache_k)
    everything = {"BOUNDED": False, "NEW": False, "REMEMBER": False}
    plan.attend((q, q, q, cache_k, cache_v), (rows, frames, frames, capacity, 1, 0, 0), everything)
    if heads is None:
        return plan.out, None
    weights = torch.empty(batch, len(heads), steps, capacity, device=q.device)
    launch(
        weigh,
        (batch * len(heads), plan.blocks, triton.cdiv(capacity, KEYS)),
        *(q, cache_k, weights, plan.marks, rows, frames, heads.contiguous()),
        *(stride for one in (q, cache_k, weights) for stride in strides_of(one)),
        *(steps, capacity, len(heads), dim**-0.5 * LOG2_E),
        **plan.sizes,
        **plan.stretching,
    )
    return plan.out, weights


class _Plan:
    """How the work on queries (B, T, H, D) over a pool (S, H, R, D) is cut up, and where its results go.

    blocks, stretches: of queries, and of the pool's keys.
    out:   (B, T, H, D).
    parts: (B, H, T, stretches, D) weighted sums of every stretch, where there are several.
    marks: (B, H, T, stretches, 2) the highest score of each, and the sum of weights relative to that.
    """

    def __init__(self, q: Tensor, cache: Tensor) -> None:
        batch, steps, heads, dim = q.shape
        queries = block_of(steps, 16, 64 if q.element_size() == 2 else 16)  # more do not fit into the registers
        self.blocks = triton.cdiv(steps, queries)
        self.stretches = max(triton.cdiv(cache.shape[2], STRETCH), 1) if steps <= FEW else 1
        self.sizes = {"HEADS": heads, "DIM": dim, "WIDTH": block_of(dim), "QUERIES": queries, "KEYS": KEYS}
        self.stretching = {"STRETCHES": self.stretches, "PADDED": block_of(self.stretches, 1)}
        shape = batch, heads, steps, self.stretches
        self.out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        self.parts = torch.empty(*shape, dim if self.stretches > 1 else 0, device=q.device)
        self.marks = torch.empty(*shape, 2, device=q.device)

    def attend(self, tensors: tuple[Tensor, ...], sight: tuple[Any, ...], kind: dict[str, bool]) -> None:
        """Fill the results, from q, k, v and the pools."""
        batch, steps, heads, dim = self.out.shape
        strides = (stride for one in (*tensors, self.out) for stride in strides_of(one))
        launch(
            attend,
            (batch * heads, self.blocks, self.stretches),
            *(*tensors, self.out, self.parts, self.marks, *sight, *strides, steps, dim**-0.5 * LOG2_E),
            **self.sizes,
            **kind,
            STRETCHES=self.stretches,
            STRETCH=STRETCH if self.stretches > 1 else 1 << 30,
            num_stages=2,
        )
        if self.stretches > 1:
            launch(
                join,
                (batch * heads, steps),
                *(self.parts, self.marks, self.out, *strides_of(self.out), steps),
                HEADS=heads,
                DIM=dim,
                WIDTH=self.sizes["WIDTH"],
                **self.stretching,
            )


@triton.jit
def absorb(scores, v, top, total, sums):
    """Take in keys of scores (T, N), in powers of two, and their values (N, D): online softmax."""
    high = tl.maximum(top, tl.max(scores, 1))
    weight = tl.exp2(scores - high[:, None])
    fade = tl.exp2(top - high)
    total = total * fade + tl.sum(weight, 1)
    sums = dot(weight.to(v.dtype), v, sums * fade[:, None])
    return high, total, sums


@triton.jit
def attend(
    q, k, v, cache_k, cache_v, out, parts, marks, rows, position, length, ring, block, left, sinks,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head,
    ck_slot, ck_head, ck_entry, cv_slot, cv_head, cv_entry, out_row, out_step, out_head, steps, scale,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    BOUNDED: tl.constexpr, NEW: tl.constexpr, REMEMBER: tl.constexpr, STRETCHES: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head of one row, over one stretch of the cache and, with the last one, the new keys.

    Steps and keys are counted from the row's position on, so cached keys are negative.
    """
    row, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    first, stretch = tl.program_id(1) * QUERIES, tl.program_id(2)
    slot, before = tl.load(rows + row), tl.load(position + row)
    count = steps
    if NEW:
        count = tl.load(length + row).to(tl.int32)
    step, c = first + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    valid, inside = step < count, c < DIM
    part = (before % block).to(tl.int32)
    start = (part + step) // block * block - part  # of the step's block
    at = q + row * q_row + head * q_head
    queries = tl.load(at + step[:, None] * q_step + c, mask=valid[:, None] & inside, other=0)
    top = tl.full([QUERIES], LOWEST, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sums = tl.zeros([QUERIES, WIDTH], tl.float32)

    turn = ring - sinks  # entries that are overwritten in turn
    newest = ((before - 1 - sinks) % turn).to(tl.int32)  # the last key's place among them; unused before there is one
    filled = tl.minimum(before, ring).to(tl.int32)
    end = tl.minimum(filled, (stretch + 1) * STRETCH)
    if NEW:
        end = tl.where(first < count, end, 0)
    k_at, v_at = cache_k + slot * ck_slot + head * ck_head, cache_v + slot * cv_slot + head * cv_head
    for entry_0 in range(stretch * STRETCH, end, KEYS):
        entry = entry_0 + tl.arange(0, KEYS)
        there = entry < end
        keys = tl.load(k_at + entry[None, :] * ck_entry + c[:, None], mask=there[None, :] & inside[:, None], other=0)
        values = tl.load(v_at + entry[:, None] * cv_entry + c, mask=there[:, None] & inside, other=0)
        seen = there[None, :] & valid[:, None]
        if BOUNDED:
            place = entry - sinks
            key = place - newest - 1 - tl.where(place > newest, turn, 0)
            seen = seen & ((key[None, :] >= start[:, None] - left) | (entry[None, :] < sinks))
        scores = dot(queries, keys, tl.zeros([QUERIES, KEYS], tl.float32)) * scale
        top, total, sums = absorb(tl.where(seen, scores, LOWEST), values, top, total, sums)

    if NEW and stretch == STRETCHES - 1:
        last = tl.minimum(first + QUERIES, count) - 1  # of the queries
        end = tl.minimum((part + last) // block * block - part + block, count)
        end = tl.where(first < count, end, 0)
        k_at, v_at = k + row * k_row + head * k_head, v + row * v_row + head * v_head
        for key_0 in range(0, end, KEYS):
            key = key_0 + tl.arange(0, KEYS)
            there = key < end
            keys = tl.load(k_at + key[None, :] * k_step + c[:, None], mask=there[None, :] & inside[:, None], other=0)
            values = tl.load(v_at + key[:, None] * v_step + c, mask=there[:, None] & inside, other=0)
            seen = there[None, :] & valid[:, None] & (key[None, :] < start[:, None] + block)
            if BOUNDED:
                seen = seen & ((key[None, :] >= start[:, None] - left) | (before + key < sinks)[None, :])
            scores = dot(queries, keys, tl.zeros([QUERIES, KEYS], tl.float32)) * scale
            top, total, sums = absorb(tl.where(seen, scores, LOWEST), values, top, total, sums)

    here = step < steps
    mark = marks + ((tl.program_id(0) * steps + step) * STRETCHES + stretch) * 2
    tl.store(mark, top, mask=here)
    tl.store(mark + 1, tl.where(top > LOWEST, total, 0), mask=here)
    if STRETCHES == 1:
        result = tl.where((valid & (top > LOWEST))[:, None], sums / total[:, None], 0)
        at = out + row * out_row + head * out_head
        tl.store(at + step[:, None] * out_step + c, result.to(out.dtype.element_ty), mask=here[:, None] & inside)
    else:
        at = parts + ((tl.program_id(0) * steps + step) * STRETCHES + stretch) * DIM
        tl.store(at[:, None] + c, tl.where((top > LOWEST)[:, None], sums, 0), mask=here[:, None] & inside)
    if REMEMBER:
        tl.debug_barrier()  # all of the old entries are read
        remember_steps(
            k + row * k_row + head * k_head, v + row * v_row + head * v_head, k_step, v_step,
            cache_k + slot * ck_slot + head * ck_head, cache_v + slot * cv_slot + head * cv_head, ck_entry, cv_entry,
            before, count, step, ring, sinks, DIM, WIDTH,
        )  # fmt: skip


@triton.jit
def remember_steps(
    k, v, k_step, v_step, cache_k, cache_v, ck_entry, cv_entry, before, count, step, ring, sinks,
    DIM: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Put those new steps that still have a place after the last of them into their entries."""
    turn, c = ring - sinks, tl.arange(0, WIDTH)
    sink = before + step < sinks
    kept = (step < count) & (sink | (step >= count - turn))
    base = (((before - sinks) % turn + turn) % turn).to(tl.int32)  # division rounds towards zero
    entry = tl.where(sink, (before + step).to(tl.int32), sinks + (base + step) % turn)
    mask = kept[:, None] & (c < DIM)
    new = tl.load(k + step[:, None] * k_step + c, mask=mask)
    tl.store(cache_k + entry[:, None] * ck_entry + c, new, mask=mask)
    new = tl.load(v + step[:, None] * v_step + c, mask=mask)
    tl.store(cache_v + entry[:, None] * cv_entry + c, new, mask=mask)


@triton.jit
def remember(
    k, v, cache_k, cache_v, rows, position, length, k_row, k_step, k_head, v_row, v_step, v_head,
    ck_slot, ck_head, ck_entry, cv_slot, cv_head, cv_entry, steps, ring, sinks,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One block of new steps of one head of one row, once all programs of `attend` have read the ring."""
    row, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    slot, before, count = tl.load(rows + row), tl.load(position + row), tl.load(length + row).to(tl.int32)
    remember_steps(
        k + row * k_row + head * k_head, v + row * v_row + head * v_head, k_step, v_step,
        cache_k + slot * ck_slot + head * ck_head, cache_v + slot * cv_slot + head * cv_head, ck_entry, cv_entry,
        before, count, tl.program_id(1) * QUERIES + tl.arange(0, QUERIES), ring, sinks, DIM, WIDTH,
    )  # fmt: skip


@triton.jit
def _shares(marks, at, STRETCHES: tl.constexpr, PADDED: tl.constexpr):
    """Weight of each stretch's sums (PADDED,) for one query, and the sum of all weights."""
    stretch = tl.arange(0, PADDED)
    there = stretch < STRETCHES
    tops = tl.load(marks + (at * STRETCHES + stretch) * 2, mask=there, other=LOWEST)
    totals = tl.load(marks + (at * STRETCHES + stretch) * 2 + 1, mask=there, other=0)
    share = tl.exp2(tops - tl.max(tops, 0))
    return share, tl.sum(share * totals, 0)


@triton.jit
def join(
    parts, marks, out, out_row, out_step, out_head, steps,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, STRETCHES: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One query of one head: what its stretches found."""
    row, head, step = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS, tl.program_id(1)
    stretch, c = tl.arange(0, PADDED), tl.arange(0, WIDTH)
    at = tl.program_id(0) * steps + step
    share, total = _shares(marks, at, STRETCHES, PADDED)
    mask = (stretch < STRETCHES)[:, None] & (c < DIM)
    sums = tl.load(parts + (at * STRETCHES + stretch)[:, None] * DIM + c, mask=mask, other=0)
    result = tl.where(total > 0, tl.sum(share[:, None] * sums, 0) / total, 0)
    at = out + row * out_row + step * out_step + head * out_head
    tl.store(at + c, result.to(out.dtype.element_ty), mask=c < DIM)


@triton.jit
def weigh(
    q, cache_k, weights, marks, rows, frames, heads, q_row, q_step, q_head, ck_slot, ck_head, ck_entry,
    w_row, w_head, w_step, steps, capacity, wanted, scale,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    STRETCHES: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Weights of some keys for a block of queries of one wanted head of one row."""
    row, name = tl.program_id(0) // wanted, tl.program_id(0) % wanted
    slot, count, head = tl.load(rows + row), tl.load(frames + row), tl.load(heads + name)
    step, c = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    key = tl.program_id(2) * KEYS + tl.arange(0, KEYS)
    here, there, inside = step < steps, key < count, c < DIM
    at = q + row * q_row + head * q_head
    queries = tl.load(at + step[:, None] * q_step + c, mask=here[:, None] & inside, other=0)
    at = cache_k + slot * ck_slot + head * ck_head
    keys = tl.load(at + key[None, :] * ck_entry + c[:, None], mask=there[None, :] & inside[:, None], other=0)
    scores = dot(queries, keys, tl.zeros([QUERIES, KEYS], tl.float32)) * scale

    at = (row * HEADS + head) * steps + step
    stretch = tl.arange(0, PADDED)
    mask = here[:, None] & (stretch < STRETCHES)
    tops = tl.load(marks + (at[:, None] * STRETCHES + stretch) * 2, mask=mask, other=LOWEST)
    totals = tl.load(marks + (at[:, None] * STRETCHES + stretch) * 2 + 1, mask=mask, other=0)
    top = tl.max(tops, 1)
    total = tl.sum(tl.exp2(tops - top[:, None]) * totals, 1)
    weight = tl.where(there[None, :], tl.exp2(scores - top[:, None]) / total[:, None], 0)
    at = weights + row * w_row + name * w_head
    tl.store(at + step[:, None] * w_step + key, weight, mask=here[:, None] & (key < capacity)[None, :])
