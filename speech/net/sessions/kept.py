"""What a connection remembers of a stream that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loquent.speech.net.messages import Start
from loquent.speech.net.sessions.log import EventLog
from loquent.speech.net.sessions.record import Record
from loquent.speech.net.sessions.sessions import Claim


class Kept:
    """A session under way.

    Attributes:
        characters: of text that have come.
        messages: other than input that have come.
        finished: whether the end has.
        saved, saved_messages: the input, and the messages, that are covered by a snapshot.
        tried: the input when saving was last tried: a disk that is full is not tried again at once.
        hold_until: messages that have to be covered before anything more is sent.
    """

    def __init__(self, claim: Claim, key: str, model: str, start: Start, ready: Mapping[str, Any]) -> None:
        self.claim, self.key, self.model, self.ready = claim, key, model, ready
        self.start = replace(start, token=None)
        self.log = EventLog()
        self.characters = self.messages = self.saved = self.tried = self.saved_messages = self.hold_until = 0
        self.finished = False

    @classmethod
    def of(cls, record: Record, claim: Claim) -> Kept:
        """The session that waited as a record."""
        kept = cls(claim, record.key, record.model, record.start, record.ready)
        kept.log = EventLog(record.events, record.received, record.spoken_s)
        kept.characters = kept.saved = kept.tried = record.position
        kept.messages = kept.saved_messages = record.messages
        kept.finished = record.finished
        return kept

    @property
    def holds(self) -> bool:
        """Whether what the stream says has to wait until it is saved."""
        return self.saved_messages < self.hold_until

    def capture(self, position: int, snapshot: Callable[[], bytes] | None) -> Callable[[], Record]:
        """The session as it is now; the function returned makes the record, in any thread.

        Args:
            position: of the input that the snapshot covers.
            snapshot: makes it (`Stream.capture`); None: the stream is over.
        """
        record = Record(
            key=self.key,
            model=self.model,
            start=self.start,
            ready=self.ready,
            position=position,
            messages=self.messages,
            finished=self.finished,
            snapshot=None,
            events=tuple(self.log.events),
            received=dict(self.log.received),
            spoken_s=self.log.spoken_s,
        )
        return lambda: record if snapshot is None else replace(record, snapshot=snapshot())
