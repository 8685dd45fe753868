"""How far a translation lags behind its source: X is the source, Y what was written, Y* the reference, D the delays.

docs/topics/translation-metrics.md has the formulas with their sources. Units are those of the instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from statistics import fmean

from loquent.translate.score.instance import Instance
from loquent.translate.score.token_delay import average_token_delay


def latency(instance: Instance, *, computation_aware: bool = False) -> dict[str, float | None]:
    """All figures of one instance by their names; each is None if nothing was written.

    YAAL and LongYAAL are None, too, if all was written after the end.

    Args:
        instance: what was said and when.
        computation_aware: count from ``elapsed`` instead of from ``delays``.

    Raises:
        ValueError: ``computation_aware`` of an instance without ``elapsed``.
    """
    times = instance.elapsed if computation_aware else instance.delays
    if times is None:
        raise ValueError("elapsed: computation-aware figures need it, and the instance has none")
    if not times:
        return dict.fromkeys(NAMES)
    source, reference = instance.source_length, instance.reference_length
    longer = max(len(times), reference)
    end = source if instance.recording_end is None else instance.recording_end
    return {
        "AP": average_proportion(times, source, reference),
        "AL": average_lagging(times, source, reference),
        "LAAL": average_lagging(times, source, longer),
        "YAAL": average_lagging_before(times, source, longer, source),
        "LongYAAL": average_lagging_before(times, source, longer, end),
        "DAL": differentiable_average_lagging(times, source),
        "ATD": average_token_delay(instance.delays, times, instance.unit),
        "StartOffset": times[0],
        "EndOffset": times[-1] - source,
    }


NAMES = ("AP", "AL", "LAAL", "YAAL", "LongYAAL", "DAL", "ATD", "StartOffset", "EndOffset")


def average_proportion(times: Sequence[float], source: float, target: int) -> float:
    """AP (arXiv 1606.02012): sum D / (|X| |Y*|)."""
    return sum(times) / (source * target)


def average_lagging(times: Sequence[float], source: float, target: int) -> float:
    """AL (arXiv 1810.08398), and with the greater of |Y| and |Y*| as ``target``, LAAL (arXiv 2206.05807).

    The mean of D_i - (i-1) |X| / target up to the first i that was written when the source had ended; D_1 if the source
    had ended before.
    """
    if times[0] > source:
        return times[0]
    counted = len(list(takewhile(lambda time: time < source, times))) + 1
    return fmean(_lags(times[:counted], source / target))


def average_lagging_before(times: Sequence[float], source: float, target: int, end: float) -> float | None:
    """YAAL (arXiv 2509.17349): LAAL of what was written before the source's end; LongYAAL: before the recording's."""
    before = list(takewhile(lambda time: time < end, times))
    return fmean(_lags(before, source / target)) if before else None


def differentiable_average_lagging(times: Sequence[float], source: float) -> float:
    """DAL (arXiv 1906.00048): AL of all units, each of which takes |X| / |Y| at least."""
    pace = source / len(times)
    paced = [times[0]]
    for time in times[1:]:
        paced.append(max(time, paced[-1] + pace))
    return fmean(_lags(paced, pace))


def _lags(times: Sequence[float], pace: float) -> list[float]:
    """How far each is behind a translation that keeps pace with the source from its beginning."""
    return [time - at * pace for at, time in enumerate(times)]
