"""Convolution steps in the interpreter, against the references."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.kernels.conv_step import depthwise_conv_step
from loquent.kernels.convnext_step import ConvNeXtWeights, convnext_step
from loquent.kernels.gated_conv_step import gated_conv_step

LENGTH = torch.tensor([6, 0, 20, 1])
ROWS = torch.tensor([4, 2, 0, 3])


def chunk(channels: int) -> torch.Tensor:
    """Steps of four rows, NaN beyond their lengths."""
    x = torch.randn(4, 20, channels)
    for row, count in enumerate(LENGTH.tolist()):
        x[row, count:] = math.nan
    return x


@pytest.mark.parametrize(("kernel", "channels", "bias"), [(5, 70, True), (1, 16, False), (23, 8, True)])
def test_a_chunk_meets_its_past(check, dtype, kernel, channels, bias):
    weight, offset, tail = torch.randn(channels, kernel), torch.randn(channels), torch.randn(5, kernel - 1, channels)

    def run(x, weight, offset, tail):
        return depthwise_conv_step(x, weight, offset if bias else None, tail, ROWS, LENGTH)

    # The reference adds the taps one by one, each time rounded.
    check(run, *(one.to(dtype) for one in (chunk(channels), weight, offset, tail)), tolerance=4)


def test_rows_without_steps_may_share_a_slot():
    x, weight, tail = chunk(16), torch.randn(16, 5), torch.randn(5, 4, 16)
    expected = tail.clone()
    from loquent.kernels.gpu.conv import depthwise_conv_step as step

    whole = step(x, weight, None, expected, ROWS, LENGTH)
    shared, length = tail.clone(), LENGTH.clone()
    length[3] = 0
    out = step(x, weight, None, shared, torch.tensor([4, 0, 0, 0]), length)
    assert torch.equal(out[[0, 2]], whole[[0, 2]])
    assert torch.equal(shared[[0, 4]], expected[[0, 4]])
    assert torch.equal(shared[1:4], tail[1:4])


@pytest.mark.parametrize(("kernel", "channels", "bias"), [(9, 40, True), (3, 16, False)])
def test_a_gate_and_a_norm_go_with_it(check, dtype, kernel, channels, bias):
    weight, tail, valid = torch.randn(channels, kernel), torch.randn(5, kernel - 1, channels), torch.arange(20)
    valid = (valid < LENGTH[:, None])[..., None]
    tensors = chunk(2 * channels), weight, torch.randn(channels), torch.randn(channels), torch.randn(channels), tail

    def run(x, weight, offset, scale, shift, tail):
        y = gated_conv_step(x, weight, offset if bias else None, (scale, shift), tail, ROWS, LENGTH)
        return y.masked_fill(~valid, 0)

    check(run, *(one.to(dtype) for one in tensors), tolerance=4)


@pytest.mark.parametrize(("kernel", "channels", "right"), [(7, 40, 3), (3, 16, 0), (5, 32, 4)])
def test_a_block_of_convnext(check, dtype, kernel, channels, right):
    shapes = (channels, kernel), *[(channels,)] * 3, (24, channels), (24,), (channels, 24), *[(channels,)] * 2
    weights = [torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 1) for shape in shapes]
    tail, valid = torch.randn(5, kernel - 1, channels), torch.arange(20) < LENGTH[:, None]

    def run(x, tail, *weights):
        return convnext_step(x, ConvNeXtWeights(*weights), tail, ROWS, LENGTH, right).masked_fill(~valid[..., None], 0)

    check(run, *(one.to(dtype) for one in (chunk(channels), tail, *weights)), tolerance=3)
