"""Attention over a ring and over encoder frames, in the interpreter, against the references."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.kernels.cached_attention import cached_attention
from loquent.kernels.cross_attention import cross_attention
from loquent.kernels.gpu import attention as module

HEADS = 2


def ring_case(dtype, steps, ring, dim, lengths, positions):
    """New steps, NaN beyond their lengths, and a pool with one slot more than there are rows."""
    batch = len(lengths)
    q, k, v = torch.randn(3, batch, steps, HEADS, dim, dtype=dtype).unbind(0)
    length, position = torch.tensor(lengths), torch.tensor(positions)
    for row, count in enumerate(lengths):
        for one in (q, k, v):
            one[row, count:] = math.nan
    caches = torch.randn(2, batch + 1, HEADS, ring, dim, dtype=dtype)
    return q, k, v, *caches, torch.arange(batch, 0, -1), position, length


@pytest.mark.parametrize(
    ("block", "left", "sinks", "ring", "steps"),
    [(1, None, 0, 40, 3), (4, 12, 2, 20, 8), (1, 30, 0, 30, 20), (2, 8, 1, 70, 5), (3, 5, 4, 9, 18)],
)
def test_a_ring_is_read_and_written_as_the_reference_does(check, dtype, block, left, sinks, ring, steps):
    lengths = [steps, 0, block, steps - steps % block]
    positions = [0, 5, 7 * block, 100 * block]
    if left is None:
        positions = [0, 5, 7 * block, ring - steps]
    case = ring_case(dtype, steps, ring, (16, 36)[steps % 2], lengths, positions)

    def run(*tensors):
        return cached_attention(*tensors, block=block, left=left, sinks=sinks)

    check(run, *case)


@pytest.mark.parametrize("steps", [2, 17])
def test_stretches_of_a_long_ring_are_joined(check, dtype, monkeypatch, steps):
    monkeypatch.setattr(module, "STRETCH", 64)
    case = ring_case(dtype, steps, 150, 16, [steps, 1], [130, 0])
    check(lambda *tensors: cached_attention(*tensors, left=None), *case)
    case = ring_case(dtype, steps, 150, 16, [steps, 0], [1 << 40, 3])
    check(lambda *tensors: cached_attention(*tensors, left=120, sinks=3), *case)


def test_rows_without_steps_may_share_a_slot(check):
    *tensors, rows, position, length = ring_case(torch.float32, 3, 12, 16, [2, 0, 0], [4, 9, 9])
    rows = torch.tensor([1, 3, 3])
    got = check(lambda *tensors: cached_attention(*tensors, left=8), *tensors, rows, position, length)
    assert torch.equal(got[4][3], tensors[3][3])
    rows[1:] = 1  # that of the row that brings steps, which the reference has no order for
    shared = [one.clone() for one in tensors]
    from loquent.kernels.registry import use_backend

    with use_backend("triton"):
        out = cached_attention(*shared, rows, position, length, left=8)
    assert torch.equal(out, got[0])
    assert torch.equal(shared[3][1], got[4][1])


def test_views_of_a_joint_projection_are_read_in_place(check):
    joint = torch.randn(2, 7, 3, 2, 16)
    rows, position, length = torch.arange(2), torch.tensor([0, 3]), torch.tensor([7, 4])
    caches = torch.randn(2, 2, 2, 10, 16)

    def run(joint, *rest):
        return cached_attention(*joint.unbind(2), *rest)

    check(run, joint, *caches, rows, position, length)


@pytest.mark.parametrize(("steps", "heads"), [(1, None), (20, None), (2, [1, 0, 1]), (20, [1])])
def test_cross_attention_and_its_weights(check, dtype, monkeypatch, steps, heads):
    monkeypatch.setattr(module, "STRETCH", 64)
    q, k, v = torch.randn(4, steps, 2, 24), *torch.randn(2, 3, 2, 90, 24)
    rows, frames = torch.tensor([2, 0, 2, 1]), torch.tensor([90, 0, 7, 65])
    k[0] = v[0] = math.nan
    k[1, :, 65:] = v[1, :, 65:] = math.nan
    names = None if heads is None else torch.tensor(heads)

    def run(q, k, v):
        return cross_attention(q, k.nan_to_num(), v.nan_to_num(), rows, frames, heads=names)

    check(run, q.to(dtype), k.to(dtype), v.to(dtype))


def test_what_lies_beyond_the_frames_is_not_read():
    q, k, v = torch.randn(2, 3, 1, 16), torch.randn(2, 1, 20, 16), torch.randn(2, 1, 20, 16)
    k[:, :, 9:] = v[:, :, 9:] = math.nan
    out, weights = module.cross_attention(q, k, v, torch.tensor([1, 0]), torch.tensor([9, 0]), torch.tensor([0]))
    assert out[0].isfinite().all()
    assert not out[1].any()
    torch.testing.assert_close(weights.sum(-1), torch.tensor([[[1.0] * 3], [[0.0] * 3]]))


def test_scores_of_any_size_are_weighed(check):
    q, k, v = torch.full((1, 1, 1, 16), 100.0), torch.randn(1, 1, 100, 16), torch.randn(1, 1, 100, 16)
    k[0, 0, 60] = 40
    for keys in (k, -k.abs()):
        check(lambda q, k, v: cross_attention(q, k, v, torch.tensor([0]), torch.tensor([100])), q, keys, v)
