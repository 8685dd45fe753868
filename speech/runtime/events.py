"""Events: what a stream says, one small family for every task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. The session stamps the three fields that place it in its stream.

    stream:        id of the stream it belongs to.
    sequence:      0, 1, 2, … within the stream, without gaps.
    emission_time: seconds of audio that had been processed when the event was made; the same for every packet size.
    """

    type: ClassVar[str]
    stream: str = ""
    sequence: int = 0
    emission_time: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary with a ``type`` key, ready for JSON; times rounded to 0.1 ms."""
        values = dataclasses.asdict(self)
        return {"type": self.type} | {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}

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
        return kind(**{name: value for name, value in values.items() if name in names})


@dataclass(frozen=True, kw_only=True)
class Partial(Event):
    """The utterance so far. ``stable`` only ever grows within an utterance; ``unstable`` may change or vanish."""

    type: ClassVar[str] = "partial"
    stable: str
    unstable: str


@dataclass(frozen=True, kw_only=True)
class Word(Event):
    """A committed word, with its times in seconds from the start of the stream and its probability.

    ``text`` carries its leading space, so that joining the words of a stream gives its text.
    """

    type: ClassVar[str] = "word"
    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Final(Event):
    """A finished utterance: the text of all its words, and its times in seconds from the start of the stream."""

    type: ClassVar[str] = "final"
    text: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Endpoint(Event):
    """The speaker has stopped (or the utterance grew too long); ``rule`` names the rule that fired."""

    type: ClassVar[str] = "endpoint"
    rule: str
    time: float


@dataclass(frozen=True, kw_only=True)
class Marker(Event):
    """Everything pushed before ``marker(id)`` has been processed."""

    type: ClassVar[str] = "marker"
    id: str


@dataclass(frozen=True, kw_only=True)
class Failure(Event):
    """The stream cannot go on; what was committed stays valid."""

    type: ClassVar[str] = "failure"
    code: str
    message: str
