"""When a stream's input came, and how far the stream is behind it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from loquent.speech.runtime.inbox import Inbox
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.session import Session

MERGED_S = 0.02  # what arrives within so much time is one arrival, however many messages it came in


class _Arrival(NamedTuple):
    position: int  # in the input, after it
    time: float  # of its first message
    due: float  # when it would have been played to its end, had it been played as it came


class Arrivals:
    """The input that has not been processed, by the time of its arrival.

    Input that comes in real time is due one message after its arrival. What comes faster is due at the pace of the
    source: nobody can make a server late by sending a recording at once. A pause of the source counts for nothing.
    """

    def __init__(self) -> None:
        self.first: float | None = None  # time of the first message
        self._waiting: deque[_Arrival] = deque()
        self._due = 0.0
        self._lag_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, position: int, seconds: float, now: float) -> None:
        """Take up a message.

        Args:
            position: of the input after it, as ``inbox.received`` counts it.
            seconds: of source time in it; 0 for text.
            now: time of its arrival, in seconds.
        """
        if self.first is None:
            self.first = now
        self._due = max(self._due, now) + seconds
        last = self._waiting[-1] if self._waiting else None
        if last is not None and now - last.time < MERGED_S:
            self._waiting[-1] = _Arrival(position, last.time, self._due)
        else:
            self._waiting.append(_Arrival(position, now, self._due))

    def processed(self, inbox: Inbox) -> float | None:
        """Forget what has been processed; returns when the latest input came that a step made now can have needed."""
        while len(self._waiting) > 1 and inbox.passed(self._waiting[0].position + 1):
            self._waiting.popleft()
        return self._waiting[0].time if self._waiting else None

    def overdue(self, session: Session, now: float) -> float:
        """Seconds by which the input of a session's next step is late; during a step, as it was before it."""
        inbox = session.inbox
        if isinstance(inbox, SampleInbox) and not session.busy:
            self._lag_s = 0.0
            if session.ready:
                wanted = session.engine.task.wants(session.memo) or 0
                needed = wanted * inbox.sample_rate // inbox.model_rate
                self._lag_s = self.lag(min(inbox.processed + needed, inbox.received), now)
        return self._lag_s

    def lag(self, position: int, now: float) -> float:
        """Seconds by which the input up to ``position`` is overdue; 0 if it has not come or has been processed."""
        for arrival in self._waiting:
            if arrival.position >= position:
                return max(0.0, now - arrival.due)
        return 0.0
