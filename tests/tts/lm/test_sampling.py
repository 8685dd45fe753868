"""Repetition-aware sampling: the chances of the paper, from numbers of the stream alone."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.tts.lm.sampling import RepetitionAwareSampling, draws

NONE = torch.full((1, 10), -1)


def frequencies(sampling: RepetitionAwareSampling, logits: Tensor, recent: Tensor, count: int = 4000) -> Tensor:
    """How often each token is drawn."""
    uniforms = draws(torch.full((count,), 9), torch.arange(count))
    tokens = sampling(logits.expand(count, -1), recent.expand(count, -1), uniforms)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / count


def test_tokens_come_from_the_nucleus_in_proportion() -> None:
    chance = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15])
    found = frequencies(RepetitionAwareSampling(), chance.log()[None], NONE)
    kept = torch.tensor([0, 0.4, 0, 0.3, 0.15])  # the first to reach 0.8 is part of it
    torch.testing.assert_close(found, kept / kept.sum(), rtol=0, atol=0.03)
    found = frequencies(RepetitionAwareSampling(top_k=2), chance.log()[None], NONE)
    torch.testing.assert_close(found, torch.tensor([0, 4 / 7, 0, 3 / 7, 0]), rtol=0, atol=0.03)


def test_a_repetition_is_replaced_by_any_other_token() -> None:
    chance = torch.tensor([0.02, 0.9, 0.05, 0.03])
    recent = torch.cat([NONE[:, :9], torch.tensor([[1]])], dim=1)
    found = frequencies(RepetitionAwareSampling(), chance.log()[None], recent)
    torch.testing.assert_close(found, torch.tensor([0.2, 0, 0.5, 0.3]), rtol=0, atol=0.03)
    twice = RepetitionAwareSampling(repetition=0.2)
    assert frequencies(twice, chance.log()[None], recent)[1] == 1


def test_what_is_not_allowed_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 2.0, -torch.inf, 1.0]])
    recent = torch.cat([NONE[:, :9], torch.tensor([[1]])], dim=1)
    for past in (NONE, recent):
        found = frequencies(RepetitionAwareSampling(top_p=1.0), logits, past)
        assert found[[0, 2]].sum() == 0
    edges = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    tokens = RepetitionAwareSampling(top_p=1.0)(logits.expand(2, -1), recent.expand(2, -1), edges)
    assert set(tokens.tolist()) <= {1, 3}


def test_a_row_depends_on_nothing_but_itself() -> None:
    torch.manual_seed(0)
    logits, recent, uniforms = torch.randn(9, 50), torch.randint(50, (9, 10)), torch.rand(9, 2)
    sampling = RepetitionAwareSampling()
    together = sampling(logits, recent, uniforms)
    alone = [sampling(logits[i : i + 1], recent[i : i + 1], uniforms[i : i + 1]) for i in range(9)]
    assert torch.equal(together, torch.cat(alone))


def test_draws_are_uniform_and_belong_to_seed_and_count() -> None:
    seeds, counts = torch.arange(50).repeat_interleave(100), torch.arange(100).repeat(50)
    numbers = draws(seeds, counts)
    assert 0 < numbers.min() < numbers.max() < 1
    share = torch.histc(numbers.float(), bins=10, min=0, max=1) / numbers.numel()
    torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0, atol=0.012)
    assert numbers.unique().numel() == numbers.numel()
    torch.testing.assert_close(draws(seeds[77:78], counts[77:78]), numbers[77:78], rtol=0, atol=0)
