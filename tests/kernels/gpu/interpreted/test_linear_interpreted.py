"""Linear layers in the interpreter, against the references."""

from __future__ import annotations

import pytest
import torch

from loquent.kernels import linear as public
from loquent.kernels.batched_lora import AdapterRows, LoraPool, batched_lora
from loquent.kernels.gpu import linear as module
from loquent.kernels.int8_linear import Int8Weight, int8_linear, pack_int8


@pytest.mark.parametrize(("shape", "bias"), [((), True), ((3, 1), False), ((2, 9), True), ((70,), True), ((0,), True)])
def test_rows_few_and_many(check, dtype, monkeypatch, shape, bias):
    monkeypatch.setattr(public, "SMALL", 0)
    weight, offset = torch.randn(40, 150) / 12, torch.randn(40)

    def run(x, weight, offset):
        return public.linear(x[..., ::2], weight, offset if bias else None)

    check(run, torch.randn(*shape, 300).to(dtype), weight.to(dtype), offset.to(dtype))


@pytest.mark.parametrize("rows", [5, 70])
@pytest.mark.parametrize(("activation", "alpha"), [("none", 1.0), ("gelu", 1.0), ("silu", 0.5)])
def test_what_follows_a_layer(check, dtype, monkeypatch, rows, activation, alpha):
    monkeypatch.setattr(public, "SMALL", 0)
    tensors = torch.randn(rows, 50), torch.randn(20, 50) / 7, torch.randn(20), torch.randn(rows, 20)

    def run(x, weight, bias, residual):
        return public.linear(x, weight, bias, activation, residual, alpha)

    check(run, *(one.to(dtype) for one in tensors))


def test_a_row_is_the_same_bits_in_every_small_batch():
    x, weight = torch.randn(public.FEW_ON_GPU, 130), torch.randn(33, 130)
    alone = module.linear(x[7:8], weight, None)
    for rows in (8, 17, public.FEW_ON_GPU):
        assert torch.equal(module.linear(x[:rows], weight, None)[7:8], alone)


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 40, 70), (20, 70, 300), (0, 8, 8)])
def test_integers_are_added_exactly(check, rows, outputs, inputs):
    weight = pack_int8(torch.randn(outputs, inputs), torch.randn(outputs))
    weight = Int8Weight(weight.unpacked(), weight.scale, weight.bias, None)
    x = torch.randn(rows, inputs)
    x[:1] = 0
    check(lambda x: int8_linear(x, weight), x, tolerance=0.1)
    halves = (torch.arange(inputs) % 2 + 0.5) / 63  # of which an even and an odd one is rounded
    check(lambda x: int8_linear(x, weight), torch.cat([halves, torch.ones(1)])[-inputs:])


@pytest.mark.parametrize("steps", [1, 9, 40])
def test_every_row_has_its_own_adapter(check, dtype, steps):
    index = torch.tensor([2, -1, 0, 2, 1, 3])
    pool = LoraPool.empty(4, 80, 40, 100, torch.zeros(0))
    for slot, rank in ((0, 3), (2, 40), (3, 17)):
        pool.put(slot, torch.randn(rank, 80) / 9, torch.randn(100, rank), 1 / rank)
    x, y = torch.randn(6, steps, 160)[:, :, 40:120].to(dtype), torch.randn(6, steps, 100).to(dtype)

    def run(y, x, down, up):
        return batched_lora(y, x, LoraPool(down, up, pool.ranks), AdapterRows.of(index))

    check(run, y, x, pool.down.to(dtype), pool.up.to(dtype))


def test_tables_of_adapters_have_one_size_for_every_choice():
    sizes = set()
    for choice in ([0, 0, 0, 0], [0, 1, 2, 3], [-1, -1, 2, -1]):
        order, tiles = AdapterRows.of(torch.tensor(choice)).on_device(20, torch.device("cpu"))
        sizes.add((len(order), len(tiles)))
        assert tiles[:, 2].sum() == 20 * sum(one >= 0 for one in choice)
    assert len(sizes) == 1
