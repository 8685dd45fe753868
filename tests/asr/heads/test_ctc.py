from __future__ import annotations

import itertools

import pytest
import torch

from loquent.asr.heads.ctc import CTCHead


def collapse(path: tuple[int, ...], blank: int) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != blank]


def test_loss_is_the_sum_over_all_alignments() -> None:
    torch.manual_seed(0)
    head = CTCHead(5, 2)
    encoded, length = torch.randn(3, 4, 5), torch.tensor([4, 3, 4])
    targets, target_length = torch.tensor([[0, 1], [1, 1], [0, 7]]), torch.tensor([2, 2, 1])
    loss = head.loss(encoded, length, targets, target_length).detach()
    log_probs = head(encoded).detach()
    assert log_probs.shape == (3, 4, 3)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 4))
    for row in range(3):
        text = targets[row, : target_length[row]].tolist()
        paths = itertools.product(range(3), repeat=int(length[row]))
        scores = [
            float(log_probs[row, range(len(path)), list(path)].sum())
            for path in paths
            if collapse(path, head.blank) == text
        ]
        assert float(loss[row]) == pytest.approx(-float(torch.tensor(scores).logsumexp(0)), rel=1e-5)


def test_a_text_too_long_for_its_frames_has_no_gradient() -> None:
    head, encoded = CTCHead(3, 4), torch.randn(1, 2, 3)
    loss = head.loss(encoded, torch.tensor([2]), torch.tensor([[1, 1, 1]]), torch.tensor([3]))
    loss.sum().backward()
    assert loss.tolist() == [0]
    assert head.out.weight.grad is not None
    assert not head.out.weight.grad.any()


def test_log_probabilities_are_float32_whatever_the_weights() -> None:
    head = CTCHead(3, 4).bfloat16()
    assert head(torch.randn(1, 2, 3, dtype=torch.bfloat16)).dtype == torch.float32
