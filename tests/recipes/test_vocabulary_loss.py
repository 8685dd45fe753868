"""The loss over a vocabulary against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from loquent.recipes import vocabulary_loss as module
from loquent.recipes.vocabulary_loss import vocabulary_loss


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_loss_and_gradient_are_those_of_the_formula(weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB", 16)
    torch.manual_seed(0)
    embedding, teacher, hidden = torch.randn(97, 12), torch.randn(20, 12), torch.randn(50, 12, requires_grad=True)
    targets, taught = torch.randint(97, (50,)), torch.randint(-1, 20, (50,))
    found = vocabulary_loss(hidden, embedding, targets, teacher, taught, weight)
    found.loss.backward()  # type: ignore[no-untyped-call]
    gradient, hidden.grad = hidden.grad, None

    logs = (hidden @ embedding.T).log_softmax(-1)
    expected = (teacher @ embedding.T).softmax(-1)[taught]
    teaching = (-(expected * logs).sum(-1) * (taught >= 0)).sum() / 50
    loss = F.nll_loss(logs, targets) + weight * teaching
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found.loss, loss)
    torch.testing.assert_close(gradient, hidden.grad)
    torch.testing.assert_close(found.tokens, F.nll_loss(logs, targets))
    assert found.right.tolist() == (logs.argmax(-1) == targets).tolist()
    if weight:
        torch.testing.assert_close(found.teaching, teaching)


def test_no_token_needs_a_teacher() -> None:
    hidden, embedding = torch.randn(5, 4, requires_grad=True), torch.randn(9, 4)
    targets = torch.arange(5)
    found = vocabulary_loss(hidden, embedding, targets)
    torch.testing.assert_close(found.loss, F.cross_entropy(hidden @ embedding.T, targets))
    assert float(found.teaching) == 0
