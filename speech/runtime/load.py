"""How many streams a machine can keep up with: measured on the steps it makes, for admission and nothing else."""

from __future__ import annotations

import bisect
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TypeVar

E = TypeVar("E")

STEPS = 64  # that the measure remembers
ENOUGH = 3  # steps with the same number of streams before their time is believed


class Pace:
    """What the latest steps of one engine took, by the number of streams in them.

    A step of many streams may cost hardly more than one of a single stream, or a multiple of it: both are measured. A
    median outlives the one step in which something else held the machine up.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float, float]] = deque(maxlen=STEPS)

    def observe(self, streams: int, seconds: float, progress_s: float) -> None:
        """Take up a step.

        Args:
            seconds: that it took.
            progress_s: source audio that it processed, or speech that it made, of all its streams together, in seconds.
        """
        self._steps.append((streams, seconds, progress_s))

    def step_seconds(self, streams: float) -> float | None:
        """Time of a step of so many streams, on average; None before it can be told.

        Between the numbers that were seen it is interpolated. Up to twice as many as were ever seen together, each one
        more costs what one more has cost so far. Beyond that, and below the least number that was seen, the time is in
        proportion. Where only one number was seen, one stream more is taken to cost nothing, as otherwise nobody would
        find out.
        """
        known = self._medians()
        if not known:
            return None
        sizes = sorted(known)
        least, most = sizes[0], sizes[-1]
        if streams <= least:
            return known[least] * streams / least
        if streams >= most:
            one_more = (known[most] - known[least]) / (most - least) if most > least else 0.0
            one_more = min(max(one_more, 0.0), known[most] / most)
            within = min(streams, 2 * most if most > least else most + 1)
            seconds = known[most] + one_more * (within - most)
            return seconds if streams == within else seconds * streams / within
        above = next(size for size in sizes if size >= streams)
        below = max(size for size in sizes if size < above)
        share = (streams - below) / (above - below)
        return known[below] + share * (known[above] - known[below])

    def streams_within(self, seconds: float, most: int) -> int:
        """How many streams, at most ``most``, a step may have to take no longer.

        At most twice as many as were ever seen together, so that a guess is never far off; 0 before it can be told.
        """
        most = min(most, 2 * max(self._medians(), default=0))
        return bisect.bisect_right(range(1, most + 1), seconds, key=lambda streams: self.step_seconds(streams) or 0.0)

    @property
    def stream_seconds(self) -> float:
        """Source time by which a step brings one stream forward, on average."""
        streams = sum(count for count, _, _ in self._steps)
        return sum(progress for _, _, progress in self._steps) / streams if streams else 0.0

    def load(self, streams: int, period_s: float | None = None) -> float:
        """Share of its time that the machine needs to keep so many streams at the pace of their sources; 0: unknown.

        Streams that all have input share steps, one after the other: these fit as long as a step takes less time than
        it brings each of them forward.

        Args:
            period_s: from one step to the next, if less than a step brings a stream forward: it then has those streams
                that have input by then.
        """
        forward_s = self.stream_seconds
        if not streams or forward_s <= 0:
            return 0.0
        period_s = min(period_s or forward_s, forward_s)
        return (self.step_seconds(streams * period_s / forward_s) or 0.0) / period_s

    def _medians(self) -> dict[int, float]:
        times: dict[int, list[float]] = {}
        for streams, seconds, _ in self._steps:
            times.setdefault(streams, []).append(seconds)
        return {streams: statistics.median(some) for streams, some in times.items() if len(some) >= ENOUGH}


def machine_load(paces: Mapping[E, Pace], streams: Mapping[E, int]) -> float:
    """Share of its time that a machine needs for so many streams on each of its engines; above 1 they fall behind.

    Its engines take turns. So all of them make as many steps as the one that has to make most.
    """
    used = [engine for engine, count in streams.items() if count and paces[engine].stream_seconds > 0]
    period_s = min((paces[engine].stream_seconds for engine in used), default=None)
    return sum(paces[engine].load(streams[engine], period_s) for engine in used)


def most_streams(
    paces: Mapping[E, Pace], streams: Mapping[E, int], engines: Iterable[E], limit: float, most: int
) -> int:
    """How many streams over ``engines`` fit beside the other streams of the machine, at most ``most``."""
    asked = tuple(engines)
    fitting = 0
    while fitting < most:
        planned = {engine: count for engine, count in streams.items() if engine not in asked}
        planned |= dict.fromkeys(asked, fitting + 1)
        if machine_load(paces, planned) > limit:
            break
        fitting += 1
    return fitting
