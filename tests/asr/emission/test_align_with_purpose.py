"""Align With Purpose: better alignments keep their promises, and training on them does what it is for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.emission.align_with_purpose import (
    Earlier,
    WordCorrection,
    align_with_purpose_loss,
    likeliest_path,
    sample_alignments,
    token_spans,
)
from loquent.asr.emission.edit_distance import align_sequences

VOCABULARY = 3
BLANK = VOCABULARY
alignment_lists = st.lists(st.lists(st.integers(0, BLANK), min_size=12, max_size=12), min_size=1, max_size=8)


def text_of(alignment: Tensor) -> list[int]:
    return [token for token, _, _ in token_spans(alignment, BLANK)]


def noise(batch: int, steps: int, classes: int = VOCABULARY + 1, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(batch, steps, classes, generator=torch.Generator().manual_seed(3))).log_softmax(-1)


@settings(max_examples=200, deadline=None)
@given(lists=alignment_lists, length=st.integers(1, 12), seed=st.integers(0, 1000))
def test_earlier_keeps_the_text_and_delays_no_token(lists: list[list[int]], length: int, seed: int) -> None:
    alignments = torch.tensor(lists)[None]
    improve = Earlier(torch.Generator().manual_seed(seed))
    better, found = improve(noise(1, 12), alignments, torch.tensor([length]))
    for worse, new, changed in zip(alignments[0, :, :length], better[0], found[0], strict=True):
        assert (new[length:] == BLANK).all()
        new = new[:length]
        assert text_of(new) == text_of(worse)
        starts = [start for _, start, _ in token_spans(worse, BLANK)]
        moved = [start for _, start, _ in token_spans(new, BLANK)]
        assert all(a - b in (0, 1) for a, b in zip(starts, moved, strict=True))
        assert sum(starts) > sum(moved) if changed else torch.equal(new, worse)


@settings(max_examples=100, deadline=None)
@given(lists=alignment_lists)
def test_earlier_finds_a_frame_whenever_there_is_one(lists: list[list[int]]) -> None:
    alignments = torch.tensor(lists)[None]
    _, found = Earlier()(noise(1, 12), alignments, torch.tensor([12]))
    for alignment, changed in zip(alignments[0], found[0].tolist(), strict=True):
        text = text_of(alignment)
        last = max((start for _, start, _ in token_spans(alignment, BLANK)), default=0)
        possible = any(text_of(torch.cat([alignment[:j], alignment[j + 1 :]])) == text for j in range(last))
        assert changed == possible


def test_earlier_chooses_among_all_frames() -> None:
    alignment = torch.tensor([BLANK, 0, 0, BLANK, 1, BLANK]).expand(1, 200, 6)
    better, _ = Earlier(torch.Generator().manual_seed(0))(noise(1, 6), alignment, torch.tensor([6]))
    assert {tuple(row) for row in better[0].tolist()} == {
        (0, 0, BLANK, 1, BLANK, BLANK),
        (BLANK, 0, BLANK, 1, BLANK, BLANK),
        (BLANK, 0, 0, 1, BLANK, BLANK),
    }


def test_alignments_are_drawn_from_the_posteriors() -> None:
    log_probs = noise(2, 3)
    drawn = sample_alignments(log_probs, torch.tensor([3, 2]), 4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 4000, 3)
    frequency = F.one_hot(drawn, VOCABULARY + 1).float().mean(1)
    torch.testing.assert_close(frequency[0], log_probs[0].exp(), rtol=0, atol=0.03)
    assert (drawn[1, :, 2] == BLANK).all()


def test_the_loss_is_the_mean_hinge() -> None:
    log_probs = noise(2, 4).requires_grad_()
    seen: list[Tensor] = []

    def flip(scores: Tensor, alignments: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        better = (alignments + 1) % (VOCABULARY + 1)
        found = torch.ones(alignments.shape[:2], dtype=torch.bool)
        found[0, 0] = False
        seen.extend([alignments, better])
        return better, found

    length = torch.tensor([4, 2])
    loss = align_with_purpose_loss(log_probs, length, flip, samples=3, margin=0.5)
    worse, better = seen
    for row in range(2):
        total = 0.0
        for sample in range(3):
            if (row, sample) == (0, 0):
                continue
            frames = range(int(length[row]))
            a = sum(log_probs.detach()[row, t, worse[row, sample, t]] for t in frames)
            b = sum(log_probs.detach()[row, t, better[row, sample, t]] for t in frames)
            total += max(0.0, float(a - b) + 0.5)
        assert float(loss.detach()[row]) == pytest.approx(total / 3, rel=1e-5)


def test_the_gradient_moves_probability_to_earlier_frames() -> None:
    """Frame posteriors that put a token on frames 4 and 5: the loss pulls it to 3 and away from its end."""
    logits = torch.zeros(1, 8, VOCABULARY + 1)
    logits[..., BLANK] = 4.0
    logits[0, 4:6, 0] = 8.0
    logits.requires_grad_()
    length = torch.tensor([8])
    generator = torch.Generator().manual_seed(0)
    loss = align_with_purpose_loss(
        logits.log_softmax(-1), length, Earlier(generator), samples=200, generator=generator
    ).sum()
    loss.backward()
    gradient = logits.grad
    assert gradient is not None
    assert gradient[0, 3, 0] < 0 < gradient[0, 3, BLANK]  # descending raises the token's probability before its peak
    assert gradient[0, 5, 0] > 0 > gradient[0, 5, BLANK]


def test_training_with_it_emits_earlier() -> None:
    """CTC plus the loss over free logits: the text stays, its tokens come sooner than with CTC alone."""
    targets = torch.tensor([[0, 1, 2]])
    length, target_length = torch.tensor([24]), torch.tensor([3])

    def train(weight: float) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        logits = torch.zeros(1, 24, VOCABULARY + 1)
        logits[..., BLANK] = 2
        for token, frame in enumerate([8, 14, 20]):
            logits[0, frame, token] = 5
        logits.requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.05)
        for _ in range(150):
            log_probs = logits.log_softmax(-1)
            loss = F.ctc_loss(log_probs.transpose(0, 1), targets, length, target_length, blank=BLANK, reduction="sum")
            if weight:
                extra = align_with_purpose_loss(log_probs, length, Earlier(generator), samples=5, generator=generator)
                loss = loss + weight * extra.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return logits.detach()[0].argmax(-1)

    plain, early = token_spans(train(0), BLANK), token_spans(train(0.1), BLANK)
    assert [token for token, _, _ in plain] == [token for token, _, _ in early] == [0, 1, 2]
    gain = [was - now for (_, was, _), (_, now, _) in zip(plain, early, strict=True)]
    assert min(gain) >= 0
    assert sum(gain) >= 6, gain


def test_it_is_fast_for_whole_batches() -> None:
    """No loop over frames: the number of operations does not depend on their number."""

    def operations(steps: int) -> int:
        with torch.profiler.profile(acc_events=True) as profile:
            align_with_purpose_loss(noise(2, steps), torch.tensor([steps, steps // 2]), Earlier(), samples=4)
        return sum(event.count for event in profile.key_averages() if event.key.startswith("aten::"))

    assert operations(20) == operations(400)


# Words of the toy vocabulary: tokens 0 and 1 begin a word, token 2 continues one.
WORD_START = [True, True, False]


def correct(alignment: list[int], target: list[int], log_probs: Tensor | None = None) -> list[int] | None:
    """Correct one word of one alignment; None where nothing was."""
    improve = WordCorrection(torch.tensor([target + [0] * (8 - len(target))]), torch.tensor([len(target)]), WORD_START)
    scores = noise(1, len(alignment)) if log_probs is None else log_probs
    better, found = improve(scores, torch.tensor([[alignment]]), torch.tensor([len(alignment)]))
    return better[0, 0].tolist() if found else None


def word_errors(tokens: list[int], target: list[int]) -> int:
    def words(ids: list[int]) -> list[str]:
        return "".join(" abc"[0] * WORD_START[i] + "abc"[i] for i in ids).split()

    a, b = words(tokens), words(target)
    return sum(i is None or j is None or a[i] != b[j] for i, j in align_sequences(a, b))


def test_a_substituted_word_is_replaced() -> None:
    better = correct([BLANK, 0, 0, BLANK, 1, BLANK, 0, BLANK], [0, 1, 2, 0])  # a b a for a bc a
    assert better is not None
    assert text_of(torch.tensor(better)) == [0, 1, 2, 0]
    assert better[:3] == [BLANK, 0, 0]
    assert better[6:] == [0, BLANK]


def test_an_inserted_word_is_blanked_and_a_missing_one_put_in() -> None:
    assert correct([0, 1, 0, BLANK], [0, 1]) == [0, 1, BLANK, BLANK]
    put = correct([0, BLANK, BLANK, BLANK], [0, 1])
    assert put is not None
    assert text_of(torch.tensor(put)) == [0, 1]


def test_the_right_word_takes_its_likeliest_frames() -> None:
    log_probs = torch.full((1, 7, VOCABULARY + 1), -5.0)
    log_probs[0, :, BLANK] = -0.1
    log_probs[0, 4, 1] = 0.0
    assert correct([0, BLANK, 0, BLANK, BLANK, BLANK, 0], [0, 1, 0], log_probs) == [0, BLANK, BLANK, BLANK, 1, BLANK, 0]


def test_a_word_that_does_not_fit_is_left() -> None:
    assert correct([0, 1, 0], [0, 1, 2, 0]) is None
    assert correct([0, 1], [0, 0]) is None  # would merge with its neighbour
    assert correct([0, 1, BLANK], [0, 1]) is None  # nothing wrong


@settings(max_examples=100, deadline=None)
@given(
    alignment=st.lists(st.integers(0, BLANK), min_size=6, max_size=14),
    target=st.lists(st.integers(0, VOCABULARY - 1), min_size=0, max_size=5),
    seed=st.integers(0, 50),
)
def test_a_correction_removes_exactly_one_word_error(alignment: list[int], target: list[int], seed: int) -> None:
    improve = WordCorrection(torch.tensor([[*target, 0]]), torch.tensor([len(target)]), WORD_START, seed)
    given_, length = torch.tensor([[alignment]]), torch.tensor([len(alignment)])
    better, found = improve(noise(1, len(alignment)), given_, length)
    before, after = text_of(given_[0, 0]), text_of(better[0, 0])
    if not found:
        assert before == after
    elif all(WORD_START[tokens[0]] for tokens in (before, after, target) if tokens):
        assert word_errors(after, target) == word_errors(before, target) - 1


def test_likeliest_path() -> None:
    log_probs = noise(1, 9)[0]
    path = likeliest_path(log_probs, [0, 0, 1])
    assert path is not None
    assert text_of(path) == [0, 0, 1]
    assert likeliest_path(log_probs[:3], [0, 0, 1]) is None  # two equal tokens need a blank between them
    empty = likeliest_path(log_probs, [])
    assert empty is not None
    assert empty.tolist() == [BLANK] * 9
