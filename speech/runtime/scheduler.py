"""Engines on an event loop: waits for ready sessions, steps them in a worker thread, tells who listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loquent.speech.runtime.engine import Engine, EngineFull
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.stream import Stream

StepObserver = Callable[[Engine, int, float], None]  # engine, streams in the step, seconds it took


class Scheduler:
    """Steps all engines of a process, the one whose step is due first before the others.

    All methods belong to the event loop; only the models run in the worker thread. There is one, as engines share the
    machine: two steps at a time would take twice as long each.

    Args:
        engines: to be stepped.
        max_streams: most streams at a time, over all engines; None leaves it to their capacities.
        on_step: told about every step.
    """

    def __init__(
        self, engines: Iterable[Engine], max_streams: int | None = None, on_step: StepObserver | None = None
    ) -> None:
        self.engines, self.max_streams, self._on_step = tuple(engines), max_streams, on_step
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-step")
        self._listeners: dict[Session, Callable[[], None]] = {}
        self._streams: dict[Stream, None] = {}
        self._news = asyncio.Event()

    @property
    def streams(self) -> list[Stream]:
        """Streams that are listened to."""
        return list(self._streams)

    def admit(self) -> None:
        """Check that the machine takes another stream.

        Raises:
            EngineFull: it does not.
        """
        if self.max_streams is not None and len(self._streams) >= self.max_streams:
            raise EngineFull(f"all {self.max_streams} streams of this server are in use; try again later")

    def attach(self, stream: Stream, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every step of any stage of a stream; it drains the events."""
        self._streams[stream] = None
        for session in stream.sessions:
            self._listeners[session] = listener
        self.wake()

    def detach(self, stream: Stream) -> None:
        """Forget a stream, and free its slots."""
        self._streams.pop(stream, None)
        for session in stream.sessions:
            self._listeners.pop(session, None)
        stream.close()

    def wake(self) -> None:
        """Say that a stream got input, was drained or has ended."""
        self._news.set()

    async def run(self) -> None:
        """Step for ever; cancel to stop."""
        while True:
            self._news.clear()
            due = [(deadline, engine) for engine in self.engines if (deadline := engine.next_deadline()) is not None]
            if not due:
                await self._news.wait()
                continue
            deadline, engine = min(due, key=lambda entry: entry[0])
            wait_s = deadline - engine.clock()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
                continue
            await self._step(engine)

    async def in_worker(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function between two steps."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)

    async def _step(self, engine: Engine) -> None:
        batch = engine.collect()
        if batch is None:
            return
        begin = engine.clock()
        try:
            engine.deliver(batch, await self.in_worker(engine.compute, batch))
        except Exception as error:
            engine.abort(batch, error)
        if self._on_step is not None:
            self._on_step(engine, len(batch.sessions), engine.clock() - begin)
        for session in batch.sessions:
            if listener := self._listeners.get(session):
                listener()

    def shut_down(self) -> None:
        """Let the worker thread end, after its step under way."""
        self._worker.shutdown(wait=True)
