"""Adapters row by row: both implementations against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.kernels.batched_lora import AdapterRows, LoraPool, batched_lora
from loquent.kernels.registry import Backend, use_backend

Factors = tuple[Tensor, Tensor, float]
RANKS = (3, 8, 17, 1)


def adapters(inputs: int, outputs: int) -> tuple[LoraPool, list[Factors]]:
    """Four adapters of different ranks, and a slot without any between them."""
    draw = torch.Generator().manual_seed(inputs * 1000 + outputs)
    pool = LoraPool.empty(2, inputs, 4, outputs, torch.zeros(0)).resized(len(RANKS) + 1, max(RANKS))
    factors = [
        (torch.randn(rank, inputs, generator=draw), torch.randn(outputs, rank, generator=draw), 1.5 / rank)
        for rank in RANKS
    ]
    for slot, one in zip((0, 1, 3, 4), factors, strict=True):
        pool.put(slot, *one)
    factors.insert(2, (torch.zeros(1, inputs), torch.zeros(outputs, 1), 1.0))
    return pool, factors


def expected(y: Tensor, x: Tensor, factors: list[Factors], index: list[int]) -> Tensor:
    added = [scale * (x[row] @ a.T @ b.T) for row, (a, b, scale) in enumerate(factors[slot] for slot in index)]
    return torch.stack([y[row] + (part if index[row] >= 0 else 0) for row, part in enumerate(added)])


@pytest.mark.parametrize("backend", ["reference", "numba"])
@settings(max_examples=15, deadline=None)
@given(
    index=st.lists(st.integers(-1, len(RANKS)), min_size=1, max_size=12),
    steps=st.sampled_from([1, 2, 15, 70]),
    shape=st.sampled_from([(64, 64), (24, 96), (5, 8), (40, 13)]),
)
def test_every_row_has_its_own(backend: Backend, index: list[int], steps: int, shape: tuple[int, int]) -> None:
    pool, factors = adapters(*shape)
    draw = torch.Generator().manual_seed(steps)
    x = torch.randn(len(index), steps, shape[0], generator=draw)
    y = torch.randn(len(index), steps, shape[1], generator=draw)
    wanted = expected(y, x, factors, index)
    with use_backend(backend):
        result = batched_lora(y, x, pool, AdapterRows.of(torch.tensor(index)))
    assert result is y
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)


def test_a_row_is_the_same_in_every_batch() -> None:
    pool, _ = adapters(64, 64)
    x = torch.randn(50, 3, 64, generator=torch.Generator().manual_seed(1))
    index = torch.arange(50) % 6 - 1
    together = batched_lora(torch.zeros_like(x), x, pool, AdapterRows.of(index))
    for row in range(0, 50, 7):
        alone = torch.zeros(1, 3, 64)
        batched_lora(alone, x[row : row + 1], pool, AdapterRows.of(index[row : row + 1]))
        assert torch.equal(alone[0], together[row])


def test_inputs_and_outputs_may_be_views() -> None:
    pool, factors = adapters(64, 64)
    x, y = torch.randn(3, 2, 4, 192).unbind(1)
    y = y[:, :, 64:128]
    x = x[:, ::2, :64]
    y = y[:, 1::2]
    wanted = expected(y, x, factors, [4, 0, -1])
    batched_lora(y, x, pool, AdapterRows.of(torch.tensor([4, 0, -1])))
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)


def test_a_cleared_slot_changes_nothing_and_can_be_used_again() -> None:
    pool, factors = adapters(16, 16)
    x, rows = torch.randn(1, 1, 16), AdapterRows.of(torch.tensor([3]))
    pool.clear(3)
    assert not batched_lora(torch.zeros(1, 1, 16), x, pool, rows).any()
    pool.put(3, *factors[4])
    wanted = expected(torch.zeros(1, 1, 16), x, factors, [4])
    torch.testing.assert_close(batched_lora(torch.zeros(1, 1, 16), x, pool, rows), wanted, rtol=1e-4, atol=1e-4)


def test_tiles_hold_one_adapter_each_and_cover_all_rows() -> None:
    rows = AdapterRows.of(torch.tensor([2, -1, 0, 2, 2, -1, 0]))
    assert rows.order.tolist() == [2, 6, 0, 3, 4]
    assert rows.tiles(1).tolist() == [[0, 0, 2], [2, 2, 3]]
    tiles = rows.tiles(30)
    assert tiles[:, 2].max() <= 32
    assert tiles[tiles[:, 0] == 0, 2].sum() == 60
    assert tiles[tiles[:, 0] == 2, 2].sum() == 90
    assert tiles[1:, 1].tolist() == (tiles[:, 1] + tiles[:, 2])[:-1].tolist()
    assert AdapterRows.of(torch.tensor([-1, -1])).tiles(4).shape == (0, 3)
