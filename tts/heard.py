"""What a listener had heard of a stream's speech when it was interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from loquent.speech.runtime.events import Interrupted


class Said(Protocol):
    """A piece of the input text: its characters ``begin`` … ``end`` - 1, spoken up to sample ``last`` of the stream."""

    @property
    def text(self) -> str: ...

    @property
    def begin(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def last(self) -> int: ...


def heard_of(said: Sequence[Said], played: int, told: int, sample_rate: int) -> Interrupted:
    """The pieces that were heard whole.

    Args:
        said: in their order.
        played: samples that were heard. sample_rate: in Hz.
        told: character of the text to name if nothing was said.
    """
    heard = [piece for piece in said if piece.last <= played]
    begin = said[0].begin if said else told
    text = "".join(piece.text for piece in heard).strip()
    return Interrupted(text=text, span=(begin, heard[-1].end if heard else begin), heard=played / sample_rate)
