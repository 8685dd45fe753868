"""Time for computing, counted on a virtual clock: as if the source had come in real time."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from loquent.translate.score.instance import Instance


class VirtualClock:
    """The time at which a system would have answered, had its source come in real time and had it computed so long.

    A step begins when its input is there and the step before has ended. So a system that is too slow falls behind more
    and more, and one that is fast enough waits for its input.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def step(self, arrival: float, cost: float) -> float:
        """Compute for ``cost`` on input that came at ``arrival``; returns the time at which that ends.

        Raises:
            ValueError: the cost is negative.
        """
        if not cost >= 0:
            raise ValueError(f"cost: expected 0 or more, got {cost}")
        self.now = max(self.now, arrival) + cost
        return self.now


def corrected(instance: Instance) -> Instance:
    """The same with elapsed times in which computing does not add up where the system would have waited for input.

    SimulEval runs a system as fast as it can and logs delay + time for computing *since the start*. In a long recording
    this counts all computing of the past in every word. The correction (arXiv 2509.17349) is
    ``ca'_i = max(ca'_{i-1}, ca_i - ca_{i-1} + cu_{i-1})``, with elapsed times ca and delays cu. Only for logs of
    SimulEval: those of `Recorder` and `StreamLog` are right.

    Raises:
        ValueError: the instance has no elapsed times.
    """
    if instance.elapsed is None:
        raise ValueError("elapsed: there is nothing to correct, the instance has none")
    times = list(instance.elapsed[:1])
    for (elapsed, following), delay in zip(pairwise(instance.elapsed), instance.delays, strict=False):
        times.append(max(times[-1], following - elapsed + delay))
    return dataclasses.replace(instance, elapsed=tuple(times))
