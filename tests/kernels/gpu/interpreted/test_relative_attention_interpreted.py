"""Relative attention in the interpreter, against the reference."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.kernels.relative_attention import relative_attention


@pytest.mark.parametrize(("steps", "asked", "ring", "dim"), [(2, 2, 12, 16), (14, 14, 70, 36), (20, 18, 9, 16)])
def test_queries_see_their_spans(check, dtype, steps, asked, ring, dim):
    heads, past, future = 2, ring + steps, 3
    position, length = torch.tensor([0, 5, 1000, 1 << 40]), torch.tensor([steps, 1, 0, steps])
    after, oldest = position + length, (position - ring).clamp(min=0)
    q = torch.randn(4, asked, heads, dim)
    k, v = torch.randn(2, 4, steps, heads, dim)
    for row, count in enumerate(length.tolist()):
        k[row, count:] = v[row, count:] = math.nan
    query = (after[:, None] - torch.arange(asked).flip(0)).maximum(oldest[:, None])
    bounds = oldest[:, None] + (torch.rand(2, 4, asked) * (after - oldest + 1)[:, None]).long()
    first, end = bounds[0].minimum(bounds[1]), bounds[0].maximum(bounds[1])
    first, end = first.maximum(query - past), end.minimum(query + future + 1)
    q[first >= end] = math.nan
    table, (content, distance) = torch.randn(past + future + 1, heads, dim), torch.randn(2, heads, dim)
    caches = torch.randn(2, 5, heads, ring, dim)
    rows = torch.tensor([4, 2, 3, 0])

    def run(q, k, v, cache_k, cache_v, table, content, distance):
        return relative_attention(
            *(q, k, v, cache_k, cache_v, rows, position, length),
            query=query,
            first=first,
            end=end,
            table=table,
            future=future,
            content_bias=content,
            distance_bias=distance,
        )

    tensors = q, k, v, *caches, table, content, distance
    got = check(run, *(one.to(dtype) for one in tensors), tolerance=3)
    assert not got[0][first >= end].any()
