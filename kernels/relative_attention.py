"""Self-attention with relative positions over a ring of cached keys and values; each query has its own span of keys."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.cached_attention import remember, ring_contents
from loquent.kernels.registry import LANES, Operation


def relative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    rows: Tensor,
    position: Tensor,
    length: Tensor,
    *,
    query: Tensor,
    first: Tensor,
    end: Tensor,
    table: Tensor,
    future: int,
    content_bias: Tensor,
    distance_bias: Tensor,
) -> Tensor:
    """Remember the new keys and values of B streams, and attend to them and to the cached ones.

    Query i, which stands at step p = query[b, i] of its stream, sees the keys j with first[b, i] ≤ j < end[b, i]::

        out[i] = Σ_j softmax_j(((q_i + u) · k_j + (q_i + v) · r_{p-j}) / √D) v_j

    Key j lives in entry j mod R of its ring. Queries and new keys need not be of the same steps, nor equally many: a
    query may wait for keys that come after it.

    Args:
        q: (B, Q, H, D) queries.
        k, v: (B, T, H, D) new keys and values; what lies beyond a row's length is ignored.
        cache_k, cache_v: (S, H, R, D) pool of rings, updated in place; they must hold every key that is still seen.
        rows: (B,) int64, each row's slot in the pool; no slot may occur twice.
        position: (B,) int64, keys that the stream has brought before.
        length: (B,) int64, valid new keys of each row, 0 … T.
        query, first, end: (B, Q) int64; a query with first ≥ end sees nothing and gives zero.
        table: (N, H, D), r of the distances -future … N - 1 - future, which every query must keep to.
        content_bias, distance_bias: (H, D), u and v.

    Returns:
        (B, Q, H, D).

    Source: Transformer-XL, arXiv 1901.02860, section 3.3.
    """
    tensors = q, k, v, cache_k, cache_v, table, content_bias, distance_bias
    run = RELATIVE_ATTENTION.choose(*tensors)
    return run(
        q, k, v, cache_k, cache_v, rows, position, length, query, first, end, table, future, content_bias, distance_bias
    )


def _reference(
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
    offset = torch.arange(k.shape[1], device=k.device)
    valid = offset < length[:, None]
    at = torch.cat(
        [ring_contents(position, cache_k.shape[2], 0), torch.where(valid, position[:, None] + offset, -1)], 1
    )
    # Whatever lies beyond a row's length may be NaN, which a weight of zero would not silence.
    k, v = (torch.where(valid[:, :, None, None], x, 0) for x in (k, v))
    keys = torch.cat([cache_k[rows], k.transpose(1, 2)], dim=2)
    values = torch.cat([cache_v[rows], v.transpose(1, 2)], dim=2)

    seeing = first < end
    q = torch.where(seeing[:, :, None, None], q, 0)
    by_distance = torch.einsum("bqhd,nhd->bhqn", q + distance_bias, table)
    index = (query[:, :, None] - at[:, None, :] + future).clamp(0, table.shape[0] - 1)
    scores = by_distance.gather(3, index[:, None].expand(-1, q.shape[2], -1, -1)) * q.shape[-1] ** -0.5
    key = at[:, None, :]
    seen = (key >= first[:, :, None]) & (key < end[:, :, None]) & (key >= 0) | ~seeing[:, :, None]
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    out = F.scaled_dot_product_attention((q + content_bias).transpose(1, 2), keys, values, scores).transpose(1, 2)
    remember(cache_k, k, rows, position, length)
    remember(cache_v, v, rows, position, length)
    return torch.where(seeing[:, :, None, None], out, 0)


def _numba(
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
    if q.shape[-1] < LANES:
        seen = query, first, end, table, future, content_bias, distance_bias
        return _reference(q, k, v, cache_k, cache_v, rows, position, length, *seen)
    from loquent.kernels.cpu.runtime import fields_of, kernel, run

    batch, asked, heads, dim = q.shape
    ring, distances = cache_k.shape[2], table.shape[0]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    places = [place.contiguous() for place in (rows, position, length, query, first, end)]
    run(
        kernel("relative_attention", "relative_attention"),
        batch * heads,
        3 * batch * asked * heads * dim * (ring + k.shape[1]),
        *(asked, heads, dim, ring, distances, future),
        *(place.data_ptr() for place in places),
        *(field for tensor in (q, k, v, out, cache_k, cache_v) for field in fields_of(tensor)),
        *(field for tensor in (table, content_bias, distance_bias) for field in fields_of(tensor)),
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
    query: Tensor,
    first: Tensor,
    end: Tensor,
    table: Tensor,
    future: int,
    content_bias: Tensor,
    distance_bias: Tensor,
) -> Tensor:
    from loquent.kernels.gpu.relative_attention import relative_attention

    seen = query, first, end, table, future, content_bias, distance_bias
    return relative_attention(q, k, v, cache_k, cache_v, rows, position, length, *seen)


RELATIVE_ATTENTION = Operation("relative_attention", reference=_reference, numba=_numba, triton=_triton)
