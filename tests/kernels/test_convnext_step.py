"""The ConvNeXt block of a chunk against the block over the whole signal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from loquent.kernels import convnext_step as module
from loquent.kernels.convnext_step import ConvNeXtWeights, convnext_step
from loquent.kernels.registry import use_backend


def random_weights(channels, hidden, kernel):
    shapes = (
        (channels, kernel),
        *[(channels,)] * 3,
        (hidden, channels),
        (hidden,),
        (channels, hidden),
        *[(channels,)] * 2,
    )
    return ConvNeXtWeights(*(torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 1) for shape in shapes))


def whole(x, w, right):
    """(B, T, C) with zeros before and after, results ``right`` steps late: T + right of them."""
    context = w.depthwise.shape[1] - 1
    padded = F.pad(x.transpose(1, 2), (context, right))
    y = F.conv1d(padded, w.depthwise[:, None], w.depthwise_bias, groups=x.shape[2]).transpose(1, 2)
    y = F.layer_norm(y, y.shape[2:], w.norm, w.norm_bias)
    y = F.gelu(y @ w.expand.T + w.expand_bias) @ w.contract.T + w.contract_bias
    return F.pad(x, (0, 0, right, 0)) + w.scale * y


@pytest.mark.parametrize("backend", ["reference", "numba"])
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=st.sampled_from([(16, 32, 7), (32, 16, 3), (48, 64, 1), (7, 12, 5)]),
    look=st.floats(0, 1),
)
def test_chunks_give_the_block_of_the_whole(backend, rows, sizes, look):
    channels, _, kernel = sizes
    right, weights = round(look * (kernel - 1)), random_weights(*sizes)
    x = torch.randn(len(rows), max(sum(lengths) for lengths in rows) + 1, channels)
    expected = whole(x, weights, right)
    tail = torch.zeros(len(rows) + 1, kernel - 1, channels)
    tail[0] = 7
    slots, position = torch.arange(len(rows), 0, -1), torch.zeros(len(rows), dtype=torch.long)
    for turn in range(max(map(len, rows))):
        length = torch.tensor([lengths[turn] if turn < len(lengths) else 0 for lengths in rows])
        chunk = torch.full((len(rows), int(length.max()) + 1, channels), math.nan)
        for row, (first, count) in enumerate(zip(position.tolist(), length.tolist(), strict=True)):
            chunk[row, :count] = x[row, first : first + count]
        with torch.no_grad(), use_backend(backend):
            out = convnext_step(chunk, weights, tail, slots, length, right)
        for row, (first, count) in enumerate(zip(position.tolist(), length.tolist(), strict=True)):
            torch.testing.assert_close(out[row, :count], expected[row, first : first + count], rtol=1e-4, atol=2e-5)
        position += length
    assert (tail[0] == 7).all(), "a slot of another stream changed"


def test_the_compiled_gelu_is_the_exact_one():
    # Of weights that hand nothing on but a bias.
    values = torch.cat([torch.linspace(-12, 12, 3000), torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4])])
    eye = torch.eye(16)
    for value in values.split(16):
        bias = F.pad(value, (0, 16 - len(value)))
        weights = ConvNeXtWeights(
            *(torch.zeros(16, 1), torch.zeros(16), torch.ones(16), torch.zeros(16)),
            *(eye, bias, eye, torch.zeros(16), torch.ones(16)),
        )
        x, rows, length = torch.zeros(1, 1, 16), torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.long)
        out = convnext_step(x, weights, torch.zeros(1, 0, 16), rows, length, 0)
        error = (out[0, 0] - F.gelu(bias.double())).abs()
        assert (error <= 3e-7 * bias.abs() + 1e-7).all()


def test_many_steps_go_to_libraries(monkeypatch):
    weights, tail = random_weights(16, 32, 7), torch.zeros(3, 6, 16)
    x, rows, length = torch.randn(3, 8, 16), torch.arange(3), torch.full((3,), 8)
    few = convnext_step(x, weights, tail.clone(), rows, length, 3)
    monkeypatch.setattr(module, "FEW", 23)
    torch.testing.assert_close(convnext_step(x, weights, tail.clone(), rows, length, 3), few, rtol=1e-4, atol=1e-5)


def test_gradients_go_through_the_reference():
    weights = random_weights(16, 16, 3)
    x = torch.randn(1, 5, 16, requires_grad=True)
    rows, length = torch.zeros(1, dtype=torch.long), torch.full((1,), 5)
    convnext_step(x, weights, torch.zeros(1, 2, 16), rows, length, 1).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.any()
