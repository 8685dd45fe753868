"""The utterances of all shards by one number, and what the parts of the voice make batches of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from loquent.recipes.voice.data import Shard, Utterance


class Corpus:
    """Shards, read when their utterances are asked for."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = [Shard(path) for path in shards]
        self._starts = [0]
        for shard in self.shards:
            self._starts.append(self._starts[-1] + len(shard))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Utterance:
        shard = bisect_right(self._starts, index) - 1
        return self.shards[shard][index - self._starts[shard]]

    @property
    def phone_counts(self) -> list[int]:
        """Phones of each utterance."""
        return [count for shard in self.shards for count in shard.phone_counts]

    @property
    def unit_counts(self) -> list[int]:
        """Units of 25 ms of each utterance."""
        return [count for shard in self.shards for count in shard.unit_counts]


class Part(Protocol):
    """A network of the voice, and how it is trained."""

    module: nn.Module  # called with a batch; returns the loss, a scalar, and figures for the log
    judged_by: str  # which figure of `evaluate` chooses the best weights: the lowest wins

    def lengths(self) -> list[float]:
        """What the size of batches is counted in, of each utterance that is trained on."""

    def collate(self, items: Sequence[int], epoch: int) -> Mapping[str, Any]:
        """A batch of utterances."""

    def evaluate(self) -> dict[str, float]:
        """Figures on the utterances of validation."""


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (T, …) as (B, T, …), and which steps are no padding: (B, T) bool."""
    data = pad_sequence(list(rows), batch_first=True)
    length = torch.tensor([len(row) for row in rows])
    return data, torch.arange(data.shape[1]) < length[:, None]
