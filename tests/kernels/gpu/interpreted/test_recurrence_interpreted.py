"""What goes step by step or number by number, in the interpreter, against the references."""

from __future__ import annotations

import torch

from loquent.kernels.counter_noise import counter_noise
from loquent.kernels.registry import use_backend
from loquent.kernels.ssru import ssru


def test_a_recurrent_unit_over_some_steps(check, dtype):
    gates, cell = torch.randn(2, 5, 300), torch.randn(4, 150)

    def run(gates, cell):
        x, forget = gates.chunk(2, dim=-1)
        return ssru(x, forget.sigmoid(), cell[1::2])

    check(run, gates.to(dtype), cell.to(dtype))


def test_no_steps_leave_nothing():
    with use_backend("triton"):
        assert ssru(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), torch.ones(2, 3)).shape == (2, 0, 3)


def test_noise_is_the_references(check):
    seeds = torch.tensor([0, 1, 2**63 - 1, -7])
    frames = torch.arange(3)[None] + torch.tensor([0, 2**40, -3, 11])[:, None]
    for size in (1, 7, 300):
        check(lambda seeds, frames, size=size: counter_noise(seeds, frames, size), seeds, frames)
    check(lambda seeds, frames: counter_noise(seeds, frames, 4), seeds, frames.T.contiguous().T)
    check(lambda seeds, frames: counter_noise(seeds, frames, 4), seeds[:0], frames[:0])


def test_noise_has_its_golden_values_and_no_gaps():
    with use_backend("triton"):
        noise = counter_noise(torch.tensor([3]), torch.tensor([[0, 5]]), 5)
        many = counter_noise(torch.arange(1), torch.arange(8)[None], 1000)
    golden = [
        [-1.2207160, 0.32461485, 1.0100287, -1.5372454, 0.06091054],
        [0.16012937, 1.2837965, 1.5371515, -0.01933002, 0.52138478],
    ]
    torch.testing.assert_close(noise[0], torch.tensor(golden), rtol=1e-5, atol=2e-6)
    with use_backend("reference"):
        expected = counter_noise(torch.arange(1), torch.arange(8)[None], 1000)
    torch.testing.assert_close(many, expected, rtol=1e-5, atol=4e-6)
