"""Relative attention: both implementations against softmax over what the definition says is seen."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.kernels.registry import use_backend
from loquent.kernels.relative_attention import relative_attention

BACKENDS = ["reference", "numba"]


@st.composite
def plans(draw):
    """Shape, and for each row the lengths of successive calls; a call may bring more keys than the ring holds."""
    ring = draw(st.sampled_from([1, 5, 12, 70]))
    dim = draw(st.sampled_from([8, 18, 36, 64]))
    longest = draw(st.sampled_from([2, 14, 60]))
    rows = draw(st.lists(st.lists(st.integers(0, longest), min_size=3, max_size=3), min_size=1, max_size=3))
    return ring, dim, rows


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(plan=plans(), asked=st.integers(0, 20), seed=st.integers(0, 1000))
def test_it_sees_what_its_definition_says(backend, plan, asked, seed):
    ring, dim, rows = plan
    torch.manual_seed(seed)
    batch, heads, slots = len(rows), 2, len(rows) + 2
    total = max(sum(lengths) for lengths in rows)
    past, future = total + 2, 3
    k, v = torch.randn(2, batch, total, heads, dim)
    table, biases = torch.randn(past + future + 1, heads, dim), torch.randn(2, heads, dim)
    slot = torch.randperm(slots)[:batch]
    caches = torch.randn(2, slots, heads, ring, dim)
    untouched = caches.clone()

    position = torch.zeros(batch, dtype=torch.long)
    for turn in range(3):
        length = torch.tensor([lengths[turn] for lengths in rows])
        after = position + length
        new = torch.full((2, batch, int(length.max()) + seed % 2, heads, dim), math.nan)
        for row in range(batch):
            for part, whole in zip(new, (k, v), strict=True):
                part[row, : length[row]] = whole[row, position[row] : after[row]]
        # Queries of any steps, in order half of the time, each with its own span of keys that are still there.
        oldest = (position - ring).clamp(min=0)
        place = after[:, None] - torch.arange(asked).flip(0) - 1 + seed % 3
        if seed % 2:
            place = oldest[:, None] + (torch.rand(batch, asked) * (after - oldest + 2)[:, None]).long()
        place = place.maximum(oldest[:, None] - 2)
        bounds = oldest[:, None] + (torch.rand(2, batch, asked) * (after - oldest + 1)[:, None]).long()
        first, end = bounds[0].minimum(bounds[1]), bounds[0].maximum(bounds[1])
        first, end = first.maximum(place - past), end.minimum(place + future + 1)
        q = torch.randn(batch, asked, heads, dim)
        q[first >= end] = math.nan
        with use_backend(backend):
            out = relative_attention(
                q, *new, *caches, slot, position, length,
                query=place, first=first, end=end, table=table, future=future,
                content_bias=biases[0], distance_bias=biases[1],
            )  # fmt: skip
        assert not out[first >= end].any()
        for row, i in torch.nonzero(first < end).tolist()[:: max(asked * batch // 8, 1)]:
            seen = torch.arange(int(first[row, i]), int(end[row, i]))
            distances = table[place[row, i] - seen + future]
            scores = ((q[row, i] + biases[0]) * k[row, seen] + (q[row, i] + biases[1]) * distances).sum(-1)
            weights = (scores / math.sqrt(dim)).softmax(0)
            expected = (weights[:, :, None] * v[row, seen]).sum(0)
            torch.testing.assert_close(out[row, i], expected, rtol=1e-4, atol=1e-4)
        position = after

    for row, count in enumerate(position.tolist()):
        kept = torch.arange(max(0, count - ring), count)
        for cache, whole in zip(caches, (k, v), strict=True):
            assert torch.equal(cache[slot[row]][:, kept % ring], whole[row, kept].transpose(0, 1))
            untouched[:, slot[row]] = 0
    others = [s for s in range(slots) if s not in slot.tolist()]
    assert torch.equal(caches[:, others], untouched[:, others])


def test_views_of_a_joint_projection_are_read_in_place():
    joint, caches = torch.randn(2, 7, 3, 2, 16), torch.randn(2, 2, 2, 10, 16)
    table = torch.randn(2, 12, 16).transpose(0, 1)
    rows, position, length = torch.arange(2), torch.tensor([0, 3]), torch.tensor([7, 4])
    query = position[:, None] + torch.arange(7)
    first, end = (query - 9).clamp(min=0), torch.where(torch.arange(7) < length[:, None], query + 1, 0)
    results = []
    for backend in BACKENDS:
        pool = caches.clone()
        with use_backend(backend):
            out = relative_attention(
                *joint.unbind(2), *pool, rows, position, length,
                query=query, first=first, end=end, table=table, future=2,
                content_bias=joint[0, 0, 0], distance_bias=joint[0, 0, 1],
            )  # fmt: skip
        results.append((out, pool))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    assert torch.equal(results[0][1], results[1][1])


def test_a_gradient_reaches_all_but_the_cache():
    inputs = [torch.randn(1, 2, 1, 8, requires_grad=True) for _ in range(3)]
    table, u, v = torch.randn(4, 1, 8, requires_grad=True), *torch.randn(2, 1, 8).requires_grad_().unbind(0)
    caches = torch.zeros(2, 1, 1, 4, 8)
    zero, query = torch.zeros(1, dtype=torch.long), torch.arange(2)[None]
    relative_attention(
        *inputs, *caches, zero, zero, zero + 2,
        query=query, first=query * 0, end=query + 1, table=table, future=0, content_bias=u, distance_bias=v,
    ).sum().backward()  # fmt: skip
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (*inputs, table))
    assert not caches.requires_grad
