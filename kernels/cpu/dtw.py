"""Inner loop of dynamic time warping on the CPU: sequential, so no pool of threads; exact, so no fast-math."""

from __future__ import annotations

import numba
import numpy as np


def _dtw(cost, first):
    rows, columns = cost.shape
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


try:
    dtw = numba.njit(cache=True, nogil=True)(_dtw)
except RuntimeError:  # numba found no folder to keep machine code in
    dtw = numba.njit(nogil=True)(_dtw)
