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
