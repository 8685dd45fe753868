"""What waits to be sent to one client; bounded, whatever the client does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from loquent.speech.runtime.channels import source_of
from loquent.speech.runtime.events import Event, Partial, Speech

# A reader that keeps up never has so many messages waiting, so it sees every partial result.
COALESCE_FROM = 32


@dataclass(frozen=True)
class Close:
    """The last entry of a queue."""

    code: int
    reason: str


@dataclass(frozen=True)
class SpeechEnd:
    """No speech follows: what its encoder holds back is due, and then a message, if one is given."""

    then: dict[str, Any] | None = None


Entry: TypeAlias = str | Speech | SpeechEnd | Close


class Outgoing:
    """Queue of messages to one client.

    For a slow reader, a partial result that a later one supersedes is dropped. Everything else stays, in order; what to
    do when it gets too much (`size`, in characters, and `speech_s`, in seconds) is the owner's decision.

    Args:
        told: the texts that a message is sent as.
    """

    def __init__(self, told: Callable[[Event | dict[str, Any]], Sequence[str]]) -> None:
        self._told = told
        self.size = 0
        self.speech_s = 0.0
        self.dropped = 0
        self._queue: deque[tuple[Entry, str | None]] = deque()  # (message, whose later partial results supersede it)
        self._news = asyncio.Event()

    def put(self, message: Event | dict[str, Any], whole: bool = False) -> None:
        """Append an event, or another message; of the ``whole`` of something, no partial result is dropped."""
        if isinstance(message, Speech):
            self.speech_s += message.end - message.start
            return self._append(message)
        source = source_of(message) if isinstance(message, Partial) and not whole else None
        if source is not None and len(self._queue) >= COALESCE_FROM:
            kept = deque(entry for entry in self._queue if entry[1] != source)
            self.dropped += len(self._queue) - len(kept)
            self._queue = kept
            self.size = sum(len(text) for text, _ in kept if isinstance(text, str))
        for text in self._told(message):
            self.size += len(text)
            self._append(text, source)

    def end_speech(self, then: dict[str, Any] | None = None) -> None:
        """Append the end of the speech, and a message about which the client is told once all of it has been sent."""
        self._append(SpeechEnd(then))

    def close(self, code: int, reason: str) -> None:
        """Append the end."""
        self._append(Close(code, reason))

    def clear(self) -> None:
        """Drop everything that waits."""
        self._queue.clear()
        self.size, self.speech_s = 0, 0.0

    def drop_speech(self) -> None:
        """Drop the speech that waits."""
        self._queue = deque(entry for entry in self._queue if not isinstance(entry[0], Speech))
        self.speech_s = 0.0

    async def get(self) -> Entry:
        """Take the next message."""
        while not self._queue:
            self._news.clear()
            await self._news.wait()
        message, _ = self._queue.popleft()
        if isinstance(message, str):
            self.size -= len(message)
        elif isinstance(message, Speech):
            self.speech_s = max(self.speech_s - (message.end - message.start), 0.0)
        return message

    def _append(self, message: Entry, source: str | None = None) -> None:
        self._queue.append((message, source))
        self._news.set()
