from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.asr.whisper.live.word_timing import APART, FAINTEST, in_order, word_spans


def peaked(*frames: int, size: int = 100) -> np.ndarray:
    """Weights (T, size) with a peak and two slopes at each of the frames."""
    distance = np.abs(np.arange(size) - np.array(frames)[:, None])
    return (0.5 ** (1.0 + distance)).astype(np.float32)


def test_tokens_in_order_attend_where_they_do() -> None:
    assert in_order(peaked(10, 30, 31 + APART), 0).tolist() == [10, 30, 31 + APART]


def test_tokens_that_attend_to_one_frame_lie_apart_around_it() -> None:
    first, second, third = in_order(peaked(20, 50, 50), 0)
    assert first == 20
    assert 50 - APART <= second <= 50 <= third == second + APART


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(5, 12), st.integers(0, 11), st.integers(0, 2**32 - 1))
def test_no_other_frames_have_a_greater_product(tokens: int, frames: int, after: int, seed: int) -> None:
    weights = np.random.default_rng(seed).random((tokens, frames)).astype(np.float32)
    after = min(after, frames - 1)
    found = in_order(weights, after)
    apart = min(APART, (frames - after) // (tokens + 1))
    scores = np.log(np.maximum(weights, FAINTEST))
    allowed = [
        places
        for places in itertools.product(range(min(after + apart, frames - 1), frames), repeat=tokens)
        if all(b - a >= apart for a, b in itertools.pairwise(places))
    ]
    best = max(sum(scores[i, place] for i, place in enumerate(places)) for places in allowed)
    assert tuple(found) in allowed
    np.testing.assert_allclose(sum(scores[i, place] for i, place in enumerate(found)), best, rtol=1e-5)


def test_words_have_a_length_and_follow_each_other() -> None:
    attention = list(torch.from_numpy(peaked(30, 30, 30, 31)))
    spans = word_spans(attention, [1, 2, 1], 100, 10)
    assert spans[0][0] >= 10
    for (_, end), (begin, later) in itertools.pairwise(spans):
        assert end <= begin < later
    assert word_spans([], [], 100, 10) == []


def test_where_there_is_no_room_words_still_end_with_the_audio() -> None:
    attention = list(torch.from_numpy(peaked(30, 30, 30)))
    assert all(38 <= begin <= end <= 40 for begin, end in word_spans(attention, [1, 1, 1], 40, 38))
    assert all(begin == end == 50 for begin, end in word_spans(attention, [1, 1, 1], 40, 50))
