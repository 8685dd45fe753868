"""The turns of one step, where a stream that fails does not concern its batch mates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from loquent.speech.runtime.events import Event
from loquent.speech.runtime.task import Turn


class Turns:
    """What one step brings the streams of a batch.

    Attributes:
        events: of each stream, in order.
        errors: why a stream cannot go on; None for the others.
    """

    def __init__(self, streams: int) -> None:
        self.events: list[list[Event]] = [[] for _ in range(streams)]
        self.errors: list[Exception | None] = [None] * streams

    @property
    def sound(self) -> list[int]:
        """The streams that have not failed."""
        return [index for index, error in enumerate(self.errors) if error is None]

    @contextlib.contextmanager
    def of(self, index: int) -> Iterator[list[Event]]:
        """Work for one stream, which adds to its events. What is raised in it ends that stream alone."""
        try:
            yield self.events[index]
        except Exception as error:
            self.errors[index] = error

    def finish(self, last: Sequence[bool]) -> list[Turn]:
        """The turns; a stream is over if it has failed, or ``last`` says that its input has ended."""
        return [
            Turn(events, done or error is not None, error)
            for events, done, error in zip(self.events, last, self.errors, strict=True)
        ]
