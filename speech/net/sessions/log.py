"""The events of a stream that its client has not confirmed: they are sent again when it resumes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from loquent.speech.net.protocol import MAX_SOURCES
from loquent.speech.runtime.channels import source_of
from loquent.speech.runtime.events import Event, Partial, Speech

Received: TypeAlias = Mapping[str, int]  # by source (`source_of`): how many of its events the client has

_SIZE = 256  # bytes that an event is taken to need besides its text and samples


class EventLog:
    """Events in order, from the first one that the client has not confirmed.

    A source, such as a stage, numbers its events, and gives the same ones again when it is restored from an older
    snapshot and fed the same input. So what the client has already is told by its number.

    Attributes:
        received: how many events of each source the client has.
        spoken_s: seconds of the stream's speech in the events that the client has.
        nbytes: of the events that are kept, about.
    """

    def __init__(self, events: Iterable[Event] = (), received: Received | None = None, spoken_s: float = 0.0) -> None:
        self.received, self.spoken_s, self.nbytes = dict(received or {}), spoken_s, 0
        self._events: deque[Event] = deque()
        self.add(events)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> list[Event]:
        """Those that the client has not confirmed."""
        return list(self._events)

    def add(self, events: Iterable[Event]) -> list[Event]:
        """Keep new events; returns those that the client does not have already."""
        new = [event for event in events if not self._has(event)]
        self._events += new
        self.nbytes += sum(map(_size, new))
        return new

    def acknowledge(self, received: Received) -> None:
        """Forget what the client has. What it says of too many sources, or of less than before, is nothing."""
        for source, count in received.items():
            if source in self.received or len(self.received) < MAX_SOURCES:
                self.received[source] = max(count, self.received.get(source, 0))
        has = [event for event in self._events if self._has(event)]
        self.spoken_s = max([self.spoken_s, *(event.end for event in has if isinstance(event, Speech))])
        self._keep([event for event in self._events if not self._has(event)])

    def drop_speech(self, after_s: float) -> None:
        """Forget speech that ends later: it was dropped before it was sent."""
        self._keep([event for event in self._events if not (isinstance(event, Speech) and event.end > after_s)])

    def drop_superseded(self) -> None:
        """Forget partial results that later ones supersede."""
        last = {source_of(event): event for event in self._events if isinstance(event, Partial)}
        self._keep(
            [event for event in self._events if not isinstance(event, Partial) or event is last[source_of(event)]]
        )

    def _has(self, event: Event) -> bool:
        return event.sequence < self.received.get(source_of(event), 0)

    def _keep(self, events: list[Event]) -> None:
        if len(events) < len(self._events):
            self._events, self.nbytes = deque(events), sum(map(_size, events))


def _size(event: Event) -> int:
    texts = sum(len(value) for value in vars(event).values() if isinstance(value, str))
    return _SIZE + texts + (event.samples.nbytes if isinstance(event, Speech) else 0)
