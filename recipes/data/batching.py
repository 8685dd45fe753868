"""Batches of about equal duration, drawn anew for every epoch, the same for every run with the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BatchOptions:
    """The size of batches."""

    duration_s: float = 120.0  # of a batch with its padding, for each process
    utterances: int = 64  # at most
    buckets: int = 12  # groups of similar length; batches mix within a group only


class DurationBatches:
    """The batches of every epoch, as indices of utterances.

    Utterances are grouped by length, so that little is padded. A batch is filled until its longest utterance times
    their number would exceed the duration. Everything follows from the seed and the epoch: a run that was stopped asks
    for the same epoch and skips what it has had, and process r of n takes batches r, r + n, …

    Args:
        durations: of the utterances, in seconds.
        options: size of the batches.
        seed: of the order.
        weights: how often each utterance comes in an epoch on average, 1 by default; of 0.25 a quarter come, drawn
            anew each time.
    """

    def __init__(
        self,
        durations: Sequence[float],
        options: BatchOptions,
        seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.durations, self.options, self.seed = np.asarray(durations, dtype=np.float64), options, seed
        self.weights = np.ones(len(self.durations)) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(self.durations) == 0 or len(self.weights) != len(self.durations):
            raise ValueError(f"expected a weight for each utterance, got {len(self.weights)} for {len(self.durations)}")
        longest = self.durations.max()
        if longest > options.duration_s:
            raise ValueError(
                f"the longest utterance has {longest:.1f} s but a batch only {options.duration_s} s; "
                "raise duration_s or leave out long utterances"
            )
        # Every bucket holds about the same share of the audio.
        ordered = np.sort(self.durations)
        share = np.cumsum(ordered) / ordered.sum()
        at = np.searchsorted(share, np.arange(1, options.buckets) / options.buckets)
        self._edges = ordered[np.minimum(at, len(ordered) - 1)]

    def epoch(self, number: int, rank: int = 0, processes: int = 1) -> list[list[int]]:
        """The batches of one epoch that this process works on; every process gets equally many."""
        rng = np.random.default_rng((self.seed, number))
        copies = np.floor(self.weights + rng.random(len(self.weights))).astype(int)
        drawn = np.repeat(np.arange(len(self.weights)), copies)
        rng.shuffle(drawn)
        bucket = np.searchsorted(self._edges, self.durations[drawn])
        batches = [batch for one in range(len(self._edges) + 1) for batch in self._filled(drawn[bucket == one])]
        order = rng.permutation(len(batches))
        order = order[: len(order) // processes * processes] if len(order) >= processes else np.resize(order, processes)
        return [batches[index] for index in order[rank::processes]]

    def _filled(self, indices: np.ndarray) -> list[list[int]]:
        batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0.0
        for index in indices.tolist():
            longer = max(longest, float(self.durations[index]))
            if batch and (longer * (len(batch) + 1) > self.options.duration_s or len(batch) == self.options.utterances):
                batches.append(batch)
                batch, longer = [], float(self.durations[index])
            batch.append(index)
            longest = longer
        return [*batches, batch] if batch else batches
