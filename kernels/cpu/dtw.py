"""Inner loop of dynamic time warping on the CPU: sequential, so one task; exact, so no fast-math."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import integers, matrix, next_task
from loquent.kernels.cpu.runtime import HEADER, TASKS


def dtw(data):
    """The order of the fields is that of `dtw._numba`."""
    job = carray(data, (HEADER + 4,), np.int64)
    if next_task(data) >= job[TASKS]:
        return
    rows, columns = job[HEADER], job[HEADER + 1]
    cost, first = matrix(job[HEADER + 2], rows, columns), integers(job[HEADER + 3])
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = rows, columns
    while i > 0:
        first[i - 1] = j - 1
        both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        if both < down and both < right:
            i, j = i - 1, j - 1
        elif (down < both and down < right) or j == 1:
            i -= 1
        else:
            j -= 1
