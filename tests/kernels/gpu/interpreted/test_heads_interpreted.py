"""What begins and ends a model, in the interpreter, against the references: features, LSTM, the best token."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.kernels.best_tokens import linear_argmax
from loquent.kernels.finite_scalar import Digits, finite_scalar_codes
from loquent.kernels.log_mel import Compression, log_mel
from loquent.kernels.lstm_steps import lstm_steps


@pytest.mark.parametrize("vocabulary", [40, 200])
def test_the_best_of_many(check, dtype, vocabulary):
    x, weight, bias = torch.randn(2, 9, 50), torch.randn(vocabulary, 50), torch.zeros(vocabulary)
    weight[7] = weight[vocabulary - 1] = weight[3]  # the first of equals
    bias[[3, 7, vocabulary - 1]] = 60.0
    check(linear_argmax, *(one.to(dtype) for one in (x, weight, bias)))
    if dtype == torch.float32:  # in others roundings decide between the best
        check(linear_argmax, x, weight, torch.randn(vocabulary))
    check(linear_argmax, x[:0].to(dtype), weight.to(dtype), bias.to(dtype))


@pytest.mark.parametrize("levels", [(3,) * 8, (8, 5, 4)])
def test_frames_become_codes(check, dtype, levels):
    counts = torch.tensor(levels)
    offset, half_width = torch.where(counts % 2 == 0, 0.5, 0.0), (counts - 1) * 0.4995
    powers = torch.cat([torch.ones(1, dtype=torch.long), counts[:-1].cumprod(0)])
    digits = Digits((offset / half_width).atanh(), half_width, offset, (counts // 2).float(), powers)
    # Small integers: no dtype rounds their sums, and no number comes between two levels.
    x, weight = torch.randint(-3, 4, (2, 9, 70)), torch.randint(-1, 2, (len(levels), 70))
    bias = torch.full((len(levels),), 0.25)

    def run(*tensors):
        return finite_scalar_codes(*tensors, digits)

    codes = check(run, x.to(dtype), weight.to(dtype), bias.to(dtype))[0]
    assert codes.unique().numel() > 5
    check(run, torch.zeros(0, 70, dtype=dtype), weight.to(dtype), bias.to(dtype))


@pytest.mark.parametrize(("steps", "size"), [(1, 40), (4, 40), (2, 130), (0, 16)])
def test_an_lstm_runs_over_some_steps(check, dtype, steps, size):
    gates, weight = torch.randn(3, steps, 4 * size), torch.randn(4 * size, size) * size**-0.5
    hidden, cell = torch.randn(2, 3, size)
    length = torch.tensor([steps, 0, min(steps, 2)])
    for row, count in enumerate(length.tolist()):
        gates[row, count:] = math.nan

    def run(*tensors):
        return lstm_steps(*tensors, length)

    check(run, *(one.to(dtype) for one in (gates, weight, hidden, cell)))


@pytest.mark.parametrize(
    "compression", [Compression(floor=1e-3, decimal=True), Compression(offset=2**-24), Compression(True, 1e-5)]
)
def test_frames_are_the_references(check, compression):
    x, taper, filters = torch.randn(2, 70 + 17 * 12), torch.rand(70), torch.rand(41, 20)
    check(lambda x, taper, filters: log_mel(x, taper, filters, 12, compression), x, taper, filters, tolerance=3)
