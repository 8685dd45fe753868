"""The loss over a vocabulary against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from loquent.recipes.whisper import vocabulary_loss as module
from loquent.recipes.whisper.vocabulary_loss import Teacher, vocabulary_loss


def test_loss_and_gradient_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB", 16)
    torch.manual_seed(0)
    embedding, hidden, targets = torch.randn(97, 12), torch.randn(50, 12, requires_grad=True), torch.randint(97, (50,))
    found, label, right = vocabulary_loss(hidden, embedding, targets)
    found.backward()  # type: ignore[no-untyped-call]
    gradient, hidden.grad = hidden.grad, None
    scores = hidden @ embedding.T
    loss = F.cross_entropy(scores, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(label, loss.detach())
    torch.testing.assert_close(gradient, hidden.grad)
    assert right.tolist() == (scores.argmax(-1) == targets).tolist()


def test_a_teacher_is_imitated_with_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd of the formula gives the same; where the share is whole the label makes no difference."""
    monkeypatch.setattr(module, "SLAB", 16)
    torch.manual_seed(0)
    embedding, hidden, targets = torch.randn(97, 12), torch.randn(50, 12, requires_grad=True), torch.randint(97, (50,))
    share = torch.tensor([0.0, 0.3, 1.0, 0.0, 0.7]).repeat(10)
    share[16:32] = 0.0  # a slab without a teacher
    teacher = Teacher(torch.randn(50, 12), share)
    found, label, _ = vocabulary_loss(hidden, embedding, targets, teacher)
    found.backward()  # type: ignore[no-untyped-call]
    gradient, hidden.grad = hidden.grad, None
    scores = hidden @ embedding.T
    own = F.cross_entropy(scores, targets, reduction="none")
    log_q = (teacher.hidden @ embedding.T).log_softmax(-1)
    divergence = F.kl_div(scores.log_softmax(-1), log_q, log_target=True, reduction="none").sum(-1)
    loss = ((1 - share) * own + share * divergence).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, loss)
    torch.testing.assert_close(label, own.mean().detach())
    torch.testing.assert_close(gradient, hidden.grad)
    other = torch.where(share == 1, (targets + 1) % 97, targets)
    torch.testing.assert_close(vocabulary_loss(hidden, embedding, other, teacher).loss, found)
