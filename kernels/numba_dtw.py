"""Inner loop of dynamic time warping on the CPU."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.numba_runtime import HEADER, address_of, floats, integers, jit, loop


@jit
def _dtw(job):
    """The whole matrix; the order of the fields is that of `dtw._numba`."""
    rows, columns = job[0], job[1]
    cost, first = floats(job[2]), integers(job[4])
    total = carray(address_of(job[3]), (rows + 1, columns + 1), np.float64)
    total[:] = np.inf
    total[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            best = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = cost[i * columns + j] + best
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


@loop
def dtw(data):
    _dtw(carray(data, (HEADER + 5,), np.int64)[HEADER:])
