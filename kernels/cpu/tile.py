"""A tile of attention on the CPU: some queries over some keys, with a running softmax (arXiv 2205.14135).

The queries of a tile lie side by side, in the lanes of vectors. A head has LANES channels or more.
"""

from __future__ import annotations

import math

import numpy as np

from loquent.kernels.cpu.compiler import jit
from loquent.kernels.cpu.panel import LANES, dots_1x4, dots_2x4, multiply, multiply_add, weigh

FEW = 6  # queries that would leave most lanes idle: their scores are sums over lanes instead
QUERIES, KEYS = 2 * LANES, 48  # of a tile: its scores, keys and values stay in the first-level cache
LOWEST = np.float32(-1e30)  # score of what is not seen
LOG2_E = math.log2(math.e)  # weights are powers of two


@jit
def new_tile(dim):
    """Scaled queries, sums of values, scores, and each query's highest score, sum of weights, and
    room for both in one tile of keys; the first few queries again, each in a row.

    It serves for one tile after the other: lanes without a query hold what an earlier one left, and are not read."""
    return (
        np.zeros((dim, QUERIES), np.float32),
        np.zeros((QUERIES, (dim + LANES - 1) // LANES * LANES), np.float32),
        np.zeros((KEYS, QUERIES), np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
        np.empty((FEW, dim), np.float32),
    )


@jit
def begin(tile, q, at, stride, count, dim):
    """Start with ``count`` queries, ``stride`` apart in ``q`` from ``at`` on."""
    queries, sums, _, top, total, _, _, few = tile
    place(queries, few, q, at, stride, count, dim)
    sums[:count] = 0
    top[:] = LOWEST
    total[:] = 0


@jit
def place(queries, few, q, at, stride, count, dim):
    """Scale queries and put them side by side."""
    scale = np.float32(LOG2_E / math.sqrt(dim))
    for t in range(count):
        query = q[at + t * stride :]
        for c in range(dim):
            queries[c, t] = query[c] * scale
        if t < FEW:
            for c in range(dim):
                few[t, c] = query[c] * scale


@jit
def score(queries, few, scores, count, dim, k, k_step, keys):
    """scores[j, t] = k[j] · queries[t] for j < keys; an address and a stride in bytes."""
    stride = 4 * QUERIES
    done = 0
    if count <= FEW and dim % LANES == 0:
        done = keys // 4 * 4
        for j in range(0, done, 4):
            for t in range(0, count - 1, 2):
                dots_2x4(
                    few.ctypes.data + 4 * t * dim, 4 * dim, k + j * k_step, k_step,
                    scores.ctypes.data + j * stride + 4 * t, 4, stride, dim // LANES,
                )  # fmt: skip
            if count % 2:
                dots_1x4(
                    few.ctypes.data + 4 * (count - 1) * dim, 0, k + j * k_step, k_step,
                    scores.ctypes.data + j * stride + 4 * (count - 1), 0, stride, dim // LANES,
                )  # fmt: skip
    multiply(
        k + done * k_step, k_step, 4, queries.ctypes.data, stride,
        scores.ctypes.data + done * stride, stride, keys - done, (count + LANES - 1) // LANES, dim,
    )  # fmt: skip


@jit
def absorb(tile, count, dim, v, v_step, keys):
    """Turn scores into weights, rescale what came before to the new highest score, and add the weighted values."""
    _, sums, scores, top, total, high, weight, _ = tile
    for t in range(0, count, LANES):
        weigh(
            scores.ctypes.data + 4 * t, 4 * QUERIES, keys,
            top.ctypes.data + 4 * t, high.ctypes.data + 4 * t, weight.ctypes.data + 4 * t,
        )  # fmt: skip
    for t in range(count):
        if high[t] > top[t]:
            fade = power_of_two(top[t] - high[t])
            top[t] = high[t]
            total[t] *= fade
            for c in range(sums.shape[1]):
                sums[t, c] *= fade
        total[t] += weight[t]
    full, width = dim // LANES, 4 * sums.shape[1]
    multiply_add(scores.ctypes.data, 4, 4 * QUERIES, v, v_step, sums.ctypes.data, width, count, full, keys)
    if dim % LANES:  # the last vector overlaps the one before it
        last, target = v + 4 * (dim - LANES), sums.ctypes.data + 4 * full * LANES
        multiply_add(scores.ctypes.data, 4, 4 * QUERIES, last, v_step, target, width, count, 1, keys)


@jit
def finish(tile, out, at, stride, count, dim):
    """Write the weighted means."""
    sums, total = tile[1], tile[4]
    full = dim // LANES * LANES
    for t in range(count):
        scale = 1 / total[t]
        for c in range(full):
            out[at + t * stride + c] = sums[t, c] * scale
        for c in range(full, dim):
            out[at + t * stride + c] = sums[t, full + LANES - dim + c] * scale


@jit
def power_of_two(x):
    """2**x of a number that is not positive."""
    return np.float32(2) ** max(x, np.float32(-126))
