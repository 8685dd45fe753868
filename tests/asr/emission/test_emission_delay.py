"""Emission delay: pairing of words, reference times, chunks."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.asr.emission.delay import EmissionDelay, WordTime, frames_needed, token_ends, word_delays
from loquent.asr.emission.edit_distance import align_sequences


def test_pairs_of_words() -> None:
    assert align_sequences("a b d".split(), "a b c d".split()) == [(0, 0), (1, 1), (None, 2), (2, 3)]
    assert align_sequences("a x b".split(), "a b".split()) == [(0, 0), (1, None), (2, 1)]
    assert align_sequences("a x c".split(), "a b c".split()) == [(0, 0), (1, 1), (2, 2)]
    assert align_sequences([], "a".split()) == [(None, 0)]


def test_only_right_words_have_a_delay() -> None:
    spoken = [WordTime("turn", 0.5), WordTime("the", 0.7), WordTime("lights", 1.2), WordTime("off", 1.6)]
    emitted = [WordTime("turn", 0.9), WordTime("a", 1.0), WordTime("lights", 1.1), WordTime("off", 1.9)]
    assert word_delays(emitted, spoken) == pytest.approx([400, -100, 300])


def test_summary() -> None:
    delay = EmissionDelay.of([100.0, 200.0, 600.0])
    assert (delay.words, delay.mean_ms, delay.median_ms) == (3, 300, 200)
    assert delay.p95_ms == pytest.approx(560)
    assert delay.figures("set") == {
        "set/delay_mean_ms": 300,
        "set/delay_p50_ms": 200,
        "set/delay_p95_ms": delay.p95_ms,
    }
    assert str(delay) == "median 200 ms, 95th percentile 560 ms over 3 words"
    assert math.isnan(EmissionDelay.of([]).median_ms)


def test_token_ends_follow_the_posteriors() -> None:
    log_probs = torch.full((10, 3), -6.0)
    log_probs[:, 2] = -0.01
    for frame, token in ((2, 0), (3, 0), (7, 1)):
        log_probs[frame] = -6.0
        log_probs[frame, token] = -0.01
    assert token_ends(log_probs, [0, 1]) == [4, 8]
    assert token_ends(log_probs[:1], [0, 1]) is None


def test_a_chunk_comes_out_when_it_is_whole_or_the_stream_ends() -> None:
    frames = torch.arange(10)
    assert frames_needed(frames, 0, 10).tolist() == list(range(1, 11))
    assert frames_needed(frames, 3, 10).tolist() == [4, 4, 4, 4, 8, 8, 8, 8, 10, 10]
