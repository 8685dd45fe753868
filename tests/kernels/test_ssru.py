from __future__ import annotations

import torch

from loquent.kernels.ssru import ssru


def test_it_is_the_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    x, forget = torch.randn(2, 7, 5, generator=generator), torch.rand(2, 7, 5, generator=generator)
    cell = torch.randn(2, 5, generator=generator)
    cells = ssru(x, forget, cell)
    for t in range(7):
        cell = forget[:, t] * cell + (1 - forget[:, t]) * x[:, t]
        torch.testing.assert_close(cells[:, t], cell)


def test_gradients_are_those_of_the_equation() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    forget = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    cell = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ssru, (x, forget, cell))


def test_no_steps_leave_nothing() -> None:
    assert ssru(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), torch.ones(2, 3)).shape == (2, 0, 3)
