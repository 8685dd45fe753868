"""What waits to be sent to one client; bounded, whatever the client does."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from loquent.speech.runtime.events import Event, Partial

# A reader that keeps up never has so many messages waiting, so it sees every partial result.
COALESCE_FROM = 32


@dataclass(frozen=True)
class Close:
    """The last entry of a queue."""

    code: int
    reason: str


class Outgoing:
    """Queue of messages to one client.

    For a slow reader, a partial result that a later one supersedes is dropped. Everything else stays, in order; what to
    do when it gets too much (`size`, in characters) is the owner's decision.
    """

    def __init__(self) -> None:
        self.size = 0
        self.dropped = 0
        self._queue: deque[tuple[str | Close, bool]] = deque()  # (message, whether it may be superseded)
        self._news = asyncio.Event()

    def put(self, message: Event | dict[str, Any]) -> None:
        """Append an event, or another message."""
        partial = isinstance(message, Partial)
        if partial and len(self._queue) >= COALESCE_FROM:
            kept = deque(entry for entry in self._queue if not entry[1])
            self.dropped += len(self._queue) - len(kept)
            self._queue = kept
            self.size = sum(len(text) for text, _ in kept if isinstance(text, str))
        # ASCII, as half a surrogate pair could not be sent as UTF-8.
        text = json.dumps(message.to_dict() if isinstance(message, Event) else message)
        self.size += len(text)
        self._append(text, partial)

    def close(self, code: int, reason: str) -> None:
        """Append the end."""
        self._append(Close(code, reason), False)

    def clear(self) -> None:
        """Drop everything that waits."""
        self._queue.clear()
        self.size = 0

    async def get(self) -> str | Close:
        """Take the next message."""
        while not self._queue:
            self._news.clear()
            await self._news.wait()
        message, _ = self._queue.popleft()
        if isinstance(message, str):
            self.size -= len(message)
        return message

    def _append(self, message: str | Close, partial: bool) -> None:
        self._queue.append((message, partial))
        self._news.set()
