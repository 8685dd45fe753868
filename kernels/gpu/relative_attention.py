"""Self-attention with relative positions over a ring of keys; a program takes some queries of one head of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.attention import absorb, remember, remember_steps
from loquent.kernels.gpu.runtime import LOG2_E, LOWEST, block_of, dot, launch, strides_of

QUERIES = 16  # of a program


def relative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    rows: Tensor,
    position: Tensor,
    length: Tensor,
    query: Tensor,
    first: Tensor,
    end: Tensor,
    table: Tensor,
    future: int,
    content_bias: Tensor,
    distance_bias: Tensor,
) -> Tensor:
    """See `loquent.kernels.relative_attention`."""
    batch, asked, heads, dim = q.shape
    steps, ring, distances = k.shape[1], cache_k.shape[2], table.shape[0]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    places = [place.contiguous() for place in (rows, position, length)]
    sight = [place.contiguous() for place in (query, first, end)]
    blocks, keys = triton.cdiv(asked, QUERIES), 64 if q.element_size() == 2 else 32
    sizes = {"HEADS": heads, "DIM": dim, "WIDTH": block_of(dim), "KEYS": keys}
    by_distance = torch.empty(batch * heads, blocks * QUERIES, distances, device=q.device)
    alone = blocks == 1 and steps <= QUERIES  # the program that reads a head's ring overwrites it, too
    new = k, v, cache_k, cache_v
    biases = table, content_bias, distance_bias
    launch(
        attend,
        (batch * heads, blocks),
        *(q, *new, out, by_distance, *places, *sight, *biases, ring, distances, future),
        *(stride for one in (q, *new, out, *biases) for stride in strides_of(one)),
        *(asked, dim**-0.5 * LOG2_E),
        **sizes,
        QUERIES=QUERIES,
        REMEMBER=alone,
        num_stages=2,
    )
    if not alone:
        launch(
            remember,
            (batch * heads, triton.cdiv(steps, QUERIES)),
            *(*new, *places, *(stride for one in new for stride in strides_of(one)), steps, ring, 0),
            **sizes,
            QUERIES=QUERIES,
        )
    return out


@triton.jit
def _biased(queries, bias, valid):
    """Queries plus a bias, in their own dtype; zero for one that sees nothing."""
    return tl.where(valid[:, None], queries.to(tl.float32) + bias.to(tl.float32), 0).to(queries.dtype)


@triton.jit
def attend(
    q, k, v, cache_k, cache_v, out, by_distance, rows, position, length, query, first, end,
    table, content_bias, distance_bias, ring, distances, future,
    q_row, q_step, q_head, k_row, k_step, k_head, v_row, v_step, v_head,
    ck_slot, ck_head, ck_entry, cv_slot, cv_head, cv_entry, out_row, out_step, out_head,
    table_step, table_head, content_head, distance_head, asked, scale,
    HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr, QUERIES: tl.constexpr,
    REMEMBER: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head of one row.

    Scores of distances are few: all of them are computed first, and every key finds its own. Keys and what queries
    see are counted from the row's position on, so cached keys are negative.
    """
    row, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    slot, before, count = tl.load(rows + row), tl.load(position + row), tl.load(length + row).to(tl.int32)
    i, c = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES), tl.arange(0, WIDTH)
    here, inside = i < asked, c < DIM
    place = tl.load(query + row * asked + i, mask=here, other=0)
    begins = tl.load(first + row * asked + i, mask=here, other=0)
    ends = tl.load(end + row * asked + i, mask=here, other=0)
    valid = begins < ends
    oldest = tl.maximum(before - ring, 0)  # key in the ring
    begins = (tl.maximum(begins, oldest) - before).to(tl.int32)
    ends = (tl.maximum(tl.minimum(ends, before + count), oldest) - before).to(tl.int32)
    at = q + row * q_row + head * q_head
    asking = tl.load(at + i[:, None] * q_step + c, mask=valid[:, None] & inside, other=0)
    bias = tl.load(distance_bias + head * distance_head + c, mask=inside, other=0)
    by_far = _biased(asking, bias, valid)
    bias = tl.load(content_bias + head * content_head + c, mask=inside, other=0)
    queries = _biased(asking, bias, valid)

    wide = tl.num_programs(1) * QUERIES
    found = by_distance + (tl.program_id(0) * wide + i)[:, None].to(tl.int64) * distances
    for n_0 in range(0, distances, KEYS):
        n = n_0 + tl.arange(0, KEYS)
        mask = (n < distances)[None, :] & inside[:, None]
        far = tl.load(table + head * table_head + n[None, :] * table_step + c[:, None], mask=mask, other=0)
        scores = dot(by_far, far, tl.zeros([QUERIES, KEYS], tl.float32))
        tl.store(found + n, scores, mask=(n < distances)[None, :])
    tl.debug_barrier()
    nearest = (place - before).to(tl.int32) + future  # number of the distance to the row's first new key

    top = tl.full([QUERIES], LOWEST, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sums = tl.zeros([QUERIES, WIDTH], tl.float32)
    lowest = tl.min(tl.where(valid, begins, 1 << 30), 0)
    highest = tl.max(tl.where(valid, ends, -(1 << 30)), 0)
    newest = ((before - 1) % ring).to(tl.int32)
    k_at, v_at = cache_k + slot * ck_slot + head * ck_head, cache_v + slot * cv_slot + head * cv_head
    filled = tl.where(lowest < 0, tl.minimum(before, ring), 0).to(tl.int32)
    for entry_0 in range(0, filled, KEYS):
        entry = entry_0 + tl.arange(0, KEYS)
        there = entry < filled
        key = entry - newest - 1 - tl.where(entry > newest, ring, 0)
        keys = tl.load(k_at + entry[None, :] * ck_entry + c[:, None], mask=there[None, :] & inside[:, None], other=0)
        values = tl.load(v_at + entry[:, None] * cv_entry + c, mask=there[:, None] & inside, other=0)
        seen = there[None, :] & (key[None, :] >= begins[:, None]) & (key[None, :] < ends[:, None]) & valid[:, None]
        far = tl.load(found + (nearest[:, None] - key[None, :]), mask=seen, other=0)
        scores = (dot(queries, keys, tl.zeros([QUERIES, KEYS], tl.float32)) + far) * scale
        top, total, sums = absorb(tl.where(seen, scores, LOWEST), values, top, total, sums)

    k_at, v_at = k + row * k_row + head * k_head, v + row * v_row + head * v_head
    for key_0 in range(0, tl.minimum(highest, count), KEYS):
        key = key_0 + tl.arange(0, KEYS)
        there = key < count
        keys = tl.load(k_at + key[None, :] * k_step + c[:, None], mask=there[None, :] & inside[:, None], other=0)
        values = tl.load(v_at + key[:, None] * v_step + c, mask=there[:, None] & inside, other=0)
        seen = there[None, :] & (key[None, :] >= begins[:, None]) & (key[None, :] < ends[:, None]) & valid[:, None]
        far = tl.load(found + (nearest[:, None] - key[None, :]), mask=seen, other=0)
        scores = (dot(queries, keys, tl.zeros([QUERIES, KEYS], tl.float32)) + far) * scale
        top, total, sums = absorb(tl.where(seen, scores, LOWEST), values, top, total, sums)

    result = tl.where((valid & (top > LOWEST))[:, None], sums / total[:, None], 0)
    at = out + row * out_row + head * out_head
    tl.store(at + i[:, None] * out_step + c, result.to(out.dtype.element_ty), mask=here[:, None] & inside)
    if REMEMBER:
        tl.debug_barrier()  # all of the old entries are read
        remember_steps(
            k + row * k_row + head * k_head, v + row * v_row + head * v_head, k_step, v_step,
            cache_k + slot * ck_slot + head * ck_head, cache_v + slot * cv_slot + head * cv_head, ck_entry, cv_entry,
            before, count, tl.arange(0, QUERIES), ring, 0, DIM, WIDTH,
        )  # fmt: skip
