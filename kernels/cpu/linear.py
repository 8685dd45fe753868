"""Inner loop of the linear layer for few rows on the CPU."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, jit, next_task
from loquent.kernels.cpu.panel import LANES, dots_1x4, dots_2x4
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.linear import OUTPUTS


@jit
def _linear(job, task):
    """All rows times a stretch of outputs; the order of the fields is that of `linear._few_rows`. Four rows of the
    weight are read at a time, as streams of their own, and meet all inputs while they are in the cache."""
    rows, outputs, inputs, x, weight, y = job[0], job[1], job[2], job[3], job[4], job[5]
    bias, has_bias, out = floats(job[6]), job[6] != 0, floats(y)
    width, vectors = 4 * inputs, inputs // LANES
    for n in range(task * OUTPUTS, min((task + 1) * OUTPUTS, outputs), 4):
        block, column = weight + n * width, y + 4 * n
        for r in range(0, rows - 1, 2):
            dots_2x4(x + r * width, width, block, width, column + r * 4 * outputs, 4 * outputs, 4, vectors)
        if rows % 2:
            dots_1x4(x + (rows - 1) * width, 0, block, width, column + (rows - 1) * 4 * outputs, 0, 4, vectors)
        if has_bias:
            for r in range(rows):
                for m in range(n, n + 4):
                    out[r * outputs + m] += bias[m]


def linear(data):
    job = carray(data, (HEADER + 7,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _linear(job[HEADER:], task)
