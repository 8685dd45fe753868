"""Cached attention and cross-attention: both implementations against softmax over what the definition says is seen."""

import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.kernels.cached_attention import cached_attention
from loquent.kernels.cross_attention import STRETCH, attention, cross_attention
from loquent.kernels.registry import use_backend

BACKENDS = ["reference", "numba"]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query (D,) over keys and values (N, D)."""
    return (k @ q / math.sqrt(q.shape[0])).softmax(0) @ v


def entry_of(key: int, ring: int, sinks: int) -> int:
    """Where a ring keeps a key."""
    return key if key < sinks else sinks + (key - sinks) % (ring - sinks)


@st.composite
def streams(draw):
    """Options of the attention and, per row, the lengths of successive chunks: whole blocks but for the last one."""
    block = draw(st.integers(1, 4))
    sinks = draw(st.integers(0, 5))
    left = draw(st.none() | st.integers(0, 60))
    longest = draw(st.sampled_from([12, 40, 120]))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        lengths = [block * n for n in draw(st.lists(st.integers(0, longest // block), min_size=1, max_size=4))]
        lengths[-1] += draw(st.integers(0, block - 1))
        rows.append(lengths)
    need = max(sum(lengths) for lengths in rows) if left is None else left + sinks
    ring = max(need, sinks + 1) + draw(st.integers(0, 3))
    return block, left, sinks, ring, rows


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(plan=streams(), seed=st.integers(0, 1000))
def test_cached_attention_sees_what_its_definition_says(backend, plan, seed):
    block, left, sinks, ring, rows = plan
    generator = torch.Generator().manual_seed(seed)
    heads, dim, slots = 2, (16, 19)[seed % 2], len(rows) + 2
    total = max(sum(lengths) for lengths in rows)
    q, k, v = torch.randn(3, len(rows), total, heads, dim, generator=generator)
    slot = torch.randperm(slots, generator=generator)[: len(rows)]
    cache_k, cache_v = torch.randn(2, slots, heads, ring, dim, generator=generator)
    cache_k[slot] = cache_v[slot] = math.nan  # what another stream has left
    others = [s for s in range(slots) if s not in slot.tolist()]
    untouched = cache_k[others].clone(), cache_v[others].clone()

    position = torch.zeros(len(rows), dtype=torch.long)
    for turn in range(max(len(lengths) for lengths in rows)):
        length = torch.tensor([lengths[turn] if turn < len(lengths) else 0 for lengths in rows])
        steps = int(length.max()) + seed % 2
        chunk = torch.full((3, len(rows), steps, heads, dim), math.nan)
        for row, (first, count) in enumerate(zip(position.tolist(), length.tolist(), strict=True)):
            for part, whole in zip(chunk, (q, k, v), strict=True):
                part[row, :count] = whole[row, first : first + count]
        with use_backend(backend):
            out = cached_attention(
                *chunk, cache_k, cache_v, slot, position, length, block=block, left=left, sinks=sinks
            )
        for row, (first, count) in enumerate(zip(position.tolist(), length.tolist(), strict=True)):
            assert not out[row, count:].any()
            for step in {0, count // 2, count - 1} if count else ():
                p = first + step
                start = p // block * block
                seen = [
                    j
                    for j in range(min(start + block, first + count))
                    if left is None or j >= start - left or j < sinks
                ]
                for head in range(heads):
                    expected = attend(q[row, p, head], k[row, seen, head], v[row, seen, head])
                    torch.testing.assert_close(out[row, step, head], expected, rtol=1e-4, atol=1e-5)
        position += length

    for row, count in enumerate(position.tolist()):
        kept = {entry_of(j, ring, sinks): j for j in range(count)}  # later keys overwrite earlier ones
        for cache, new in ((cache_k, k), (cache_v, v)):
            assert torch.equal(cache[slot[row]][:, list(kept)], new[row, list(kept.values())].transpose(0, 1))
    assert torch.equal(cache_k[others], untouched[0])
    assert torch.equal(cache_v[others], untouched[1])


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 130)), min_size=1, max_size=5),
    steps=st.integers(0, 35) | st.just(STRETCH + 40),
    heads=st.lists(st.integers(0, 2), max_size=3),
    dim=st.sampled_from([8, 24, 36, 64, 80]),
)
def test_cross_attention_agrees_with_the_reference(rows, steps, heads, dim):
    q, cache_k, cache_v = torch.randn(len(rows), steps, 3, dim), *torch.randn(2, 4, 3, 130, dim)
    slot, frames = (torch.tensor(column) for column in zip(*rows, strict=True))
    names = torch.tensor(heads, dtype=torch.long) if heads else None
    with use_backend("reference"):
        expected, expected_weights = cross_attention(q, cache_k, cache_v, slot, frames, heads=names)
    with use_backend("numba"):
        out, weights = cross_attention(q, cache_k, cache_v, slot, frames, heads=names)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    if names is None:
        assert weights is None
    else:
        torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_a_whole_input_is_softmax_over_what_is_seen(backend, masked):
    q, k, v = torch.randn(2, 40, 3, 16), torch.randn(2, 70, 3, 16), torch.randn(2, 70, 3, 16)
    mask = torch.rand(40, 70) < 0.5 if masked else None
    with use_backend(backend):
        out = attention(q, k, v, mask)
    seen = slice(None) if mask is None else mask[33]
    torch.testing.assert_close(out[1, 33, 2], attend(q[1, 33, 2], k[1, seen, 2], v[1, seen, 2]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_cross_attention_is_softmax_over_the_valid_frames(backend):
    q, k, v = torch.randn(2, 3, 2, 16), torch.randn(3, 2, 50, 16), torch.randn(3, 2, 50, 16)
    with use_backend(backend):
        out, weights = cross_attention(q, k, v, torch.tensor([2, 2]), torch.tensor([50, 7]), heads=torch.tensor([1]))
    torch.testing.assert_close(out[1, 2, 0], attend(q[1, 2, 0], k[2, 0, :7], v[2, 0, :7]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 3))
    assert not weights[1, :, :, 7:].any()
    torch.testing.assert_close(weights[0, 0] @ v[2, 1], out[0, :, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_of_any_size_are_weighed(backend):
    q, k, v = torch.full((1, 1, 1, 8), 100.0), torch.randn(1, 1, 100, 8), torch.randn(1, 1, 100, 8)
    k[0, 0, 60] = 40
    with use_backend(backend):
        out, _ = cross_attention(q, k, v, torch.tensor([0]), torch.tensor([100]))
        low, _ = cross_attention(q, -k.abs(), v, torch.tensor([0]), torch.tensor([100]))
    torch.testing.assert_close(out[0, 0, 0], v[0, 0, 60])
    torch.testing.assert_close(low[0, 0, 0], attend(q[0, 0, 0], -k[0, 0].abs(), v[0, 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_single(dtype):
    q, k, v = torch.randn(3, 2, 5, 2, 16)
    rows, position, length = torch.tensor([1, 0]), torch.tensor([9, 0]), torch.tensor([5, 2])
    caches = torch.randn(2, 2, 2, 8, 16)
    single = cached_attention(q, k, v, *caches.clone(), rows, position, length, left=6)
    half = cached_attention(*(x.to(dtype) for x in (q, k, v, *caches)), rows, position, length, left=6)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), single, rtol=0.05, atol=0.05)


def test_a_gradient_reaches_the_queries_and_stays_out_of_the_cache():
    q, k, v = (torch.randn(1, 2, 1, 8, requires_grad=True) for _ in range(3))
    cache_k, cache_v = torch.zeros(2, 1, 1, 4, 8)
    zero = torch.zeros(1, dtype=torch.long)
    cached_attention(q, k, v, cache_k, cache_v, zero, zero, zero + 2).sum().backward()
    assert q.grad is not None
    assert not cache_k.requires_grad


def test_views_of_a_joint_projection_are_read_in_place():
    joint = torch.randn(2, 7, 3, 2, 16)
    rows, position, length = torch.arange(2), torch.tensor([0, 3]), torch.tensor([7, 4])
    caches = torch.randn(2, 2, 2, 10, 16)
    mine, theirs = caches.clone(), caches.clone()
    out = cached_attention(*joint.unbind(2), *mine, rows, position, length)
    with use_backend("reference"):
        expected = cached_attention(*joint.unbind(2), *theirs, rows, position, length)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(mine, theirs)


def test_impossible_rings_are_refused():
    x, cache = torch.zeros(1, 1, 1, 8), torch.zeros(1, 1, 4, 8)
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="sinks=4"):
        cached_attention(x, x, x, cache, cache, one, one, one, sinks=4)
    with pytest.raises(ValueError, match="cannot hold left=4"):
        cached_attention(x, x, x, cache, cache, one, one, one, left=4, sinks=1)
    with pytest.raises(ValueError, match="block=0"):
        cached_attention(x, x, x, cache, cache, one, one, one, block=0)


def test_threads_may_run_kernels_at_once():
    """Every thread has its own rows of one pool; each must find the result it finds alone."""
    workers, turns = 4, 20
    q, k, v = torch.randn(3, workers, turns, 3, 4, 16)
    frames = torch.tensor([300])
    caches = torch.zeros(2, workers, 4, 40, 16)
    encoded = torch.randn(2, workers, 4, 300, 16)

    def run(worker: int, caches: Tensor, results: list) -> None:
        row = torch.tensor([worker])
        for turn in range(turns):
            chunk = (x[worker, turn : turn + 1] for x in (q, k, v))
            position, length = torch.tensor([3 * turn]), torch.tensor([3])
            out = cached_attention(*chunk, *caches, row, position, length, left=30)
            results.append((out, cross_attention(out, *encoded, row, frames)[0]))

    alone: list[list] = [[] for _ in range(workers)]
    for worker in range(workers):
        run(worker, caches.clone(), alone[worker])
    together: list[list] = [[] for _ in range(workers)]
    threads = [threading.Thread(target=run, args=(worker, caches, together[worker])) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, expected in zip(together, alone, strict=True):
        assert len(mine) == turns
        for got, want in zip(mine, expected, strict=True):
            assert torch.equal(got[0], want[0])
            assert torch.equal(got[1], want[1])


@pytest.mark.parametrize("heads", [None, [1]])
def test_rows_that_share_their_frames_are_the_same_bits_as_alone(heads):
    """Keys and values are then read once for a few of the rows; they may also lie apart, or read less of a slot."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(14, 1, 2, 64, generator=generator)
    k, v = torch.randn(2, 3, 2, 70, 64, generator=generator)
    rows = torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 2, 0, 0, 0, 1, 1])
    frames = torch.tensor([70] * 9 + [61, 61, 0, 70, 7])
    wanted = None if heads is None else torch.tensor(heads)
    whole, weights = cross_attention(q, k, v, rows, frames, heads=wanted)
    for row in range(14):
        one = slice(row, row + 1)
        alone, its = cross_attention(q[one], k, v, rows[one], frames[one], heads=wanted)
        assert torch.equal(whole[one], alone)
        assert heads is None or torch.equal(weights[one], its)
