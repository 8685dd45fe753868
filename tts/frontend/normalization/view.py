"""What a rule of reading sees, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.tts.frontend.normalization.pieces import Piece


class Undecided(Exception):
    """What a rule wants to see has not come yet."""


@dataclass(frozen=True)
class Reading:
    """How some pieces are spoken.

    words:   of each piece, as they are spoken. Its punctuation goes to the first and to the last of them.
    closing: the punctuation behind the last piece, if it is not all that is written there.
    """

    words: tuple[tuple[str, ...], ...]
    closing: str | None = None


@dataclass(frozen=True)
class View:
    """The pieces that wait to be spoken, and what was before them.

    pieces:   the first is the one to be read.
    complete: whether no more come before the utterance ends.
    before:   cores of the last pieces of the utterance, the last one last.
    """

    pieces: Sequence[Piece]
    complete: bool
    before: tuple[str, ...]

    @property
    def piece(self) -> Piece:
        """The one to be read."""
        return self.pieces[0]

    def after(self, count: int = 1) -> Piece | None:
        """A piece further on; None if there is none before the utterance ends or breaks.

        Raises:
            Undecided: it has not come yet.
        """
        for piece in self.pieces[1 : count + 1]:
            if not piece.text:
                return None
        if count < len(self.pieces):
            return self.pieces[count]
        if self.complete:
            return None
        raise Undecided

    def core_before(self, count: int = 1) -> str:
        """The core of a piece before it, "" if there is none."""
        return self.before[-count] if count <= len(self.before) else ""


def said(*words: str) -> Reading:
    """A reading of one piece."""
    return Reading((tuple(words),))
