"""Layers in 8 bits with what surrounds them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.int8_layer import ROWS, STRIP, Int8Layer, has_byte_products, int8_layer, pack_int8_layer
from loquent.kernels.registry import use_backend

needs_kernel = pytest.mark.skipif(not has_byte_products(), reason="this processor has no AVX-512 VNNI")


def made(outputs: int, inputs: int, normalised: bool = False) -> tuple[Tensor, Tensor, Int8Layer]:
    draw = torch.Generator().manual_seed(outputs + inputs)
    weight = torch.randn(outputs, inputs, generator=draw) * torch.rand(outputs, 1, generator=draw)
    bias, *norm = torch.randn(1, outputs, generator=draw), *torch.randn(2, inputs, generator=draw)
    return weight, bias[0], pack_int8_layer(weight, bias[0], tuple(norm) if normalised else None)


@needs_kernel
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    rows=st.sampled_from([1, 2, 3, 5, 6, 8, 13, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 7]),
    outputs=st.sampled_from([STRIP, 3 * STRIP]),
    inputs=st.sampled_from([4, 20, 384]),
    normalised=st.booleans(),
    gelu=st.booleans(),
    size=st.floats(1e-3, 1e3),
)
def test_the_kernel_is_the_reference(
    rows: int, outputs: int, inputs: int, normalised: bool, gelu: bool, size: float
) -> None:
    _, _, layer = made(outputs, inputs, normalised)
    assert layer.panels is not None
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)) * size
    y = int8_layer(x, layer, "gelu" if gelu else "none")
    with use_backend("reference"):
        expected = int8_layer(x, layer, "gelu" if gelu else "none")
    # A number half-way between two integers may be rounded either way.
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=3e-2 * float(expected.abs().max()))
    assert (y - expected).norm() <= 2e-3 * expected.norm()


def test_it_is_close_to_the_float_layers() -> None:
    weight, bias, layer = made(STRIP, 384, normalised=True)
    x = torch.randn(2, 25, 384, generator=torch.Generator().manual_seed(0))
    assert layer.norm is not None
    exact = F.gelu(F.linear(F.layer_norm(x, (384,), *layer.norm), weight, bias))
    assert (int8_layer(x, layer, "gelu") - exact).norm() < 0.03 * exact.norm()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2 * ROWS), st.data())
def test_a_row_is_the_same_bits_in_every_batch(rows: int, data: st.DataObject) -> None:
    _, _, layer = made(STRIP, 64, normalised=True)
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(rows)) * torch.logspace(-3, 3, rows)[:, None]
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1))
    assert torch.equal(int8_layer(x, layer)[chosen], int8_layer(x[chosen], layer))


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_stays_visible_in_its_row_and_out_of_the_others(poison: float, normalised: bool) -> None:
    _, _, layer = made(STRIP, 64, normalised)
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    spoilt = x.clone()
    spoilt[4, 17] = poison
    y, others = int8_layer(spoilt, layer), [row for row in range(9) if row != 4]
    assert not y[4].isfinite().any()
    assert torch.equal(y[others], int8_layer(x, layer)[others])


def test_rows_of_zeros_and_no_rows() -> None:
    _, bias, layer = made(STRIP, 64)
    torch.testing.assert_close(int8_layer(torch.zeros(2, 3, 64), layer), bias.expand(2, 3, STRIP))
    assert int8_layer(torch.zeros(2, 0, 64), layer).shape == (2, 0, STRIP)


def test_shapes_that_the_kernel_is_not_made_for_are_computed_otherwise() -> None:
    weight, bias, layer = made(33, 10)
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    exact = F.linear(x, weight, bias)
    assert layer.panels is None
    assert (int8_layer(x, layer) - exact).norm() < 0.03 * exact.norm()
