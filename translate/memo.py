"""What a translator remembers of one stream on the host: the segment under way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from loquent.translate.options import TranslationOptions


@dataclass(frozen=True)
class SourceWord:
    """A word of the segment whose pieces the model holds.

    text:        without the space around it.
    end:         position behind it in the stream's text, in characters.
    time_s:      of its last character.
    first, last: numbers of its pieces in the segment, the last included.
    """

    text: str
    end: int
    time_s: float
    first: int
    last: int


@dataclass(frozen=True)
class OpenTerm:
    """A term of the source that has not been written yet.

    first, last: numbers of its pieces in the segment, the last included.
    text:        what is to be written.
    """

    first: int
    last: int
    text: str


@dataclass
class TranslationMemo:
    """The segment under way, and what of it is committed.

    told:      characters of the source that committed text stands for, and ``position`` those that were read.
    words:     the newest of the segment, those that the model holds.
    read, held: pieces of the segment that were read, and that can be attended to.
    count:     words of the segment.
    text:      what is committed since the last `Final`, and ``start_s`` the time of its first source word.
    written:   words that are committed in the segment.
    attended:  source pieces that the newest committed pieces attend to most, those of each word together.
    covered:   the furthest of all of them.
    drafts:    pieces of the newest drafts, behind what is committed, the newest last.
    terms:     that were read and are not written.
    shown:     stable and unstable text of the last `Partial`.
    ended:     whether the stream is at its end.
    """

    options: TranslationOptions
    told: int = 0
    position: int = 0
    words: tuple[SourceWord, ...] = ()
    read: int = 0
    held: int = 0
    count: int = 0
    text: str = ""
    start_s: float = 0.0
    written: int = 0
    attended: tuple[tuple[int, ...], ...] = ()
    covered: int = -1
    drafts: tuple[tuple[int, ...], ...] = ()
    terms: tuple[OpenTerm, ...] = ()
    shown: tuple[str, str] = ("", "")
    ended: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)

    def begin_segment(self) -> None:
        """Forget the segment; the model's row is reset with it."""
        self.words, self.attended, self.drafts, self.terms = (), (), (), ()
        self.read = self.held = self.count = self.written = 0
        self.covered = -1
