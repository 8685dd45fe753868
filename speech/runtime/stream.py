"""A stream, as a server, a client or a program holds it: input in pieces of any size, events out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from loquent.speech.runtime.events import Event
from loquent.speech.runtime.task import Port

if TYPE_CHECKING:
    from loquent.speech.runtime.inbox import Inbox


class StreamClosed(RuntimeError):
    """Something was pushed to a stream that has ended."""


class Stream(ABC):
    """One stream: a `Session`, or a `Pipeline` of sessions.

    `push` and `finish` are all most programs need. A server that steps many streams together uses `feed`, `end` and
    `drain`, and leaves the stepping to a scheduler. All methods belong to one thread.

    Attributes:
        stream: id of its events.
        takes, gives: its ports.
        inbox: where its input waits.
    """

    stream: str
    takes: Port
    gives: Port
    inbox: Inbox

    def push(self, packet: Any) -> list[Event]:
        """Feed a packet of any size and return what it brought about.

        Args:
            packet: audio: `Audio` at the stream's rate; or samples that are, int16 or float32 in [-1, 1], (samples,) or
                (samples, channels), or PCM16 bytes. Text: str, or `Text` with the time that it stands for; or a `Draft`
                of what may follow, which a task that shows no previews ignores.

        Raises:
            StreamClosed: after `finish`.
            ValueError: wrong type, channel count, rate or NaN; the packet is dropped whole and the stream can go on.
        """
        self.feed(packet)
        return self.run()

    def flush(self) -> list[Event]:
        """End the word under way and return what the text so far comes to, without waiting for more of it.

        A flush is a position in the text: text that is flushed at the same places gives the same events.

        Raises:
            ValueError: the stream takes audio.
        """
        self.feed_flush()
        return self.run()

    def finish(self) -> list[Event]:
        """End the stream and return every event still to come; its slots are free afterwards."""
        self.end()
        return self.run()

    @property
    @abstractmethod
    def sessions(self) -> tuple[Any, ...]:
        """The sessions it consists of, in the order of the data."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the last step has been made: nothing more will come but what `drain` returns."""

    @property
    @abstractmethod
    def waiting_markers(self) -> int:
        """Markers that have not been reached."""

    @property
    def count(self) -> int:
        """How many streams it counts for, where their number is limited."""
        return 1

    @property
    def nbytes(self) -> int:
        """Bytes of state: the models' slots and the input that waits."""
        return sum(session.nbytes for session in self.sessions)

    def on_news(self, call: Callable[[], None]) -> None:  # noqa: B027
        """What to call, from any thread, when something has come that was not fed, such as the reply of a chat model;
        `drain` takes it up. Most streams have no such news."""

    @abstractmethod
    def run(self) -> list[Event]:
        """Step until everything that was fed has been used, and return the events."""

    @abstractmethod
    def feed(self, packet: Any) -> None:
        """Buffer a packet without stepping."""

    @abstractmethod
    def feed_flush(self) -> None:
        """`flush` without stepping."""

    @abstractmethod
    def end(self) -> None:
        """Say that nothing follows, without stepping."""

    @abstractmethod
    def drain(self) -> list[Event]:
        """Return the events made since the last call."""

    @abstractmethod
    def marker(self, id: str) -> list[Event]:
        """Ask for a `Marker` event once everything pushed so far has been processed."""

    @abstractmethod
    def configure(self, **options: Any) -> None:
        """Change options while the stream goes on; which ones can be changed is the task's to say.

        Raises:
            ValueError: an option is wrong or cannot be changed; nothing is.
        """

    @abstractmethod
    def interrupt(self, played_s: float | None = None) -> list[Event]:
        """Stop what is being said, as when a listener starts to speak. Text that waits to be spoken is dropped.

        Args:
            played_s: seconds of the stream's speech that were heard; by default, and at most, all that was given out.

        Returns:
            The events so far that had not been returned; the last is an `Interrupted` that says what was heard, if the
            stream speaks. While a step is under way it comes after that step.
        """

    def snapshot(self) -> bytes:
        """The whole stream as bytes, to be continued here or in another process as if nothing had happened.

        Take it between steps. Events that were not drained belong to the old stream and are not included.

        Raises:
            StreamClosed: it has ended, or is in the middle of a step.
        """
        return self.capture()()

    def suspend(self) -> None:  # noqa: B027 - most have nothing to do
        """Stop what could not be saved, such as a reply of an agent: nobody listens any more, and a snapshot is due."""

    @abstractmethod
    def capture(self) -> Callable[[], bytes]:
        """`snapshot` in two parts: this one copies the stream; the function it returns makes the bytes, in any thread.

        Raises:
            StreamClosed: it has ended, or is in the middle of a step.
        """

    @abstractmethod
    def close(self) -> None:
        """Drop the stream without processing what is buffered, and free its slots."""
