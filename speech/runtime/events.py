"""Events: what a stream says, one small family for every task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. The session stamps the four fields that place it in its stream.

    stream:        id of the stream it belongs to.
    stage:         of a pipeline, by name; empty in a stream of one stage.
    sequence:      0, 1, 2, … within the stage, without gaps.
    emission_time: seconds of source audio that had been processed when the event was made; the same for every packet
                   size. For a task that takes text, the time of the last word it used.
    """

    type: ClassVar[str]
    stream: str = ""
    stage: str = ""
    sequence: int = 0
    emission_time: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary with a ``type`` key, ready for JSON.

        Times are rounded to 0.1 ms. An empty stage is left out, and so are an unknown speaker and samples, which travel
        beside the event.
        """
        values: dict[str, Any] = {"type": self.type}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                value = round(value, 4)
            if not (isinstance(value, np.ndarray) or value is None or (field.name == "stage" and not value)):
                values[field.name] = value
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Event:
        """Inverse of `to_dict`; unknown keys are ignored so that old clients read newer servers.

        Raises:
            ValueError: no event of that type.
        """
        kinds = {kind.type: kind for kind in Event.__subclasses__()}
        kind = kinds.get(values.get("type", ""))
        if kind is None:
            raise ValueError(f"unknown event type {values.get('type')!r}; expected one of {', '.join(sorted(kinds))}")
        names = {field.name for field in dataclasses.fields(kind)}
        given: dict[str, Any] = {}
        for name in names & values.keys():
            given[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
        return kind(**given)


@dataclass(frozen=True, kw_only=True)
class Partial(Event):
    """The utterance so far. ``stable`` only ever grows within an utterance; ``unstable`` may change or vanish."""

    type: ClassVar[str] = "partial"
    stable: str
    unstable: str


@dataclass(frozen=True, kw_only=True)
class Word(Event):
    """A committed word, with its times in seconds from the start of the stream and its probability.

    Of a recogniser, a word that was said; of a synthesiser, one that it says.

    ``text`` carries its leading space, so that joining the words of a stream gives its text. ``speaker``: who said it,
    0, 1, … in the order of first speaking; None where speakers are not told apart.
    """

    type: ClassVar[str] = "word"
    text: str
    start: float
    end: float
    confidence: float
    speaker: int | None = None


@dataclass(frozen=True, kw_only=True)
class Final(Event):
    """A finished utterance, heard or said: the text of all its words, and its times in seconds from the start.

    ``speaker``: who said most of it, as in `Word`.
    """

    type: ClassVar[str] = "final"
    text: str
    start: float
    end: float
    speaker: int | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint(Event):
    """The speaker has stopped (or the utterance grew too long); ``rule`` names the rule that fired."""

    type: ClassVar[str] = "endpoint"
    rule: str
    time: float


@dataclass(frozen=True, kw_only=True)
class Language(Event):
    """The language that the words which follow are in, where it was not told but detected.

    probability: among the languages that it may be.
    """

    type: ClassVar[str] = "language"
    language: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Activity(Event):
    """Somebody began to speak at ``time``, or stopped: told within a few frames, long before an utterance is over."""

    type: ClassVar[str] = "activity"
    speaking: bool
    time: float


@dataclass(frozen=True, kw_only=True)
class Translation(Event):
    """Committed text in another language (or another form), to be appended to what came before it.

    span: characters of the source text, from the start of the stream, that it stands for: (first, one past the last);
          (0, 0) if the source is speech, which has none.
    """

    type: ClassVar[str] = "translation"
    text: str
    span: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Speech(Event):
    """Synthetic speech, to be played as soon as it comes, right after what came before it.

    samples:     (N,) float32, nominally in [-1, 1].
    sample_rate: in Hz.
    text:        what is said in it, and ``span``: characters of the stream's input text that it stands for.
    start, end:  seconds of speech from the start of the stream. Where the voice follows the clock of its text, there
                 are gaps between events: a live player has waited so long anyway, and a file has silence there.
    """

    type: ClassVar[str] = "speech"
    samples: np.ndarray
    sample_rate: int
    text: str
    span: tuple[int, int]
    start: float
    end: float

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal, every sample included."""
        if not isinstance(other, Speech):
            return NotImplemented
        same = {name: value for name, value in vars(self).items() if name != "samples"}
        return same.items() <= vars(other).items() and np.array_equal(self.samples, other.samples)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Interrupted(Event):
    """What was being said was stopped.

    text:   what was heard, and ``span``: its characters in the stream's input text.
    heard:  seconds of the stream's speech that were heard.
    """

    type: ClassVar[str] = "interrupted"
    text: str
    span: tuple[int, int]
    heard: float


@dataclass(frozen=True, kw_only=True)
class Skipped(Event):
    """Input text that is not spoken; ``reason`` says why. ``span``: its characters in the stream's input text."""

    type: ClassVar[str] = "skipped"
    text: str
    span: tuple[int, int]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Marker(Event):
    """Everything pushed before ``marker(id)`` has been processed."""

    type: ClassVar[str] = "marker"
    id: str


@dataclass(frozen=True, kw_only=True)
class Unanswered(Event):
    """What was said to an agent got no reply, or one that broke off; ``code`` and ``message`` say why. The stream goes
    on."""

    type: ClassVar[str] = "unanswered"
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Failure(Event):
    """The stream cannot go on; what was committed stays valid."""

    type: ClassVar[str] = "failure"
    code: str
    message: str
