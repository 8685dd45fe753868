from __future__ import annotations

import itertools
import math

import pytest
import torch
import torchaudio.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loquent.kernels.registry import Backend, use_backend
from loquent.kernels.transducer_loss import transducer_loss

BACKENDS: tuple[Backend, ...] = ("reference", "numba")


def problem(seed: int, batch: int, frames: int, tokens: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, targets, lengths and target lengths of a ragged batch."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, frames, tokens + 1, vocabulary + 1, generator=generator)
    targets = torch.randint(vocabulary, (batch, tokens), generator=generator)
    length = torch.randint(1, frames + 1, (batch,), generator=generator)
    target_length = torch.randint(0, tokens + 1, (batch,), generator=generator)
    return logits, targets, length, target_length


def by_enumeration(logits: Tensor, targets: list[int]) -> float:
    """Loss of one row, (T, U + 1, V + 1): every way to spread the tokens over the frames."""
    frames, blank = logits.shape[0], logits.shape[-1] - 1
    log_probs = logits.double().log_softmax(-1)
    paths = []
    for at in itertools.combinations_with_replacement(range(frames), len(targets)):
        score = sum(float(log_probs[t, u, targets[u]]) for u, t in enumerate(at))
        score += sum(float(log_probs[t, sum(a <= t for a in at), blank]) for t in range(frames))
        paths.append(score)
    return -float(torch.tensor(paths, dtype=torch.float64).logsumexp(0))


def value_and_gradient(
    backend: Backend, logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor
) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    with use_backend(backend):
        loss = transducer_loss(logits, targets, length, target_length)
    weights = torch.linspace(0.5, 2, len(loss))  # each row's own
    (gradient,) = torch.autograd.grad((loss * weights).sum(), logits)
    return loss.detach(), gradient


@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_is_the_sum_over_all_alignments(backend: Backend) -> None:
    logits, targets, length, target_length = problem(0, 6, 4, 3, 2)
    with use_backend(backend):
        loss = transducer_loss(logits, targets, length, target_length)
    for row, value in enumerate(loss.tolist()):
        expected = by_enumeration(logits[row, : length[row]], targets[row, : target_length[row]].tolist())
        assert value == pytest.approx(expected, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9), st.integers(0, 6), st.integers(1, 5))
def test_kernel_equals_reference(seed: int, batch: int, frames: int, tokens: int, vocabulary: int) -> None:
    ragged = problem(seed, batch, frames, tokens, vocabulary)
    loss, gradient = value_and_gradient("reference", *ragged)
    fast_loss, fast_gradient = value_and_gradient("numba", *ragged)
    torch.testing.assert_close(fast_loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast_gradient, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_torchaudio(backend: Backend) -> None:
    logits, targets, length, target_length = problem(1, 5, 12, 7, 6)
    length[0], target_length[0] = 12, 7  # torchaudio wants some row to fill each axis
    loss, gradient = value_and_gradient(backend, logits, targets, length, target_length)
    logits.requires_grad_()
    lengths = (length.int(), target_length.int())
    expected = torchaudio.functional.rnnt_loss(logits, targets.int(), *lengths, blank=6, reduction="none")
    (expected_gradient,) = torch.autograd.grad((expected * torch.linspace(0.5, 2, 5)).sum(), logits)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_lies_beyond_a_length_does_not_matter(backend: Backend) -> None:
    logits, targets, length, target_length = problem(2, 3, 6, 4, 3)
    length, target_length = torch.tensor([6, 3, 1]), torch.tensor([2, 4, 0])
    loss, gradient = value_and_gradient(backend, logits, targets, length, target_length)
    for row in range(3):
        logits[row, length[row] :] = 100
        logits[row, :, target_length[row] + 1 :] = -100
        targets[row, target_length[row] :] = 0
    changed, changed_gradient = value_and_gradient(backend, logits, targets, length, target_length)
    torch.testing.assert_close(changed, loss)
    torch.testing.assert_close(changed_gradient, gradient)
    for row in range(3):
        assert not gradient[row, length[row] :].any()
        assert not gradient[row, :, target_length[row] + 1 :].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_lattices_stay_finite(backend: Backend) -> None:
    logits = torch.zeros(1, 300, 41, 4)
    ones = torch.ones(1, 40, dtype=torch.long)
    loss, gradient = value_and_gradient(backend, 30 * logits, ones, torch.tensor([300]), torch.tensor([40]))
    alignments = math.lgamma(300 + 40) - math.lgamma(40 + 1) - math.lgamma(300)
    assert float(loss[0]) == pytest.approx(340 * math.log(4) - alignments, rel=1e-5)
    assert gradient.isfinite().all()


def test_smaller_floats_are_computed_with_in_float32() -> None:
    logits, *rest = problem(3, 2, 5, 3, 4)
    logits = logits.bfloat16()
    loss = transducer_loss(logits, *rest)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, transducer_loss(logits.float(), *rest))


def test_impossible_shapes_and_lengths_are_refused() -> None:
    logits, targets, length, target_length = problem(4, 2, 5, 3, 4)
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(2, 2\)"):
        transducer_loss(logits, targets[:, 1:], length, target_length)
    with pytest.raises(ValueError, match="got 0 … 5 frames"):
        transducer_loss(logits, targets, torch.tensor([0, 5]), target_length)
    with pytest.raises(ValueError, match="1 … 4 tokens"):
        transducer_loss(logits, targets, length, torch.tensor([1, 4]))
