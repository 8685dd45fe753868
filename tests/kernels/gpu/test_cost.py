"""Bytes and operations of calls, against counts made in another way."""

from __future__ import annotations

import pytest
import torch

from loquent.kernels.batched_lora import AdapterRows, LoraPool
from loquent.kernels.cached_attention import attention_mask, ring_contents
from loquent.kernels.gpu import cost
from loquent.kernels.gpu.cost import DEVICES, Cost, cost_of
from loquent.kernels.registry import operations


def test_every_kernel_has_a_cost() -> None:
    written = {name for name, operation in operations().items() if "triton" in operation.implementations}
    assert set(cost._COSTS) == written


def test_a_floor_is_the_longer_of_two_times() -> None:
    rates = DEVICES["H200"]
    assert Cost(48, 0, torch.float32).floor(rates) == pytest.approx(1e-11)
    assert Cost(0, 67, torch.float32).floor(rates) == pytest.approx(1e-12)
    assert Cost(0, 989, torch.bfloat16).floor(rates) == pytest.approx(1e-12)
    assert Cost(48, 1979, torch.int8).floor(rates) == pytest.approx(1e-11)


def test_a_linear_layer_reads_its_weight_once() -> None:
    x, weight, bias = torch.zeros(3, 2, 8).half(), torch.zeros(5, 8).half(), torch.zeros(5).half()
    assert cost_of("linear", x, weight, bias, "none", None, 1.0) == (2 * (48 + 40 + 5 + 30), 2 * 6 * 40, torch.float16)
    found = cost_of("linear_argmax", x, weight, bias)
    assert found == (2 * (48 + 40 + 5) + 6 * (8 + 4), 2 * 6 * 40, torch.float16)


@pytest.mark.parametrize(("block", "left", "sinks"), [(1, None, 0), (3, 6, 2), (2, 0, 0)])
def test_attention_counts_what_its_mask_lets_through(block: int, left: int | None, sinks: int) -> None:
    position, length, ring = torch.tensor([0, 6, 18]), torch.tensor([4, 0, 6]), 40
    q, caches = torch.zeros(3, 6, 2, 16), torch.zeros(2, 3, 2, ring, 16)
    found = cost_of("cached_attention", q, q, q, *caches, torch.arange(3), position, length, block, left, sinks)

    step = torch.arange(6)
    valid = step < length[:, None]
    query = position[:, None] + step
    key = torch.cat([ring_contents(position, ring, sinks), torch.where(valid, query, -1)], 1)
    mask = attention_mask(query, key, block, left, sinks) & valid[..., None]
    assert found.operations == 4 * 32 * int(mask.sum())
    read = int(mask[:, :, :ring].any(1).sum())
    assert found.bytes == 4 * (32 * (5 * 10 + 2 * read) + q.numel())


def test_rows_without_an_adapter_cost_nothing() -> None:
    pool, x = LoraPool.empty(3, 8, 16, 4, torch.zeros(0)), torch.zeros(3, 2, 8)
    rows = AdapterRows.of(torch.tensor([-1, 2, 2]))
    found = cost_of("batched_lora", torch.zeros(3, 2, 4), x, pool, rows)
    assert found == (4 * (4 * (8 + 2 * 4) + 16 * (8 + 4)), 2 * 4 * 16 * (8 + 4), torch.float32)
