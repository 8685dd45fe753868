"""Average token delay: how long a target token ends after the source token that it stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from loquent.translate.score.instance import SourceUnit

SOURCE_TOKEN = {"words": 1.0, "ms": 300.0, "s": 0.3}  # how long it is: a word of speech takes about 300 ms
TARGET_TOKEN = {"words": 1.0, "ms": 0.0, "s": 0.0}  # text beside speech takes no time


def average_token_delay(delays: Sequence[float], times: Sequence[float], unit: SourceUnit) -> float:
    """ATD (arXiv 2211.13173, equation 8), of output as text.

    Target token t, in a chunk that was written at once, stands for source token
    ``s = min(t - max(0, target before the chunk - source before it), source read)``; both are counted from 1, and
    source that was read between two chunks is cut into tokens. The figure is the mean of the time at which t ends less
    the time at which s ends; t begins when it is given out and t - 1 has ended.

    Args:
        delays: how much of the source had been read, of each target token.
        times: when it was given out: the same, or with the time for computing.
        unit: of both.
    """
    token = SOURCE_TOKEN[unit]
    source_ends, read, written = [0.0], 0.0, 0
    lags, ended, taken = [], -math.inf, iter(times)
    for delay, chunk in groupby(delays):
        ahead = max(0, written - (len(source_ends) - 1))
        count = max(0, math.ceil((delay - read) / token - ROUNDING))
        source_ends += [read + token * (at + 1) for at in range(count - 1)] + [delay] * (count > 0)
        read = max(read, delay)
        for _ in chunk:
            written += 1
            ended = max(ended, next(taken)) + TARGET_TOKEN[unit]
            lags.append(ended - source_ends[min(written - ahead, len(source_ends) - 1)])
    return fmean(lags)


ROUNDING = 1e-6  # of a token: 0.9 s are three tokens, not three and a little
