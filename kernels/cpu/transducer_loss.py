"""The transducer's lattice on the CPU: forward and backward variables in float64; a task is one row of the batch."""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.runtime import HEADER, TASKS


@jit
def _log_add(a, b):
    high, low = max(a, b), min(a, b)
    return high + math.log1p(math.exp(low - high)) if low > -1e29 else high


@jit
def _lattice(job, task):
    """One row; the order of the fields is that of `transducer_loss._Lattice`."""
    frames, positions = job[0], job[1]
    blank, blank_at = floats(job[2]), task * frames * positions
    token, token_at = floats(job[3]), task * frames * (positions - 1)
    length, tokens = integers(job[4])[task], integers(job[5])[task]
    loss, from_blank, from_token = floats(job[6]), floats(job[7]), floats(job[8])

    alpha = np.full((length, tokens + 1), -1e30)
    alpha[0, 0] = 0
    for t in range(length):
        for u in range(tokens + 1):
            if t > 0:
                alpha[t, u] = alpha[t - 1, u] + blank[blank_at + (t - 1) * positions + u]
            if u > 0:
                step = alpha[t, u - 1] + token[token_at + t * (positions - 1) + u - 1]
                alpha[t, u] = _log_add(alpha[t, u], step)
    total = alpha[length - 1, tokens] + blank[blank_at + (length - 1) * positions + tokens]
    loss[task] = -total

    for i in range(blank_at, blank_at + frames * positions):
        from_blank[i] = 0
    for i in range(token_at, token_at + frames * (positions - 1)):
        from_token[i] = 0
    beta = np.full(tokens + 1, -1e30)  # of the next frame, then of this one: log-probability of all that follows a node
    for t in range(length - 1, -1, -1):
        for u in range(tokens, -1, -1):
            arc = blank[blank_at + t * positions + u]
            through_blank = arc + beta[u] if t < length - 1 else (arc if u == tokens else -1e30)
            from_blank[blank_at + t * positions + u] = math.exp(min(alpha[t, u] + through_blank - total, 0))
            beta[u] = through_blank
            if u < tokens:
                through_token = token[token_at + t * (positions - 1) + u] + beta[u + 1]
                from_token[token_at + t * (positions - 1) + u] = math.exp(min(alpha[t, u] + through_token - total, 0))
                beta[u] = _log_add(through_blank, through_token)


def lattice(data):
    job = carray(data, (HEADER + 9,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _lattice(job[HEADER:], task)
