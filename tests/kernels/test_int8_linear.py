from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loquent.kernels import int8_linear as module
from loquent.kernels.int8_linear import FINE_LEVELS, OUTPUTS, ROWS, Int8Weight, int8_linear, pack_int8

Norm = tuple[torch.Tensor, torch.Tensor]


def normalisation(inputs: int) -> Norm:
    weight, bias = torch.randn(2, inputs, generator=torch.Generator().manual_seed(inputs))
    return weight, bias


def layer(outputs: int, inputs: int, bias: bool = True) -> tuple[torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(outputs * 1000 + inputs)
    weight = torch.randn(outputs, inputs, generator=generator) * torch.rand(outputs, 1, generator=generator)
    return weight, torch.randn(outputs, generator=generator) if bias else None


def plain(weight: Int8Weight) -> Int8Weight:
    """The same weights without the CPU's own layout: they go through the reference."""
    return replace(weight, values=weight.unpacked(), packed=None)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 130), st.booleans(), st.floats(1e-3, 1e3))
def test_packed_product_is_the_reference(rows: int, outputs: int, inputs: int, bias: bool, size: float) -> None:
    packed = pack_int8(*layer(outputs, inputs, bias))
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)) * size
    torch.testing.assert_close(int8_linear(x, packed), int8_linear(x, plain(packed)), rtol=1e-5, atol=1e-5 * size)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 3, 5, 6, 8, 13, ROWS - 1, ROWS, ROWS + 1]),
    outputs=st.sampled_from([5, 32, 100]),
    inputs=st.sampled_from([4, 20, 30, 384]),
    normalised=st.booleans(),
    size=st.floats(1e-3, 1e3),
)
def test_normalisation_and_activation_are_the_reference(
    rows: int, outputs: int, inputs: int, normalised: bool, size: float
) -> None:
    packed = pack_int8(*layer(outputs, inputs), normalisation(inputs) if normalised else None)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)) * size
    y, expected = (int8_linear(x, one, "gelu") for one in (packed, plain(packed)))
    # A normalised number half-way between two integers may be rounded either way.
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=3e-2 * float(expected.abs().max()))
    assert (y - expected).norm() <= 2e-3 * expected.norm()


def test_normalisation_and_activation_are_close_to_those_in_float() -> None:
    weight, bias = layer(64, 384)
    norm = normalisation(384)
    x = torch.randn(2, 25, 384, generator=torch.Generator().manual_seed(0))
    exact = F.gelu(F.linear(F.layer_norm(x, (384,), *norm), weight, bias))
    assert (int8_linear(x, pack_int8(weight, bias, norm), "gelu") - exact).norm() < 0.02 * exact.norm()


def test_extreme_inputs_do_not_overflow_the_sums() -> None:
    packed = pack_int8(torch.ones(16, 1536))
    for x in (torch.ones(2, 1536), -torch.ones(2, 1536)):
        torch.testing.assert_close(int8_linear(x, packed), x.sum(1, keepdim=True).expand(2, 16))


def test_it_is_close_to_the_float_layer() -> None:
    weight, bias = layer(300, 384)
    x = torch.randn(50, 384, generator=torch.Generator().manual_seed(0))
    exact = F.linear(x, weight, bias)
    error = (int8_linear(x, pack_int8(weight, bias)) - exact).norm() / exact.norm()
    assert error < 0.02


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2 * ROWS), st.booleans(), st.data())
def test_a_row_is_the_same_bits_in_every_batch(rows: int, normalised: bool, data: st.DataObject) -> None:
    packed = pack_int8(*layer(130, 64), normalisation(64) if normalised else None)
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows)) * torch.logspace(-3, 3, rows)[:, None]
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1))
    assert torch.equal(int8_linear(x, packed)[chosen], int8_linear(x[chosen], packed))


def test_a_row_of_zeros_gives_the_bias_and_axes_are_kept() -> None:
    weight, bias = layer(7, 5)
    assert bias is not None
    torch.testing.assert_close(int8_linear(torch.zeros(2, 3, 5), pack_int8(weight, bias)), bias.expand(2, 3, 7))


def test_a_row_of_zero_weights_is_allowed() -> None:
    weight = torch.zeros(3, 4)
    assert pack_int8(weight).shape == (3, 4)
    torch.testing.assert_close(int8_linear(torch.ones(1, 4), pack_int8(weight)), torch.zeros(1, 3))


def test_packing_leaves_the_process_engine_alone() -> None:
    before = torch.backends.quantized.engine
    pack_int8(*layer(4, 4))
    assert torch.backends.quantized.engine == before


def test_weights_have_eight_bits() -> None:
    weight, _ = layer(20, 30)
    packed = pack_int8(weight)
    restored = packed.unpacked().float() * packed.scale[:, None]
    assert packed.unpacked().abs().max() == 127
    assert ((restored - weight).abs() <= packed.scale[:, None] * 0.501).all()


def test_zeros_stay_zeros() -> None:
    weight, _ = layer(40, 64)
    weight[7] = 0
    packed = pack_int8(weight)
    assert packed.unpacked()[7].eq(0).all()
    assert int8_linear(torch.ones(1, 64), packed)[0, 7] == 0


class LargestFloat(TorchDispatchMode):
    """Notes the most numbers of any float32 tensor that an operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float32:
                self.numbers = max(self.numbers, one.numel())
        return result


def test_a_weight_in_half_precision_is_not_held_in_float32() -> None:
    weight = layer(5 * OUTPUTS + 3, 32)[0].half()
    with LargestFloat() as largest:
        packed = pack_int8(weight)
    assert 0 < largest.numbers <= OUTPUTS * 32
    whole = pack_int8(weight.float())
    assert torch.equal(packed.unpacked(), whole.unpacked())
    assert torch.equal(packed.scale, whole.scale)


@pytest.mark.parametrize("vnni", [True, False])
def test_both_layouts_hold_the_same_integers(monkeypatch: pytest.MonkeyPatch, vnni: bool) -> None:
    if vnni and not module.has_byte_products():
        pytest.skip("needs a processor with VNNI")
    weight, bias = layer(70, 128)
    expected = (weight * (127 / weight.abs().amax(1, keepdim=True))).round()
    monkeypatch.setattr(module, "has_byte_products", lambda: vnni)
    packed = pack_int8(weight, bias)
    assert torch.equal(packed.unpacked().float(), expected)
    assert packed.shape == (70, 128)
    assert (packed.levels == FINE_LEVELS) == vnni
    x = torch.randn(ROWS + 7, 128, generator=torch.Generator().manual_seed(0))  # more than a block of rows
    torch.testing.assert_close(int8_linear(x, packed), int8_linear(x, plain(packed)), rtol=1e-5, atol=1e-5)
    assert int8_linear(x[:0], packed).shape == (0, 70)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_row_is_seen_to_be_and_leaves_the_others_alone(bad: float, normalised: bool) -> None:
    packed = pack_int8(*layer(70, 64), normalisation(64) if normalised else None)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    expected = int8_linear(x, packed)
    x[2, 3] = bad
    y = int8_linear(x, packed)
    assert not y[2].isfinite().any()
    assert torch.equal(y[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
