"""Whole texts through an engine, many in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event


def whole_texts(engine: Engine, texts: Sequence[str], **options: Any) -> Iterator[list[Event]]:
    """The events of texts, in their order, as many in a batch as the engine has slots. A text that fails ends with its
    `Failure`, and the others go on.

    Args:
        engine: of a task that takes text, without other streams.
        options: of each stream.

    Raises:
        ValueError: an option is wrong.
    """
    for begin in range(0, len(texts), engine.capacity):
        batch = texts[begin : begin + engine.capacity]
        sessions = [engine.open(**options) for _ in batch]
        try:
            events: list[list[Event]] = [[] for _ in batch]
            for session, text in zip(sessions, batch, strict=True):
                session.feed(text)
                session.end()
            while engine.step():
                for session, own in zip(sessions, events, strict=True):
                    own += session.drain()  # a stream with a full outbox would wait
            for session, own in zip(sessions, events, strict=True):
                own += session.drain()
        finally:
            for session in sessions:
                session.close()
        yield from events
