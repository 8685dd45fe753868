"""Dynamic time warping: the cheapest monotonic path through a matrix, for word times from attention."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.kernels.registry import Operation


def dtw(cost: Tensor) -> Tensor:
    """First column that the cheapest path visits in each row::

        D[i, j] = cost[i, j] + min(D[i - 1, j - 1], D[i - 1, j], D[i, j - 1])

    A path leads from the first to the last entry by steps down, right, or both; ties go to the right, then down.

    Args:
        cost: (N, M) float32, N and M at least 1. Sums are taken in float64.

    Returns:
        (N,) int64, not decreasing.

    Source: Sakoe and Chiba 1978; ties as in openai/whisper `timing.py`.
    """
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"expected a matrix with at least one entry, got shape {tuple(cost.shape)}")
    return DTW.choose(cost)(cost)


def _reference(cost: Tensor) -> Tensor:
    rows, columns = cost.shape
    total = [[torch.inf] * (columns + 1) for _ in range(rows + 1)]
    total[0][0] = 0.0
    for i, row in enumerate(cost.tolist()):
        above, here = total[i], total[i + 1]
        for j, value in enumerate(row):
            here[j + 1] = value + min(above[j], above[j + 1], here[j])
    first = torch.zeros(rows, dtype=torch.long)
    i, j = rows, columns
    while i > 0:
        first[i - 1] = j - 1
        both, down, right = total[i - 1][j - 1], total[i - 1][j], total[i][j - 1]
        if both < down and both < right:
            i, j = i - 1, j - 1
        elif (down < both and down < right) or j == 1:
            i -= 1
        else:
            j -= 1
    return first.to(cost.device)


def _numba(cost: Tensor) -> Tensor:
    from loquent.kernels.cpu.runtime import kernel, run

    cost = cost.detach().contiguous()
    first = torch.zeros(cost.shape[0], dtype=torch.long)
    run(kernel("dtw", "dtw"), 1, 0, *cost.shape, cost.data_ptr(), first.data_ptr())
    return first


DTW = Operation("dtw", reference=_reference, numba=_numba)
