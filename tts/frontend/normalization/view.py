"""What a rule of reading sees, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loquent.tts.frontend.normalization.pieces import Piece


class Undecided(Exception):
    """What a rule wants to see has not come yet."""


class Letter(str):
    """A word that is the name of a letter: "A", not the article."""

    __slots__ = ()


@dataclass(frozen=True)
class Reading:
    """How some pieces are spoken.

    words:   of each piece, as they are spoken; none if nothing of it is. Its punctuation stands around them.
    closing: the punctuation behind the last piece, if it is not all that is written there.
    """

    words: tuple[tuple[str, ...], ...]
    closing: str | None = None


@dataclass(frozen=True)
class View:
    """The pieces that wait to be spoken, and what was before them.

    pieces:   the first is the one to be read.
    complete: whether no more come before the utterance ends.
    before:   the last pieces of the utterance with the punctuation behind them, the last one last.
    """

    pieces: Sequence[Piece]
    complete: bool
    before: tuple[str, ...]

    @property
    def piece(self) -> Piece:
        """The one to be read."""
        return self.pieces[0]

    @property
    def core(self) -> str:
        """Its text without punctuation."""
        return self.pieces[0].core

    def after(self, count: int = 1) -> Piece | None:
        """A piece further on; None if there is none before the utterance ends or breaks.

        Raises:
            Undecided: it has not come yet.
        """
        for piece in self.pieces[1 : count + 1]:
            if not piece.text or piece.unread:
                return None
        if count < len(self.pieces):
            return self.pieces[count]
        if self.complete:
            return None
        raise Undecided

    def follower(self, count: int = 1) -> str:
        """The core of a piece further on, "" if there is punctuation before it, or no such piece.

        Raises:
            Undecided: it has not come yet.
        """
        for index in range(count):
            before = self.pieces[0] if index == 0 else self.after(index)
            if before is None or before.closing:
                return ""
        piece = self.after(count)
        return piece.core if piece and not piece.opening else ""

    def preceding(self, count: int = 1) -> str:
        """A piece before it, with the punctuation behind that; "" if there is none."""
        return self.before[-count] if count <= len(self.before) else ""


def said(words: Iterable[str], closing: str | None = None) -> Reading:
    """A reading of one piece."""
    return Reading((tuple(words),), closing)
