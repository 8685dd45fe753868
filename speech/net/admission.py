"""Which streams are let in, and which have to go when the machine turns out to be too slow for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from loquent.speech.audio.resample import Resampler
from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.limits import Limits
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import Model
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.snapshot import unpack
from loquent.speech.runtime.stream import Stream

_HOPELESS = 0.2  # of the lag that is allowed, where the measure says that it can only grow


class Admission:
    """Opens streams while there is room: a slot, a place of the machine's, time of the machine's, and filter tables.

    A place is taken before anything is computed. The tables of unusual sample rates are computed one at a time, in a
    thread of their own, so that neither the streams under way nor other clients notice.
    """

    def __init__(self, scheduler: Scheduler, limits: Limits, metrics: Metrics) -> None:
        self.scheduler, self.limits, self.metrics = scheduler, limits, metrics
        self._tables = ThreadPoolExecutor(1, thread_name_prefix="loquent-tables")

    async def open(
        self,
        model: Model,
        *,
        sample_rate: int | None = None,
        channels: int = 1,
        multichannel: bool = False,
        options: Mapping[str, Any],
        output_rate: int | None = None,
        snapshot: bytes | None = None,
    ) -> tuple[Stream, Resampler | None]:
        """A stream of a model and, if ``output_rate`` is given, what brings its speech to that rate.

        Args:
            multichannel: whether each channel has a slot of its own.
            snapshot: of a stream to go on with, which the options are of.

        Raises:
            EngineFull, TooManyTables: there is no room now.
            ValueError, TypeError: an option is wrong, or has a name of ours.
        """
        engines = tuple(model.stages.values())
        takes, gives = model.takes.sample_rate, model.gives.sample_rate
        resampler = None
        try:
            with self.scheduler.place(engines, channels if multichannel else 1) as pressure:
                if takes is not None and sample_rate is not None:
                    await self._in_turn(engines[0].resamplers.get, sample_rate, takes)
                if gives is not None and output_rate is not None:
                    resampler = await self._in_turn(engines[-1].resamplers.get, gives, output_rate)
                if snapshot is not None:
                    return model.restore(await asyncio.to_thread(unpack, snapshot), multichannel), resampler
                audio: dict[str, Any] = {"sample_rate": sample_rate, "channels": channels, "multichannel": multichannel}
                return model.open(**audio, pressure=pressure, **options), resampler
        except EngineFull as full:
            self.metrics.refused(full.reason, model.task, model.name)
            raise
        except TooManyTables:
            self.metrics.refused("tables", model.task, model.name)
            raise

    async def resampler(self, model: Model, output_rate: int) -> Resampler:
        """What brings the speech of a model to a rate.

        Raises:
            TooManyTables: there is no room now.
        """
        return await self._in_turn([*model.stages.values()][-1].resamplers.get, model.gives.sample_rate, output_rate)

    def shut_down(self) -> None:
        """Let the thread end."""
        self._tables.shutdown(wait=False, cancel_futures=True)

    async def _in_turn(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._tables, function, *args)


class Served(Protocol):
    """What relief asks of a stream's connection."""

    opened: float
    stream: Stream | None

    @property
    def going_on(self) -> bool:
        """Whether its input is still taken."""

    def lag(self, now: float) -> float:
        """Seconds by which it is behind its source."""

    def conclude(self, code: str, message: str) -> None:
        """Take no more input, let the stream say what it has to say so far, then fail."""


class Relief:
    """Ends the newest streams if those inside fall behind, so that the others catch up.

    Admission goes by what was measured. Before there is a measure, or when the machine gets slower, more streams may be
    inside than it can keep up with; without relief they would all fall behind alike. Where the measure says that they
    never can, nobody waits for the whole of ``max_lag_s``: what is behind by then has to be made up for. The oldest
    stream always stays.
    """

    def __init__(self, scheduler: Scheduler, limits: Limits) -> None:
        self.scheduler, self.limits = scheduler, limits
        self._worst_s = 0.0  # lag when streams were ended last
        self._wait_until = 0.0

    def look(self, connections: Iterable[Served], now: float) -> int:
        """End what has to be ended; returns how many streams that were.

        Args:
            now: in seconds, on the clock of the connections.
        """
        everybody = list(connections)
        going = sorted((one for one in everybody if one.going_on), key=lambda one: one.opened)
        worst_s = max((one.lag(now) for one in going), default=0.0)
        hopeless = self._load_without(everybody, going) > 1
        if worst_s <= (_HOPELESS * self.limits.max_lag_s if hopeless else self.limits.max_lag_s):
            self._worst_s = 0.0
            return 0
        if now < self._wait_until or (self._worst_s and worst_s <= self._worst_s + 1.0):
            return 0  # those that were ended last are on their way out, or the others are catching up
        self._worst_s, self._wait_until = worst_s, now + self.limits.max_lag_s
        ended: list[Served] = []
        while len(going) > 1:
            ended.append(going.pop())
            if self._load_without(everybody, going) <= self.limits.max_load:
                break
        limit = (
            "its streams need more time than there is"
            if hopeless
            else f"at most {self.limits.max_lag_s:g} s are allowed"
        )
        why = f"the server is {worst_s:.1f} s behind, and {limit}"
        for one in ended:
            one.conclude("overloaded", f"{why}; this stream came last, so that the others keep up: try again later")
        return len(ended)

    def _load_without(self, everybody: list[Served], going: list[Served]) -> float:
        """What the streams that go on need, once those on their way out are gone."""
        return self.scheduler.load_without(one.stream for one in everybody if one.stream and one not in going)
