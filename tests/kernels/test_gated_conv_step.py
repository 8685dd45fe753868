"""Gate, convolution, norm and Swish of chunks against torch's functions over the whole signal."""

import math

import torch
from torch.nn import functional as F

from loquent.kernels.gated_conv_step import gated_conv_step


def test_chunks_give_what_the_whole_gives():
    x, weight, bias = torch.randn(2, 9, 12), torch.randn(6, 4), torch.randn(6)
    norm = torch.randn(6), torch.randn(6)
    padded = F.pad(F.glu(x).transpose(1, 2), (3, 0))
    expected = F.conv1d(padded, weight[:, None], bias, groups=6).transpose(1, 2)
    expected = F.silu(F.layer_norm(expected, (6,), *norm))

    tail, rows, position = torch.zeros(3, 3, 6), torch.tensor([2, 0]), [0, 0]
    tail[1] = 7
    for lengths in ([4, 0], [1, 6], [4, 3]):
        chunk = torch.full((2, 7, 12), math.nan)
        for row, count in enumerate(lengths):
            chunk[row, :count] = x[row, position[row] : position[row] + count]
        y = gated_conv_step(chunk, weight, bias, norm, tail, rows, torch.tensor(lengths))
        for row, count in enumerate(lengths):
            after = position[row] + count
            torch.testing.assert_close(y[row, :count], expected[row, position[row] : after], rtol=1e-4, atol=1e-5)
            position[row] = after
    assert (tail[1] == 7).all(), "a slot of another stream changed"
