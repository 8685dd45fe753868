"""Follow live audio: packets from a source to a local session or a server, events to whoever listens, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from loquent.speech.audio.sources import AudioSource
from loquent.speech.bilingual import Bilingual
from loquent.speech.commands.arguments import CommandError
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Failure
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.stream import Stream
from loquent.speech.transcript import Segment, SegmentBuilder

if TYPE_CHECKING:
    from loquent.speech.commands.translation.translate_to import LiveTranslation

Recognise = Callable[[AudioSource], AsyncIterator[Event]]


def follow(source: AudioSource, recognise: Recognise, listeners: Sequence[Callable[[Event], None]]) -> bool:
    """Hand every event of a source to the listeners, to the last word; True if Ctrl-C ended the source early.

    A second Ctrl-C kills the process, whatever it is doing.

    Raises:
        CommandError: the stream failed.
        Exception: the source's, after the events of what it gave.
    """
    return asyncio.run(_follow(source, recognise, listeners))


class LocalRecognition:
    """Recognises in this process.

    Args:
        translation: what translates it, too.
        options: of each stream of the recogniser.

    Attributes:
        language: code of the last stream's, None if nobody knows it.
    """

    def __init__(self, engine: Engine, translation: LiveTranslation | None = None, **options: Any) -> None:
        self.language: str | None = None
        self._engine, self._translation, self._options = engine, translation, options

    async def __call__(self, source: AudioSource) -> AsyncIterator[Event]:
        """The events of a source."""
        session = self._engine.open(sample_rate=source.sample_rate, channels=source.channels, **self._options)
        stream: Stream = session if self._translation is None else self._translation.behind(session)
        try:
            async for event in through(stream, source):
                yield event
                self._check(session)
            self._check(session)
        finally:
            self.language = getattr(session.memo, "language", None)

    def _check(self, session: Session) -> None:
        if self._translation is not None:
            self._translation.check(getattr(session.memo, "language", None))


async def through(stream: Stream, source: AudioSource) -> AsyncIterator[Event]:
    """The events of a stream that hears a source; it runs in a thread, so that a microphone is never kept waiting."""
    loop = asyncio.get_running_loop()
    with contextlib.closing(stream), ThreadPoolExecutor(1) as worker:
        async for packet in source:
            for event in await loop.run_in_executor(worker, stream.push, packet):
                yield event
        for event in await loop.run_in_executor(worker, stream.finish):
            yield event


def remotely(url: str, **options: Any) -> Recognise:
    """Let a server recognise; ``options`` are those of `client.connect`."""
    from loquent.speech.net.client import StreamError, transcribe_source

    async def recognise(source: AudioSource) -> AsyncIterator[Event]:
        try:
            async for event in transcribe_source(url, source, **options):
                yield event
        except StreamError as error:
            raise CommandError(str(error)) from error

    return recognise


class Captions:
    """A listener that makes a segment of every utterance, with its words, and hands it on.

    Args:
        bilingual: whether the events are those of a recogniser and a translator.
    """

    def __init__(self, take: Callable[[Segment], None], bilingual: bool = False) -> None:
        self._take, self._segments = take, SegmentBuilder()
        self._pairs = Bilingual() if bilingual else None

    def show(self, event: Event) -> None:
        """Take up an event."""
        found = self._pairs.add(event) if self._pairs else [self._segments.add(event)]
        for segment in filter(None, found):
            self._take(segment)

    def close(self) -> None:
        """Hand on what waits for its translation."""
        for segment in self._pairs.finish() if self._pairs else []:
            self._take(segment)


async def _follow(source: AudioSource, recognise: Recognise, listeners: Sequence[Callable[[Event], None]]) -> bool:
    errors: list[Exception] = []
    with _interrupt() as interrupted:
        async for event in recognise(_until(source, interrupted, errors)):
            if isinstance(event, Failure):
                raise CommandError(event.message)
            for listener in listeners:
                listener(event)
        if errors:
            raise errors[0]
        return interrupted.is_set()


@contextlib.contextmanager
def _interrupt() -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C sets; the second one has its usual, fatal effect."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    before = signal.getsignal(signal.SIGINT)

    def first() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        event.set()

    loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield event
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def _until(source: AudioSource, stop: asyncio.Event, errors: list[Exception]) -> AudioSource:
    """The same source, ended by ``stop``, or by an error of its own: what came before it is still worth its words."""

    async def packets() -> AsyncIterator[np.ndarray]:
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                following = asyncio.ensure_future(_next(source))
                await asyncio.wait({following, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    return
                packet = following.result()
                if packet is None:
                    return
                yield packet
        except Exception as error:
            errors.append(error)
        finally:
            stopped.cancel()

    return dataclasses.replace(source, packets=packets())


async def _next(source: AudioSource) -> np.ndarray | None:
    return await anext(source.packets, None)
