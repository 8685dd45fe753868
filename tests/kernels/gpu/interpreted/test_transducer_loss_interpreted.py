"""Transducer loss and its gradient in the interpreter, against the reference."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.kernels.registry import use_backend
from loquent.kernels.transducer_loss import transducer_loss


def value_and_gradient(backend, logits, *rest):
    logits = logits.clone().requires_grad_()
    with torch.enable_grad(), use_backend(backend):
        loss = transducer_loss(logits, *rest)
        (gradient,) = torch.autograd.grad((loss * torch.linspace(0.5, 2, len(loss))).sum(), logits)
    return loss.detach(), gradient


@pytest.mark.parametrize(("frames", "tokens", "vocabulary"), [(7, 4, 5), (1, 3, 2), (6, 0, 3), (3, 2, 1100)])
def test_loss_and_gradient_are_the_references(frames, tokens, vocabulary):
    length, target_length = torch.tensor([frames, 1, max(frames - 2, 1)]), torch.tensor([tokens, tokens // 2, 0])
    logits = 3 * torch.randn(3, frames, tokens + 1, vocabulary + 1)
    targets = torch.randint(vocabulary, (3, tokens))
    loss, gradient = value_and_gradient("reference", logits, targets, length, target_length)
    for row in range(3):
        logits[row, length[row] :] = math.nan
        logits[row, :, target_length[row] + 1 :] = math.nan
    fast_loss, fast_gradient = value_and_gradient("triton", logits, targets, length, target_length)
    torch.testing.assert_close(fast_loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast_gradient, gradient, rtol=1e-4, atol=1e-5)


def test_long_lattices_stay_finite():
    ones = torch.ones(1, 3, dtype=torch.long)
    shape = torch.zeros(1, 25, 4, 4)
    loss, gradient = value_and_gradient("triton", 30 * shape, ones, torch.tensor([25]), torch.tensor([3]))
    alignments = math.lgamma(25 + 3) - math.lgamma(3 + 1) - math.lgamma(25)
    assert float(loss[0]) == pytest.approx(28 * math.log(4) - alignments, rel=1e-5)
    assert gradient.isfinite().all()
