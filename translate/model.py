"""What a model of translation is to the task that runs it: it reads pieces, drafts what comes next, and commits.

Every kind of model has this face: one that never reads a word twice, one that encodes the whole prefix again, a
language model. Policies look at drafts alone, so each works with each model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from loquent.speech.nn.state import State

MOST_DRAFT = 128  # pieces of one draft


@dataclass(frozen=True)
class Term:
    """Source pieces whose translation is given.

    first, last: numbers of the pieces in the segment, the last included.
    pieces:      what is written for them.
    """

    first: int
    last: int
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """How to draft what comes next in one stream.

    most_words:  words that may be written; the draft ends before the piece that would begin one more.
    most_pieces: pieces that may be written.
    ended:       whether the segment of the source has ended; the draft may then go on to the end of its translation.
    follows:     whether words of the segment are committed, with the last of which the draft does not go on.
    margin:      AlignAtt: end before the first piece that attends most to the newest so many source pieces; of a
                 segment that has not ended.
    beam:        hypotheses that are followed; 1 is greedy.
    previous:    pieces of the draft before this one, behind the same committed text.
    bias:        share of the probability that goes to the piece of ``previous``, until the draft departs from it.
    terms:       source pieces whose translation is given and not written yet.
    latency:     for models that were taught several: low, medium or high.
    """

    most_words: int | None = None
    most_pieces: int = MOST_DRAFT
    ended: bool = False
    follows: bool = False
    margin: int | None = None
    beam: int = 1
    previous: tuple[int, ...] = ()
    bias: float = 0.0
    terms: tuple[Term, ...] = ()
    latency: str | None = None


@dataclass
class Draft:
    """What a model would write next, behind what is committed.

    pieces:        in order; the end is none of them.
    attended:      number of the source piece in the segment that each attends to most; empty if the model cannot tell.
    probabilities: of each.
    complete:      whether the translation of what was read is at its end, or, for a model that was taught when to wait
                   (`TranslationModel.waits`), at a place to wait.
    breaks:        whether the last piece is known to end its word: the draft stopped before one that begins another.
    others:        the pieces of the other hypotheses of a beam.
    written:       numbers of the terms of the search that are in it.
    finite:        whether all scores were numbers; if not, the draft means nothing.
    """

    pieces: list[int] = field(default_factory=list)
    attended: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    complete: bool = False
    breaks: bool = False
    others: list[list[int]] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    finite: bool = True

    @property
    def tokens(self) -> list[int]:
        """The pieces, as the rules of `loquent.speech.policies.commit` call them."""
        return self.pieces


class Codec(Protocol):
    """Text to pieces and back.

    begins_word: of each piece; in languages without spaces, every piece does.
    inner:       of each piece, whether it can only be within a word: it begins with a letter, a digit or a byte and no
                 space. In languages without spaces none is.
    exotic:      of each piece, whether it stands for a byte of a character that the model has no piece for.
    """

    @property
    def begins_word(self) -> Sequence[bool]: ...

    @property
    def inner(self) -> Sequence[bool]: ...

    @property
    def exotic(self) -> Sequence[bool]: ...

    def encode(self, text: str) -> list[int]:
        """Pieces of whole words, of which nothing but the space before them depends on their neighbours."""

    def decode(self, pieces: Sequence[int]) -> str:
        """The text of pieces, without the space before the first word."""


class TranslationModel(Protocol):
    """A model and its pool of streams, each of which is in the middle of one segment.

    source, target: codes of the languages.
    codec:        of the source; ``target_codec`` of the target, which may be the same.
    most_source:  pieces of a segment that can be held at a time; the task makes room with `forget`.
    default_policy: name of the policy that suits the model; see `loquent.translate.options`.
    waits:        whether the model was taught when to wait for more of the source: the policy "learned".
    fingerprint:  of weights and settings.
    """

    source: str
    target: str
    most_source: int
    default_policy: str
    waits: bool
    fingerprint: str

    @property
    def codec(self) -> Codec: ...

    @property
    def target_codec(self) -> Codec: ...

    def initial_state(self, slots: int) -> State:
        """Pool of streams at the beginning of a segment. To begin another one, the task resets a row."""

    def read(self, pieces: Sequence[Sequence[int]], ends: Sequence[bool], state: Any, rows: Tensor) -> None:
        """Append source pieces to the segments of some streams.

        Args:
            pieces: of each stream, possibly none.
            ends: whether each segment ends behind them.
            state: the pool, updated in place.
            rows: (B,) int64 slots of the streams.
        """

    def draft(self, searches: Sequence[Search], state: Any, rows: Tensor) -> list[Draft]:
        """Look for what comes next in some streams; their state does not change, as far as it can be seen."""

    def commit(self, drafts: Sequence[Draft], counts: Sequence[int], state: Any, rows: Tensor) -> None:
        """Make the first ``counts`` pieces of the newest drafts what is committed."""

    def forget(self, counts: Sequence[int], state: Any, rows: Tensor) -> None:
        """Never attend again to the oldest ``counts`` source pieces that are held; numbers of pieces do not change."""
