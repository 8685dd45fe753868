"""An engine on an event loop: waits for ready sessions, steps them in a worker thread, hands out their events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from loquent.speech.net.metrics import Metrics
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event
from loquent.speech.runtime.session import Session

log = logging.getLogger(__name__)


class Stepper:
    """Drives one `Engine`. All methods belong to the event loop; only the model runs in the worker thread."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self.engine, self.metrics = engine, metrics
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-step")
        self._listeners: dict[Session, Callable[[list[Event]], None]] = {}
        self._news = asyncio.Event()

    @property
    def sessions(self) -> list[Session]:
        """Sessions that are listened to."""
        return list(self._listeners)

    def attach(self, session: Session, listener: Callable[[list[Event]], None]) -> None:
        """Call ``listener`` with the new events (possibly none) after every step of ``session``."""
        self._listeners[session] = listener

    def detach(self, session: Session) -> None:
        """Forget a session, and free its slot."""
        self._listeners.pop(session, None)
        session.close()

    def wake(self) -> None:
        """Say that a session got audio or has ended."""
        self._news.set()

    async def run(self) -> None:
        """Step for ever; cancel to stop."""
        while True:
            self._news.clear()
            deadline = self.engine.next_deadline()
            wait_s = None if deadline is None else deadline - self.engine.clock()
            if wait_s is None or wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()
                continue
            await self._step()

    async def _step(self) -> None:
        batch = self.engine.collect()
        if batch is None:
            return
        begin = self.engine.clock()
        work = asyncio.get_running_loop().run_in_executor(self._worker, self.engine.compute, batch)
        try:
            self.engine.deliver(batch, await work)
        except Exception as error:
            self.engine.abort(batch, error)
        self.metrics.step_seconds.observe(self.engine.clock() - begin)
        self.metrics.batch_size.observe(len(batch.sessions))
        for session in batch.sessions:
            if listener := self._listeners.get(session):
                listener(session.drain())

    def shut_down(self) -> None:
        """Let the worker thread end, after its step under way."""
        self._worker.shutdown(wait=True)
