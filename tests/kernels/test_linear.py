"""The linear layer for few rows against torch's."""

from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import loquent.kernels.linear as module
from loquent.kernels.linear import FEW, linear
from loquent.kernels.registry import use_backend
from loquent.speech.nn.linear import Linear


@pytest.mark.parametrize("backend", ["reference", "numba"])
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    shape=st.sampled_from([(), (1,), (2,), (3, 1), (1, 5), (2, 4), (FEW + 1,), (0,), (1, 0)]),
    outputs=st.sampled_from([512, 516, 600, 1028, 33, 513]),
    inputs=st.sampled_from([256, 264, 512, 100]),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_it_is_the_layer_of_torch(backend, shape, outputs, inputs, bias, strided):
    x = torch.randn(*shape, 2 * inputs)[..., ::2] if strided else torch.randn(*shape, inputs)
    weight, offset = torch.randn(outputs, inputs), torch.randn(outputs) if bias else None
    with use_backend(backend):
        y = linear(x, weight, offset)
    torch.testing.assert_close(y, F.linear(x, weight, offset), rtol=1e-4, atol=1e-3)
    if strided:
        with use_backend(backend):
            transposed = linear(x, torch.randn(inputs, outputs).T, offset)
        assert transposed.shape == y.shape


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        linear(torch.randn(2, 256), torch.randn(512, 512))


@pytest.mark.parametrize("shape", [(FEW + 1,), (3, 70), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_many_rows_are_the_same_in_either_library(monkeypatch, shape, bias):
    monkeypatch.setattr(module, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(module, "_onednn", asked := Mock(wraps=module._onednn))
    x, weight, offset = (
        torch.randn(*shape, 2 * 256)[..., ::2],
        torch.randn(520, 256),
        torch.randn(520) if bias else None,
    )
    expected = F.linear(x, weight, offset)
    torch.testing.assert_close(linear(x, weight, offset), expected, rtol=1e-4, atol=1e-3)
    assert asked.call_count == (x.numel() > 0)
    layer = Linear(256, 520)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    with use_backend("reference"):
        assert torch.equal(linear(x, weight, offset), expected)
    assert asked.call_count == (x.numel() > 0)  # neither for gradients nor for the reference


def test_a_row_is_the_same_bits_in_every_small_batch():
    x, weight, bias = torch.randn(FEW, 512), torch.randn(520, 512), torch.randn(520)
    with use_backend("numba"):
        alone = torch.cat([linear(row[None], weight, bias) for row in x])
        for rows in range(2, FEW + 1):
            assert torch.equal(linear(x[:rows], weight, bias), alone[:rows])


def test_other_types_and_gradients_go_to_torch():
    layer, x = Linear(512, 512), torch.randn(2, 512)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.bias.grad.mean() == 2 + 2  # rows, twice
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert Linear(512, 512)(x).dtype == nn.Linear(512, 512)(x).dtype
