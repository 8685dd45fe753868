"""What a path writes as a draft: as much of it as the search wants, with the terms whose translation is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import dropwhile
from typing import NamedTuple

from loquent.translate.model import Codec, Draft, Search, Term
from loquent.translate.search.stepper import stop_before

NO_END = -1  # the end of a path is no piece


class Written(NamedTuple):
    """A piece of a path, the number of the source piece that it stands for, and its probability."""

    piece: int
    place: int
    probability: float


def draft_of(written: Iterable[Written], search: Search, read: int, codec: Codec) -> Draft:
    """Cut what a path writes to what the search wants.

    What would go on within the committed word before it is left out. A term is written where the path comes to its
    source, instead of the words that the path writes there.

    Args:
        written: by the path, behind what is committed.
        search: what is wanted; of a beam there is one hypothesis.
        read: source pieces so far.
        codec: of the target.
    """
    making = _Making(search, read, Draft(complete=True, breaks=True))
    replaced = False
    for one in dropwhile(lambda one: search.follows and codec.inner[one.piece], written):
        begins = codec.begins_word[one.piece] or not (making.draft.pieces or replaced or search.follows)
        if begins:
            if not making.add_terms(one.place):
                return making.draft
            replaced = any(search.terms[n].first <= one.place <= search.terms[n].last for n in making.draft.written)
        if not replaced and not making.add(one, begins):
            return making.draft
    making.add_terms(read)
    return making.draft


@dataclass
class _Making:
    search: Search
    read: int
    draft: Draft
    words: int = 0

    def add(self, one: Written, begins: bool) -> bool:
        """Append a piece; False if the draft ends before it."""
        draft = self.draft
        counts = self.words, len(draft.pieces)
        stop = stop_before(one.piece, one.place, *counts, self.search, self.read, end=NO_END, begins=begins)
        if stop is not None:
            draft.complete, draft.breaks = stop
            return False
        self._append(one, begins)
        return True

    def add_terms(self, place: int) -> bool:
        """Append the terms that begin in the source up to a place; False if the draft ends before one of them."""
        for number, term in enumerate(self.search.terms):
            if number in self.draft.written or term.first > place:
                continue
            first, *others = _pieces(term)
            if not self.add(first, True):
                return False
            for one in others:
                self._append(one, False)
            self.draft.written.append(number)
        return True

    def _append(self, one: Written, begins: bool) -> None:
        self.words += begins
        self.draft.pieces.append(one.piece)
        self.draft.attended.append(one.place)
        self.draft.probabilities.append(one.probability)


def _pieces(term: Term) -> list[Written]:
    return [Written(piece, term.last, 1.0) for piece in term.pieces]
