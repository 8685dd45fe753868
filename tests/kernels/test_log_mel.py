"""Log-mel frames against their equation; the features of whole models are compared in tests/speech/audio."""

import math

import pytest
import torch

from loquent.kernels.log_mel import Compression, log_mel


@pytest.mark.parametrize(
    "compression",
    [
        Compression(),
        Compression(floor=1e-2, decimal=True),
        Compression(magnitude=True, floor=1e-5),
        Compression(offset=2.0),
    ],
)
def test_it_is_the_equation(compression):
    x, taper, filters, stride = torch.randn(2, 100), torch.rand(30), torch.rand(17, 5), 10
    y = log_mel(x, taper, filters, stride, compression)
    assert y.shape == (2, 8, 5)
    k = torch.arange(30).double()
    for row, t in ((0, 0), (1, 7)):
        frame = (taper * x[row, t * stride : t * stride + 30]).double()
        wave = torch.exp(-2j * math.pi * torch.arange(17).double()[:, None] * k / 32)
        power = (wave @ frame.to(wave.dtype)).abs() ** 2
        energy = (power + 1e-9).sqrt() if compression.magnitude else power
        energy = (energy @ filters.double()).clamp_min(compression.floor) + compression.offset
        expected = energy.log10() if compression.decimal else energy.log()
        torch.testing.assert_close(y[row, t], expected.float(), rtol=1e-4, atol=1e-4)
