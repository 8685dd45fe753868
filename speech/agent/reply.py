"""A reply on its way from a chat model: a thread brings it, whoever speaks it takes what has come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from loquent.speech.agent.conversation import Message

log = logging.getLogger(__name__)

MOST_REPLY = 4000  # characters; what follows is neither read nor spoken


class ChatError(RuntimeError):
    """A chat model gave no reply, or one that broke off.

    code: as that of the event `Unanswered`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Reply:
    """One request to a chat model. All methods may be called from any thread.

    Args:
        produce: runs in a thread of its own, and puts the text. What it raises ends the reply: a `ChatError` as it is.
        notify: called after everything that is put, and at the end.
    """

    def __init__(self, produce: Callable[[Reply], None], notify: Callable[[], None] = lambda: None) -> None:
        self.error: ChatError | None = None
        self._produce, self._notify = produce, notify
        self._pieces: list[str] = []
        self._length = 0
        self._over = self._closed = False
        self._changed = threading.Condition()
        self._on_close: Callable[[], None] = lambda: None
        threading.Thread(target=self._run, name="loquent-reply", daemon=True).start()

    @property
    def closed(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._closed

    @property
    def over(self) -> bool:
        """Whether the model has nothing more to say. What has come may not have been taken yet."""
        return self._over

    def put(self, piece: str) -> bool:
        """Append text; tells whether more is wanted."""
        text = piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # halves of a pair cannot be spoken
        with self._changed:
            room = MOST_REPLY - self._length
            if self._closed or room <= 0:
                return False
            self._pieces.append(text[:room])
            self._length += len(text)
        self._notify()
        return self._length < MOST_REPLY

    def take(self) -> str:
        """The text that has come since the last call."""
        with self._changed:
            text = "".join(self._pieces)
            self._pieces.clear()
        return text

    def wait(self) -> None:
        """Wait for the end; the producer's own time limits bound it."""
        with self._changed:
            self._changed.wait_for(lambda: self._over)

    def on_close(self, callback: Callable[[], None]) -> None:
        """What makes the producer stop waiting, from another thread; called at once if nobody wants the reply."""
        with self._changed:
            self._on_close = callback
            closed = self._closed
        if closed:
            callback()

    def close(self) -> None:
        """Drop the reply, and let its producer end."""
        with self._changed:
            if self._closed:
                return
            self._closed, callback = True, self._on_close
            self._pieces.clear()
        callback()

    def _run(self) -> None:
        error: ChatError | None = None
        try:
            self._produce(self)
        except ChatError as failed:
            error = failed
        except Exception:
            if not self._closed:
                log.exception("a chat model failed")
                error = ChatError("chat_failed", "the chat model failed; the log says why")
        with self._changed:
            self.error, self._over = error, True
            self._changed.notify_all()
        self._notify()


class Chat(Protocol):
    """A chat model."""

    def ask(self, messages: Sequence[Message], notify: Callable[[], None]) -> Reply:
        """Begin a reply; nothing is waited for."""
