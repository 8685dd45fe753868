"""Attention over keys that are all there: a whole input, or cached encoder frames that several streams may share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.registry import LANES, Operation

STRETCH = 256  # queries that a core takes at a time


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend from every query to every key, or those that it sees::

        out[b, t, h] = Σ_j softmax_j(q[b, t, h] · k[b, j, h] / √D) v[b, j, h]

    Args:
        q: (B, T, H, D) queries.
        k, v: (B, N, H, D) keys and values.
        mask: (T, N) bool, which keys a query sees; with one, torch computes it.

    Returns:
        (B, T, H, D).
    """
    return ATTENTION.choose(q, k, v)(q, k, v, mask)


def cross_attention(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, frames: Tensor, *, heads: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Attend from B rows of queries to the first frames[b] keys of slot rows[b]::

        w[b, h, t, j] = softmax_j<frames[b] (q[b, t, h] · k[rows[b], h, j] / √D)
        out[b, t, h]  = Σ_j w[b, h, t, j] v[rows[b], h, j]

    Args:
        q: (B, T, H, D) queries.
        cache_k, cache_v: (S, H, R, D) pool of keys and values, only read.
        rows: (B,) int64, each row's slot; rows may share one (the hypotheses of a beam do).
        frames: (B,) int64, valid keys of each row, 0 … R.
        heads: (N,) int64, heads whose weights are wanted too, for alignment.

    Returns:
        (B, T, H, D), zero for a row without frames; and, given heads, their w: (B, N, T, R), zero from frames[b] on.
    """
    run = CROSS_ATTENTION.choose(q, cache_k, cache_v)
    return run(q, cache_k, cache_v, rows, frames, heads)


def _attention_reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    # Contiguous heads: torch's attention on a CPU is faster with them by more than the copies cost.
    q, k, v = (one.transpose(1, 2).contiguous() for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)


def _attention_numba(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None or q.shape[-1] < LANES:
        return _attention_reference(q, k, v, mask)
    every = torch.arange(k.shape[0])
    return _numba(q, k.transpose(1, 2), v.transpose(1, 2), every, torch.full_like(every, k.shape[1]), None)[0]


def _reference(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    k, v, q = cache_k[rows], cache_v[rows], q.transpose(1, 2)
    valid = (torch.arange(k.shape[2], device=q.device) < frames[:, None])[:, None, None]
    some = (frames > 0)[:, None, None, None]
    out = torch.where(some, F.scaled_dot_product_attention(q, k, v, valid), 0).transpose(1, 2)
    if heads is None:
        return out, None
    scores = (q[:, heads] @ k[:, heads].transpose(2, 3)).float() * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~valid, -torch.inf).softmax(-1)
    return out, torch.where(some, weights, 0)


def _numba(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if q.shape[-1] < LANES:
        return _reference(q, cache_k, cache_v, rows, frames, heads)
    from loquent.kernels.cpu.runtime import fields_of, kernel, run

    batch, steps, count, dim = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    wanted = 0 if heads is None else len(heads)
    weights = q.new_zeros(batch, wanted, steps, cache_k.shape[2])
    rows, frames = rows.contiguous(), frames.contiguous()
    names = rows if heads is None else heads.contiguous()
    stretches = max(-(-steps // STRETCH), 1)
    run(
        kernel("attention", "cross_attention"),
        batch * count * stretches,
        2 * batch * steps * count * dim * cache_k.shape[2],
        *(steps, count, dim, wanted, rows.data_ptr(), frames.data_ptr(), names.data_ptr()),
        *(field for tensor in (q, out, cache_k, cache_v, weights) for field in fields_of(tensor)),
        *(STRETCH, stretches, batch),
    )
    return out, None if heads is None else weights


def _triton(
    q: Tensor, cache_k: Tensor, cache_v: Tensor, rows: Tensor, frames: Tensor, heads: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    from loquent.kernels.gpu.attention import cross_attention

    return cross_attention(q, cache_k, cache_v, rows, frames, heads)


ATTENTION = Operation("attention", reference=_attention_reference, numba=_attention_numba)
CROSS_ATTENTION = Operation("cross_attention", reference=_reference, numba=_numba, triton=_triton)
