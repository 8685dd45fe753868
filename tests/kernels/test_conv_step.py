"""The streaming depthwise convolution against `torch.nn.functional.conv1d` over the whole signal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from loquent.kernels.conv_step import depthwise_conv_step
from loquent.kernels.registry import use_backend


@pytest.mark.parametrize("backend", ["reference", "numba"])
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=3),
    kernel=st.integers(1, 9),
    channels=st.sampled_from([1, 7, 128, 200]),
    bias=st.booleans(),
)
def test_chunks_give_the_convolution_of_the_whole(backend, rows, kernel, channels, bias):
    slots = len(rows) + 1
    x = torch.randn(len(rows), max(sum(lengths) for lengths in rows) + 1, channels)
    weight, offset = torch.randn(channels, kernel), torch.randn(channels) if bias else None
    padded = F.pad(x.transpose(1, 2), (kernel - 1, 0))
    expected = F.conv1d(padded, weight[:, None], offset, groups=channels).transpose(1, 2)

    tail = torch.zeros(slots, kernel - 1, channels)
    tail[0] = 7
    slot = torch.arange(slots - 1, 0, -1)
    position = torch.zeros(len(rows), dtype=torch.long)
    for turn in range(max(len(lengths) for lengths in rows)):
        length = torch.tensor([lengths[turn] if turn < len(lengths) else 0 for lengths in rows])
        chunk = torch.full((len(rows), int(length.max()) + 1, channels), math.nan)
        for row, (first, count) in enumerate(zip(position.tolist(), length.tolist(), strict=True)):
            chunk[row, :count] = x[row, first : first + count]
        with use_backend(backend):
            out = depthwise_conv_step(chunk, weight, offset, tail, slot, length)
        for row, (first, count) in enumerate(zip(position.tolist(), length.tolist(), strict=True)):
            torch.testing.assert_close(out[row, :count], expected[row, first : first + count], rtol=1e-4, atol=1e-5)
            assert not out[row, count:].any()
        position += length
    assert (tail[0] == 7).all(), "a slot of another stream changed"


def test_a_bias_may_be_part_of_something_else():
    x, weight, bias = torch.randn(1, 3, 128), torch.randn(128, 2), torch.randn(128, 2)[:, 1]
    out = depthwise_conv_step(x, weight, bias, torch.zeros(1, 1, 128), torch.tensor([0]), torch.tensor([3]))
    expected = F.conv1d(F.pad(x.transpose(1, 2), (1, 0)), weight[:, None], bias, groups=128).transpose(1, 2)
    torch.testing.assert_close(out, expected)
