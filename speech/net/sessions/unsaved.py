"""What a client has sent and the server has not saved: it is sent again when the stream is resumed."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class _Sent(NamedTuple):
    message: str | bytes
    units: int  # samples or characters of input; 0 of other messages


class Unsaved:
    """Messages in order, from the first one that the server has not saved.

    Attributes:
        nbytes: of the messages, about.
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._sent: deque[_Sent] = deque()
        self._position = self._messages = 0  # before the first one

    def add(self, message: str | bytes, units: int) -> None:
        """Keep a message; ``units``: samples or characters of input in it, or 0 if it is another message."""
        self._sent.append(_Sent(message, units))
        self.nbytes += len(message)

    def saved(self, position: int, messages: int) -> None:
        """Forget what the server has saved, as its message "saved" or "resumed" says."""
        while self._sent:
            message, units = self._sent[0]
            if self._position + units > position or self._messages + (units == 0) > messages:
                return
            self._position += units
            self._messages += units == 0
            self.nbytes -= len(message)
            self._sent.popleft()

    def messages(self) -> list[str | bytes]:
        """What has to be sent again."""
        return [sent.message for sent in self._sent]
