"""What a search asks of a decoder: one step of many hypotheses at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from loquent.translate.model import Search


class Scores(NamedTuple):
    """Of the next piece of each hypothesis.

    logits:   (N, V).
    attended: (N,) int64, number of the source piece that is attended to most.
    """

    logits: Tensor
    attended: Tensor


class Stepper(Protocol):
    """Hypotheses of a batch of streams, one for each at the beginning.

    first:       (N,) int64, what each is given first: the last committed piece.
    read:        source pieces that each stream has read.
    end:         the piece that ends a translation.
    begins_word: of each piece.
    inner:       (V,) bool, pieces that can only be within a word; see `Codec`.
    """

    @property
    def first(self) -> Tensor: ...

    @property
    def read(self) -> Sequence[int]: ...

    @property
    def end(self) -> int: ...

    @property
    def begins_word(self) -> Sequence[bool]: ...

    @property
    def inner(self) -> Tensor: ...

    def step(self, pieces: Tensor) -> Scores:
        """Give each hypothesis a piece, (N,) int64; returns the scores of its next one."""

    def select(self, index: Tensor) -> None:
        """Go on with some of the hypotheses, (M,) int64; one may come more than once."""


def first_scores(stepper: Stepper, pieces: Tensor, searches: Sequence[Search]) -> Scores:
    """The scores of the first piece of each draft; those that would go on with a committed word are -inf."""
    scores = stepper.step(pieces)
    follows = torch.tensor([search.follows for search in searches], device=pieces.device)
    return scores._replace(logits=scores.logits.masked_fill(follows[:, None] & stepper.inner, -inf))


class Stop(NamedTuple):
    """Why a hypothesis goes no further.

    complete: the model is at the end.
    breaks:   the piece before it is known to end a word.
    """

    complete: bool
    breaks: bool


def stop_before(
    piece: int, attended: int, words: int, length: int, search: Search, read: int, end: int, begins: bool
) -> Stop | None:
    """Whether a hypothesis ends before a piece that the model would write next.

    Args:
        piece, attended: the piece, and the source piece that it attends to most.
        words, length: words and pieces of the hypothesis so far.
        read: source pieces so far.
        end: the piece that ends a translation.
        begins: whether the piece begins a word.
    """
    if piece == end:
        return Stop(complete=True, breaks=True)
    if begins and search.most_words is not None and words >= search.most_words:
        return Stop(complete=False, breaks=True)
    if search.margin is not None and not search.ended and attended >= read - search.margin:
        return Stop(complete=False, breaks=begins)
    if length >= search.most_pieces:
        return Stop(complete=False, breaks=begins)
    return None
