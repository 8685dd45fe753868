"""Streams of a language model that translates: two groups of pieces, with keys and values for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loquent.speech.lm.decoder import KeyValueState
from loquent.speech.nn.state import State, check_range

SOURCE, TARGET = 0, 1


class Progress(NamedTuple):
    """Where a stream is in its segment.

    prefix:      entries of the instruction; 0 before the model was given it.
    source:      source pieces that are held, and ``source_run`` of them the model was given.
    target:      target pieces, with what stands before them and the marks between them; ``target_run`` likewise.
    gone, lost:  source and target pieces that were forgotten.
    clock:       position behind the newest piece of the source; interleaved, of either side. Without the instruction.
    drafted:     pieces behind the target that the model was given for the newest draft.
    writing:     interleaved: 1 between a mark that ends reading and one that ends writing.
    newest:      interleaved: the group of the newest piece.
    """

    prefix: int = 0
    source: int = 0
    source_run: int = 0
    target: int = 0
    target_run: int = 0
    gone: int = 0
    lost: int = 0
    clock: int = 0
    drafted: int = 0
    writing: int = 0
    newest: int = SOURCE


class Entry(NamedTuple):
    """The sizes of the groups of entries, which lie behind each other; a last entry takes what nobody sees."""

    prefix: int
    source: int
    target: int

    @property
    def total(self) -> int:
        """Of all entries."""
        return self.prefix + self.source + self.target + 1

    def first(self, group: int) -> int:
        """Of a group."""
        return self.prefix if group == SOURCE else self.prefix + self.source

    def columns(self, source: int, target: int) -> tuple[slice, ...]:
        """The entries to look at, when no stream holds more pieces than these."""
        first = self.first(TARGET)
        return slice(0, self.prefix + source), slice(first, first + target)


@dataclass
class LanguageModelState(State):
    """A pool of streams.

    tokens:   (S, R) int64, the piece in each entry. The instruction's keys and values are there, its pieces are not.
    places:   (S, R) int64, its position, without the instruction.
    progress: (S, 11) int64, see `Progress`.
    """

    layers: tuple[KeyValueState, ...]
    tokens: Tensor
    places: Tensor
    progress: Tensor
    vocabulary: int
    prefix: int
    source: int
    target: int

    @property
    def entry(self) -> Entry:
        """Sizes of the groups."""
        return Entry(self.prefix, self.source, self.target)

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("tokens", self.tokens, 0, self.vocabulary - 1)
        values = dict(zip(Progress._fields, self.progress.unbind(1), strict=True))
        for name, most in (("prefix", self.prefix), ("source", self.source), ("target", self.target)):
            check_range(name, values[name], 0, most)
        for name in ("writing", "newest"):
            check_range(name, values[name], 0, 1)
        check_range("source_run", values["source"] - values["source_run"], 0, self.source)
        check_range("target_run", values["target"] - values["target_run"], 0, self.target)
        check_range("drafted", values["target"] + values["drafted"], 0, self.target)

    def where(self, rows: Tensor) -> list[Progress]:
        """Of some streams."""
        return [Progress(*values) for values in self.progress[rows].tolist()]

    def move_on(self, rows: Tensor, progress: list[Progress]) -> None:
        """Set the progress of some streams."""
        if progress:
            self.progress[rows] = torch.tensor(progress, device=rows.device)

    def write(self, row: int, first: int, tokens: list[int], places: list[int]) -> None:
        """Put pieces into entries of a stream, from one on."""
        span = slice(first, first + len(tokens))
        self.tokens[row, span] = torch.tensor(tokens, device=self.tokens.device, dtype=torch.long)
        self.places[row, span] = torch.tensor(places, device=self.tokens.device, dtype=torch.long)

    def drop(self, row: int, first: int, held: int, count: int) -> None:
        """Forget the first ``count`` of the ``held`` entries from ``first`` on; the others move up."""
        new, old = slice(first, first + held - count), slice(first + count, first + held)
        for table in (self.tokens, self.places):
            table[row, new] = table[row, old].clone()
        for layer in self.layers:
            for pool in (layer.k, layer.v):
                pool[row, :, new] = pool[row, :, old].clone()


def orders(entry: Entry, progress: list[Progress], drafted: list[int], columns: tuple[slice, ...]) -> np.ndarray:
    """(B, N) int64 when each looked-at entry was given: -1 for before, a number too large for never.

    Args:
        drafted: pieces behind the target of each stream that count as given.
    """
    order = np.full((len(progress), entry.total), np.iinfo(np.int64).max)
    for at, (one, more) in enumerate(zip(progress, drafted, strict=True)):
        order[at, : one.prefix] = -1
        for group, count in ((SOURCE, one.source_run), (TARGET, one.target_run + more)):
            first = entry.first(group)
            order[at, first : first + count] = -1
    return np.concatenate([order[:, part] for part in columns], axis=1)
