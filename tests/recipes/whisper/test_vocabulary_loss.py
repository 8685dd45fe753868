"""The loss over a vocabulary against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from loquent.recipes.whisper import vocabulary_loss as module
from loquent.recipes.whisper.vocabulary_loss import vocabulary_loss


def test_loss_and_gradient_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB", 16)
    torch.manual_seed(0)
    embedding, hidden, targets = torch.randn(97, 12), torch.randn(50, 12, requires_grad=True), torch.randint(97, (50,))
    found, right = vocabulary_loss(hidden, embedding, targets)
    found.backward()  # type: ignore[no-untyped-call]
    gradient, hidden.grad = hidden.grad, None
    scores = hidden @ embedding.T
    loss = F.cross_entropy(scores, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(gradient, hidden.grad)
    assert right.tolist() == (scores.argmax(-1) == targets).tolist()
