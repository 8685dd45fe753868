"""Sentences that span captions, put together to be translated whole, and shared out over their captions again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loquent.speech.runtime.events import Event, Translation
from loquent.speech.text.shares import shared_out

PAUSE_S = 3.0  # no sentence goes on after it
LONGEST = 1000  # characters of what is put together
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*$")
_APART = "[(♪"  # sounds and songs, which are not part of what is said around them


@dataclass(frozen=True)
class Piece:
    """The text of a caption, or of one speaker in it.

    start, end: in seconds.
    begins:     whether a sentence is known to begin here.
    """

    text: str
    start: float
    end: float
    begins: bool = False


def goes_on(before: Sequence[Piece], piece: Piece) -> bool:
    """Whether the sentence of the pieces so far may go on in another one."""
    last = before[-1]
    if piece.begins or piece.start - last.end >= PAUSE_S or sum(len(one.text) for one in before) >= LONGEST:
        return False
    if piece.text[:1] in _APART or last.text[:1] in _APART:
        return False
    return not _SENTENCE_END.search(last.text) or piece.text[:1].islower()


def groups(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Pieces put together up to where a sentence ends."""
    found: list[list[Piece]] = []
    for piece in pieces:
        if found and goes_on(found[-1], piece):
            found[-1].append(piece)
        else:
            found.append([piece])
    return found


def joined(texts: Sequence[str]) -> str:
    """The text that is translated for texts that follow each other; `divided` knows it as well."""
    return " ".join(texts)


def divided(texts: Sequence[str], events: Iterable[Event]) -> list[str]:
    """The translation of `joined` texts, text by text.

    Args:
        events: of the translator; each `Translation` is shared out over the texts that its span touches, and one that
            stands for nothing is the text's before it.
    """
    begins = [0]
    for text in texts:
        begins.append(begins[-1] + len(text) + 1)
    parts = [""] * len(texts)
    for event in events:
        if not isinstance(event, Translation):
            continue
        first, end = event.span[0], max(event.span)
        lengths = [max(0, min(end, begins[at] + len(texts[at])) - max(first, begins[at])) for at in range(len(texts))]
        if not any(lengths):
            lengths[max((at for at in range(len(texts)) if begins[at] < end), default=0)] = 1
        parts = [before + part for before, part in zip(parts, shared_out(event.text, lengths), strict=True)]
    return [part.strip() for part in parts]
