"""Batches: complete, bounded, the same for everyone with the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.recipes.data.batching import BatchOptions, DurationBatches

durations = st.lists(st.floats(0.1, 10.0), min_size=1, max_size=120)


@settings(max_examples=40, deadline=None)
@given(durations=durations, seed=st.integers(0, 99), epoch=st.integers(0, 3), buckets=st.integers(1, 9))
def test_an_epoch_has_everything_once_and_nothing_too_long(
    durations: list[float], seed: int, epoch: int, buckets: int
) -> None:
    options = BatchOptions(duration_s=15.0, utterances=8, buckets=buckets)
    batches = DurationBatches(durations, options, seed).epoch(epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(durations)))
    for batch in batches:
        assert 1 <= len(batch) <= 8
        assert len(batch) * max(durations[index] for index in batch) <= 15.0


@settings(max_examples=30, deadline=None)
@given(durations=durations, processes=st.integers(1, 4))
def test_processes_share_an_epoch(durations: list[float], processes: int) -> None:
    made = DurationBatches(durations, BatchOptions(duration_s=12.0, utterances=4))
    shares = [made.epoch(2, rank, processes) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    whole = made.epoch(2)
    if len(whole) >= processes:
        seen = [tuple(batch) for share in shares for batch in share]
        assert len(set(seen)) == len(seen) == len(whole) // processes * processes
        assert set(seen) <= {tuple(batch) for batch in whole}


def test_seed_and_epoch_decide_the_order() -> None:
    rng = np.random.default_rng(0)
    durations = rng.uniform(0.5, 5, 200).tolist()
    options = BatchOptions(duration_s=20.0)
    made = DurationBatches(durations, options, seed=1)
    assert made.epoch(0) == DurationBatches(durations, options, seed=1).epoch(0)
    assert made.epoch(0) != made.epoch(1)
    assert made.epoch(0) != DurationBatches(durations, options, seed=2).epoch(0)


def test_little_is_padded() -> None:
    durations = np.random.default_rng(0).lognormal(0.5, 0.8, 2000).clip(0.2, 20)
    made = DurationBatches(durations.tolist(), BatchOptions(duration_s=60.0, utterances=500, buckets=12))
    batches = made.epoch(0)
    padded = sum(len(batch) * max(durations[index] for index in batch) for batch in batches)
    assert durations.sum() / padded > 0.85


def test_weights_are_how_often_an_utterance_comes() -> None:
    made = DurationBatches([1.0] * 4, BatchOptions(duration_s=4.0), weights=[0.0, 0.25, 1.0, 2.5])
    seen = Counter(index for epoch in range(400) for batch in made.epoch(epoch) for index in batch)
    assert seen[0] == 0
    assert seen[1] == pytest.approx(100, abs=30)
    assert seen[2] == 400
    assert seen[3] == pytest.approx(1000, abs=30)


def test_what_fits_no_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the longest utterance has 20\.0 s but a batch only 10"):
        DurationBatches([1.0, 20.0], BatchOptions(duration_s=10))
    with pytest.raises(ValueError, match="a weight for each utterance"):
        DurationBatches([1.0, 2.0], BatchOptions(), weights=[1.0])
