"""Self-attention of new steps over a ring of cached keys and values, updated in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.registry import LANES, Operation


def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    rows: Tensor,
    position: Tensor,
    length: Tensor,
    *,
    block: int = 1,
    left: int | None = None,
    sinks: int = 0,
) -> Tensor:
    """Attend from the new steps of B streams to their past and to each other, then remember the new keys and values.

    Row b brings steps p = position[b] … position[b] + length[b] - 1 of its stream::

        out[p] = Σ_j softmax_j(q[p] · k[j] / √D) v[j]   over the keys j < position[b] + length[b] with
                 j < (⌊p / block⌋ + 1) · block   and   (j ≥ ⌊p / block⌋ · block - left   or   j < sinks)

    Key j lives in entry j of its ring for j < sinks and in entry sinks + (j - sinks) mod (R - sinks) otherwise, so the
    first ``sinks`` keys are kept for ever. The result does not depend on how a stream is cut into calls provided that
    the cuts fall on multiples of ``block`` and R ≥ left + sinks. A call may bring more than R steps.

    Args:
        q, k, v: (B, T, H, D) new queries, keys and values; what lies beyond a row's length is ignored.
        cache_k, cache_v: (S, H, R, D) pool of rings, updated in place.
        rows: (B,) int64, each row's slot in the pool; no slot may occur twice.
        position: (B,) int64, steps that the stream has brought before.
        length: (B,) int64, valid steps of each row, 0 … T.
        block: steps that see each other.
        left: steps before its own block that a step sees; None for every key the ring holds.
        sinks: first steps of the stream that every step sees ("attention sinks").

    Returns:
        (B, T, H, D), zero beyond a row's length.

    Source: block-causal attention with limited left context as in arXiv 2312.17279; sinks as in arXiv 2309.17453.
    """
    ring = cache_k.shape[2]
    if block < 1 or not 0 <= sinks < ring:
        raise ValueError(f"expected block >= 1 and 0 <= sinks < ring of {ring}, got block={block}, sinks={sinks}")
    if left is not None and not 0 <= left <= ring - sinks:
        raise ValueError(f"a ring of {ring} entries with {sinks} sinks cannot hold left={left} steps")
    run = CACHED_ATTENTION.choose(q, k, v, cache_k, cache_v)
    return run(q, k, v, cache_k, cache_v, rows, position, length, block, left, sinks)


def ring_contents(position: Tensor, ring: int, sinks: int) -> Tensor:
    """Index of the key in each entry once ``position`` (B,) keys have come: (B, R), negative where there is none."""
    entry = torch.arange(ring, device=position.device)
    newest = position[:, None] - 1
    index = newest - (newest - entry) % (ring - sinks)
    index = torch.where(index < sinks, -1, index)
    return torch.where(entry < sinks, torch.where(entry <= newest, entry, -1), index)


def attention_mask(query: Tensor, key: Tensor, block: int, left: int | None, sinks: int) -> Tensor:
    """Which keys a step sees: indices (..., T) and (..., N) to (..., T, N) bool; a negative key does not exist."""
    start = (query - query % block)[..., None]
    key = key[..., None, :]
    seen = (key >= 0) & (key < start + block)
    return seen if left is None else seen & ((key >= start - left) | (key < sinks))


def remember(cache: Tensor, new: Tensor, rows: Tensor, position: Tensor, length: Tensor, sinks: int = 0) -> None:
    """Write a row's valid steps of ``new`` (B, T, H, D) into its ring of ``cache`` (S, H, R, D), in place."""
    if new.shape[1] == 0:
        return
    # Every entry takes the newest step that maps to it: no order of writes to depend on, and shapes stay static.
    source = ring_contents(position + length, cache.shape[2], sinks) - position[:, None]
    fresh = (source >= 0)[:, None, :, None]
    old = cache[rows]
    index = source.clamp(0, new.shape[1] - 1)[:, None, :, None].expand_as(old)
    cache[rows] = torch.where(fresh, new.detach().transpose(1, 2).gather(2, index), old)


def _reference(
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
    steps, ring = q.shape[1], cache_k.shape[2]
    offset = torch.arange(steps, device=q.device)
    valid = offset < length[:, None]
    query, held = position[:, None] + offset, ring_contents(position, ring, sinks)
    key = torch.cat([held, torch.where(valid, query, -1)], dim=1)

    # Whatever lies beyond a row's length, or in an entry without a key, may be NaN, which a weight of zero would not
    # silence.
    q, k, v = (torch.where(valid[:, :, None, None], x, 0) for x in (q, k, v))
    old_k, old_v = (torch.where((held >= 0)[:, None, :, None], cache[rows], 0) for cache in (cache_k, cache_v))
    keys = torch.cat([old_k, k.transpose(1, 2)], dim=2)
    values = torch.cat([old_v, v.transpose(1, 2)], dim=2)
    mask = attention_mask(query, key, block, left, sinks)[:, None]
    out = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, mask).transpose(1, 2)
    remember(cache_k, k, rows, position, length, sinks)
    remember(cache_v, v, rows, position, length, sinks)
    return torch.where(valid[:, :, None, None], out, 0)


def _numba(
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
    if q.shape[-1] < LANES:
        return _reference(q, k, v, cache_k, cache_v, rows, position, length, block, left, sinks)
    from loquent.kernels.cpu.runtime import fields_of, kernel, run

    batch, steps, heads, dim = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    rows, position, length = rows.contiguous(), position.contiguous(), length.contiguous()
    ring = cache_k.shape[2]
    run(
        kernel("attention", "self_attention"),
        batch * heads,
        2 * batch * steps * heads * dim * ring,
        *(steps, heads, dim, ring, block, -1 if left is None else left, sinks),
        *(rows.data_ptr(), position.data_ptr(), length.data_ptr()),
        *(field for tensor in (q, k, v, out, cache_k, cache_v) for field in fields_of(tensor)),
    )
    return out


def _triton(
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
    from loquent.kernels.gpu.attention import cached_attention

    return cached_attention(q, k, v, cache_k, cache_v, rows, position, length, block, left, sinks)


CACHED_ATTENTION = Operation("cached_attention", reference=_reference, numba=_numba, triton=_triton)
