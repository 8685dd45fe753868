"""The most probable tokens of a row of scores on the CPU; a kernel's task is a row."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.panel import LANES, weigh
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.cpu.tile import LOG2_E

BLOCK = 16 * LANES  # scores that are looked at together
LEAST = np.float32(-126)  # powers of two that count


@partial(jit, exact=True)
def _find(x, vocabulary, count, best, tokens, lanes):
    """The highest scores, sorted into ``best`` and ``tokens``: few blocks hold one that is better than the last."""
    best[:] = -np.inf
    tokens[:] = 0
    for start in range(0, vocabulary, BLOCK):
        length, block = min(BLOCK, vocabulary - start), floats(x + 4 * start)
        if length == BLOCK:
            for lane in range(LANES):
                lanes[lane] = block[lane]
            for row in range(1, BLOCK // LANES):
                for lane in range(LANES):
                    value, highest = block[row * LANES + lane], lanes[lane]
                    lanes[lane] = value if value > highest else highest
            worth = False
            for lane in range(LANES):
                worth |= lanes[lane] > best[count - 1]
            if not worth:
                continue
        for i in range(length):
            if block[i] > best[count - 1]:
                place = count - 1
                while place > 0 and block[i] > best[place - 1]:
                    best[place], tokens[place] = best[place - 1], tokens[place - 1]
                    place -= 1
                best[place], tokens[place] = block[i], start + i


@partial(jit, exact=True)
def _total(x, vocabulary, highest, powers, lanes):
    """Σ exp(score - highest)."""
    total = 0.0
    lanes[:] = 0
    for start in range(0, vocabulary, BLOCK):
        length, block = min(BLOCK, vocabulary - start), floats(x + 4 * start)
        if length < BLOCK:
            powers[:] = LEAST
        for i in range(length):
            power = (block[i] - highest) * np.float32(LOG2_E)
            powers[i] = power if power > LEAST else LEAST
        at = lanes.ctypes.data
        weigh(powers.ctypes.data, 4 * LANES, BLOCK // LANES, at, at + 4 * LANES, at + 8 * LANES)
        for lane in range(LANES):
            total += lanes[2 * LANES + lane]
    return total


@jit
def _top_tokens(job, task):
    """One row; the order of the fields is that of `top_tokens._numba`."""
    vocabulary, count, x = job[0], job[1], job[2] + 4 * task * job[0]
    best, tokens, lanes = np.empty(count, np.float32), np.empty(count, np.int64), np.empty(3 * LANES, np.float32)
    _find(x, vocabulary, count, best, tokens, lanes)
    sum_ = math.log(_total(x, vocabulary, best[0], np.empty(BLOCK, np.float32), lanes))
    scores, found = floats(job[3] + 4 * task * count), integers(job[4] + 8 * task * count)
    for n in range(count):
        scores[n] = best[n] - best[0] - sum_
        found[n] = tokens[n]


def top_tokens(data):
    job = carray(data, (HEADER + 5,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _top_tokens(job[HEADER:], task)
