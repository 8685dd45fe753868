"""Engines on an event loop: waits for ready sessions, steps them in a worker thread, tells who listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from loquent.speech.runtime.batch import Batch
from loquent.speech.runtime.engine import Engine, EngineFull
from loquent.speech.runtime.load import Pace, machine_load, most_streams
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.stream import Stream

log = logging.getLogger(__name__)

StepObserver = Callable[[Engine, int, float], None]  # engine, streams in the step, seconds it took


EASY = 2 / 3  # of the largest load: below it, new streams get the look-ahead that they ask for
OUTDATED_S = 10.0  # after which nobody relies on what an idle engine's steps took
AHEAD = 2  # steps that may be launched and not read


class _Launched(NamedTuple):
    """A step under way: whose it is, what `Engine.read` needs, and when it was launched."""

    engine: Engine
    batch: Batch
    pending: Any
    begin: float


class Scheduler:
    """Steps all engines of a process, the one whose step is due first before the others.

    All methods belong to the event loop; only the models run in the worker thread. There is one, as engines share the
    machine: two steps at a time would take twice as long each. Of static engines the next batch is launched before the
    last one is read, so that the device goes on while the host reads.

    Args:
        engines: to be stepped.
        max_streams: most streams at a time, over all engines; None leaves it to their capacities.
        on_step: told about every step.
        max_load: share of its time that the machine may need for its streams; see `load`.
    """

    def __init__(
        self,
        engines: Iterable[Engine],
        max_streams: int | None = None,
        on_step: StepObserver | None = None,
        max_load: float = 0.8,
    ) -> None:
        self.engines, self.max_streams, self._on_step = tuple(engines), max_streams, on_step
        self.max_load = max_load
        self._opening: Counter[Engine] = Counter()  # slots that are spoken for
        self._openings = 0  # streams
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-step")
        self._listeners: dict[Session, Callable[[], None]] = {}
        self._streams: dict[Stream, None] = {}
        self._removals: dict[Engine, asyncio.Event] = {}  # engines that leave once they have no streams
        self._news = asyncio.Event()
        self._launched: deque[_Launched] = deque()
        self._read_at = -math.inf  # when the last launched step was

    def add(self, engine: Engine) -> None:
        """Step another engine from now on."""
        self.engines = (*self.engines, engine)
        self.wake()

    async def remove(self, engine: Engine) -> None:
        """Step an engine no more; returns once its streams are over. No new ones may be opened meanwhile."""
        gone = self._removals.setdefault(engine, asyncio.Event())
        self.wake()
        await gone.wait()

    @property
    def streams(self) -> list[Stream]:
        """Streams that are listened to."""
        return list(self._streams)

    @contextlib.contextmanager
    def place(self, engines: Collection[Engine], streams: int = 1) -> Iterator[float]:
        """Keep places for ``streams`` over ``engines`` while they are opened, which may take a while.

        By what its latest steps took, the machine must be able to keep up with them, too. The first stream of all
        is always let in, as only streams bring the measure up to date; so is every one before there is a measure. The
        old measure of an engine that nobody uses any more does not count: it may come from a time when the machine was
        busy with something else.

        Yields:
            How scarce time is, for `Engine.open`: it grows from 0, as long as another third of what streams may have is
            left, to 1. Streams under way stay as they are.

        Raises:
            EngineFull: there is none.
        """
        engines = [*engines] * streams
        there = sum(stream.count for stream in self._streams) + self._openings
        if self.max_streams is not None and there + streams > self.max_streams:
            raise EngineFull(f"{_taken(self.max_streams, streams, ' of this server')}; try again later", "streams")
        for engine, count in Counter(engines).items():
            if engine.active + self._opening[engine] + count > engine.capacity:
                raise EngineFull(f"{_taken(engine.capacity, count)}; raise the capacity or try again later")
        load = self._load_with([engine for engine in engines if not self._is_outdated(engine)])
        others = self._counts().total()
        if others and load > self.max_load:
            more = "one stream more" if streams == 1 else f"{streams} streams more"
            raise EngineFull(
                f"{more} would need {load:.0%} of this machine's time; streams may have {self.max_load:.0%}, "
                "so that those under way keep up: try again later, or another server",
                "load",
            )
        self._opening.update(engines)
        self._openings += streams
        try:
            yield min(max(load / self.max_load - EASY, 0.0) / (1 - EASY), 1.0) if others else 0.0
        finally:
            self._opening.subtract(engines)
            self._openings -= streams

    def has_room(self, engines: Collection[Engine]) -> bool:
        """Whether `place` would keep one now."""
        with contextlib.suppress(EngineFull), self.place(engines):
            return True
        return False

    @property
    def load(self) -> float:
        """Share of its time that the machine needs to keep the streams there are at the pace of their sources."""
        return self._load_with(())

    def load_without(self, streams: Iterable[Stream]) -> float:
        """What `load` would be if some streams ended."""
        ended = Counter(session.engine for stream in streams for session in stream.sessions if not session.done)
        return machine_load(self._paces(), self._counts() - ended)

    def capacity(self, engines: Collection[Engine]) -> int:
        """How many streams over ``engines`` would fit beside those that the others have, as measured."""
        most = min(engine.capacity for engine in engines)
        return most_streams(self._paces(), self._counts(), engines, self.max_load, most)

    def _load_with(self, engines: Collection[Engine]) -> float:
        return machine_load(self._paces(), self._counts() + Counter(engines))

    def _is_outdated(self, engine: Engine) -> bool:
        idle = not engine.active and not self._opening[engine]
        return idle and engine.clock() - engine.measured_at > OUTDATED_S

    def _counts(self) -> Counter[Engine]:
        return Counter({engine: engine.active + self._opening[engine] for engine in self.engines})

    def _paces(self) -> dict[Engine, Pace]:
        return {engine: engine.pace for engine in self.engines}

    def attach(self, stream: Stream, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every step of any stage of a stream; it drains the events."""
        self._streams[stream] = None
        loop = asyncio.get_running_loop()

        def hear_news() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._take_news, stream, listener)

        stream.on_news(hear_news)
        for session in stream.sessions:
            self._listeners[session] = listener
        self.wake()

    def detach(self, stream: Stream) -> None:
        """Forget a stream, and free its slots."""
        self._streams.pop(stream, None)
        for session in stream.sessions:
            self._listeners.pop(session, None)
        stream.close()
        if self._removals:
            self.wake()

    def _take_news(self, stream: Stream, listener: Callable[[], None]) -> None:
        if stream in self._streams:
            listener()
            self.wake()

    def wake(self) -> None:
        """Say that a stream got input, was drained or has ended."""
        self._news.set()

    async def run(self) -> None:
        """Step for ever; cancel to stop."""
        while True:
            self._news.clear()
            self._let_go()
            due = [(deadline, engine) for engine in self.engines if (deadline := engine.next_deadline()) is not None]
            deadline, engine = min(due, key=lambda entry: entry[0], default=(math.inf, None))
            if engine is not None and deadline <= engine.clock() and len(self._launched) < AHEAD:
                await self._step(engine)
            elif self._launched:
                await self._read(self._launched.popleft())
            elif engine is None:
                await self._news.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(deadline - engine.clock()):
                        await self._news.wait()

    def _let_go(self) -> None:
        """Forget the engines to be removed that have no streams, nor any on the way."""
        for engine, gone in list(self._removals.items()):
            if not (engine.active or self._opening[engine] or any(one.engine is engine for one in self._launched)):
                self.engines = tuple(other for other in self.engines if other is not engine)
                del self._removals[engine], self._opening[engine]
                gone.set()

    async def in_worker(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function between two steps."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)

    async def _step(self, engine: Engine) -> None:
        """Collect a batch and launch it; it is read at once where nothing goes on meanwhile."""
        batch = engine.collect()
        if batch is None:
            return
        begin = engine.clock()
        try:
            if engine.static:
                pending = await self.in_worker(engine.launch, batch)
                self._launched.append(_Launched(engine, batch, pending, begin))
                return
            engine.deliver(batch, await self.in_worker(engine.compute, batch))
        except Exception as error:
            engine.abort(batch, error)
        self._tell(engine, batch, begin)

    async def _read(self, launched: _Launched) -> None:
        engine, batch, pending, begin = launched
        begin = max(begin, self._read_at)
        try:
            engine.deliver(batch, await self.in_worker(engine.read, batch, pending), begin)
        except Exception as error:
            engine.abort(batch, error)
        self._read_at = engine.clock()
        self._tell(engine, batch, begin)

    def _tell(self, engine: Engine, batch: Batch, begin: float) -> None:
        """Tell the listeners of a batch about its step."""
        if self._on_step is not None:
            self._on_step(engine, len(batch.sessions), engine.clock() - begin)
        for session in (*batch.failed, *batch.sessions):
            if listener := self._listeners.get(session):
                try:
                    listener()
                except Exception:
                    log.exception("what a stream said could not be handed on")

    def shut_down(self) -> None:
        """Let the worker thread end, after its step under way."""
        self._worker.shutdown(wait=True)


def _taken(most: int, wanted: int, where: str = "") -> str:
    if wanted == 1:
        return f"all {most} streams{where} are in use"
    return f"fewer than {wanted} of the {most} streams{where} are free"
