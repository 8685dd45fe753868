"""What a stream of a Marian model is: the source pieces that it holds, and what was written for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.speech.nn.state import State, check_range

MOST_SOURCE = 256  # pieces of a segment; Marian's students are trained on fewer
MOST_TARGET = 512  # committed pieces that the decoder is given again


@dataclass
class MarianState(State):
    """A segment of each stream, as pieces: the network is run again on all of them for every draft.

    source:   the newest ``held`` pieces of the ``read`` ones, left-aligned.
    target:   the ``written`` committed pieces that the decoder is given, left-aligned.
    attended: number of the source piece that each of them attends to most.
    """

    source: Tensor  # (S, MOST_SOURCE) int64
    target: Tensor  # (S, MOST_TARGET) int64
    attended: Tensor  # (S, MOST_TARGET) int64
    read: Tensor  # (S,) int64
    held: Tensor  # (S,) int64
    written: Tensor  # (S,) int64
    source_vocabulary: int = 0
    target_vocabulary: int = 0

    @classmethod
    def of(cls, slots: int, vocabularies: tuple[int, int], device: torch.device) -> MarianState:
        """Streams that have read nothing.

        Args:
            slots: how many.
            vocabularies: pieces of the source and of the target.
            device: where they are kept.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(slots, *shape, dtype=torch.long, device=device)

        source, target, attended = zeros(MOST_SOURCE), zeros(MOST_TARGET), zeros(MOST_TARGET)
        return cls(source, target, attended, zeros(), zeros(), zeros(), *vocabularies)

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("source", self.source, 0, self.source_vocabulary - 1)
        check_range("target", self.target, 0, self.target_vocabulary - 1)
        check_range("held", self.held, 0, MOST_SOURCE)
        check_range("written", self.written, 0, MOST_TARGET)
        if bool((self.held > self.read).any()):
            raise ValueError("state 'held' has more pieces than were read")

    def append(self, pieces: Sequence[Sequence[int]], rows: Tensor) -> None:
        """Append source pieces to the segments in ``rows``.

        Raises:
            ValueError: one does not hold so many; nothing is changed then.
        """
        counts = torch.tensor([len(one) for one in pieces], device=rows.device)
        held = self.held[rows]
        if bool((held + counts > MOST_SOURCE).any()):
            raise ValueError(f"a segment has more than {MOST_SOURCE} source pieces; forget some before reading")
        new = torch.tensor([piece for one in pieces for piece in one], dtype=torch.long, device=rows.device)
        ends = counts.cumsum(0)
        place = torch.arange(len(new), device=rows.device) - (ends - counts - held).repeat_interleave(counts)
        self.source[rows.repeat_interleave(counts), place] = new
        self.held[rows] += counts
        self.read[rows] += counts

    def write(self, slot: int, pieces: Sequence[int], attended: Sequence[int]) -> None:
        """Replace what the decoder of a stream is given by the newest of these committed pieces."""
        pieces, attended = pieces[-MOST_TARGET:], attended[-MOST_TARGET:]
        self.target[slot, : len(pieces)] = torch.tensor(pieces, dtype=torch.long, device=self.target.device)
        self.attended[slot, : len(pieces)] = torch.tensor(attended, dtype=torch.long, device=self.target.device)
        self.written[slot] = len(pieces)

    def written_by(self, slot: int) -> tuple[list[int], list[int]]:
        """The committed pieces that the decoder of a stream is given, and what each attends to."""
        count = int(self.written[slot])
        return self.target[slot, :count].tolist(), self.attended[slot, :count].tolist()

    def drop_source(self, slot: int, count: int) -> None:
        """Forget the oldest pieces of a stream that are held."""
        held = int(self.held[slot])
        count = min(count, held)
        self.source[slot, : held - count] = self.source[slot, count:held].clone()
        self.held[slot] = held - count
