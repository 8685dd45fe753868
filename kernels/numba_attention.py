"""Attention on the CPU: tiles of queries over tiles of keys with a running softmax (arXiv 2205.14135).

A kernel's task is one head of one row. Within a tile the queries lie side by side, in the lanes of vectors.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from loquent.kernels.numba_panel import LANES, dot_four, multiply, multiply_add, weigh
from loquent.kernels.numba_runtime import HEADER, TASKS, floats, integers, jit, loop, next_task

FEW = 2  # queries that would leave most lanes idle: their scores are sums over lanes instead
QUERIES, KEYS = 16, 48  # of a tile: its scores, keys and values stay in the first-level cache
LOWEST = np.float32(-1e30)
LOG2_E = math.log2(math.e)  # weights are powers of two


@jit
def _self_attention(job, task):
    """One head of one row; the order of the fields is that of `cached_attention._numba`."""
    steps, heads, dim, ring, block, left, sinks = job[0], job[1], job[2], job[3], job[4], job[5], job[6]
    row, head = task // heads, task % heads
    slot, position, length = integers(job[7])[row], integers(job[8])[row], integers(job[9])[row]
    q, q_at, q_step = floats(job[10]), row * job[11] + head * job[13], job[12]
    k, k_at, k_step = floats(job[14]), row * job[15] + head * job[17], job[16]
    v, v_at, v_step = floats(job[18]), row * job[19] + head * job[21], job[20]
    out, out_at, out_step = floats(job[22]), row * job[23] + head * job[25], job[24]
    old_k, old_k_at, old_k_step = floats(job[26]), slot * job[27] + head * job[28], job[29]
    old_v, old_v_at, old_v_step = floats(job[30]), slot * job[31] + head * job[32], job[33]
    new = job[14] + 4 * k_at, 4 * k_step, job[18] + 4 * v_at, 4 * v_step  # addresses and strides in bytes
    old = job[26] + 4 * old_k_at, 4 * old_k_step, job[30] + 4 * old_v_at, 4 * old_v_step
    turn = ring - sinks  # entries that are overwritten in turn

    tile = _new_tile(dim)
    for first in range(0, length, QUERIES):
        count = min(QUERIES, length - first)
        _begin(tile, q, q_at + first * q_step, q_step, count, dim)
        start = (position + first) // block * block  # of the first query's block
        end = min(((position + first + count - 1) // block + 1) * block, position + length)
        seen = max(0, start - left) if left >= 0 else 0
        view = (position + first, block, left, sinks)

        _attend(tile, count, dim, old, 0, 0, min(sinks, position), view)
        key = max(seen, sinks, position - turn)
        while key < position:  # once, or twice where the ring wraps
            entry = sinks + (key - sinks) % turn
            stretch = min(position - key, ring - entry)
            _attend(tile, count, dim, old, entry, key, key + stretch, view)
            key += stretch
        key = position if position < sinks else max(position, seen)
        _attend(tile, count, dim, new, key - position, key, end, view)
        _finish(tile, out, out_at + first * out_step, out_step, count, dim)

    for step in range(length, steps):
        for c in range(dim):
            out[out_at + step * out_step + c] = 0
    for step in range(length):
        key = position + step
        if key < sinks:
            entry = key
        elif key >= position + length - turn:
            entry = sinks + (key - sinks) % turn
        else:
            continue
        for c in range(dim):
            old_k[old_k_at + entry * old_k_step + c] = k[k_at + step * k_step + c]
        for c in range(dim):
            old_v[old_v_at + entry * old_v_step + c] = v[v_at + step * v_step + c]


@jit
def _cross_attention(job, task):
    """One head of one row; the order of the fields is that of `cross_attention._numba`."""
    steps, heads, dim, wanted = job[0], job[1], job[2], job[3]
    row, head = task // heads, task % heads
    slot, frames = integers(job[4])[row], integers(job[5])[row]
    q, q_at, q_step = floats(job[7]), row * job[8] + head * job[10], job[9]
    out, out_at, out_step = floats(job[11]), row * job[12] + head * job[14], job[13]
    k, k_step = job[15] + 4 * (slot * job[16] + head * job[17]), 4 * job[18]  # in bytes
    v, v_step = job[19] + 4 * (slot * job[20] + head * job[21]), 4 * job[22]
    w, w_row, w_head, w_step = floats(job[23]), row * job[24], job[25], job[26]
    if frames == 0:
        for step in range(steps):
            for c in range(dim):
                out[out_at + step * out_step + c] = 0
        return

    tile = _new_tile(dim)
    scores, top, total = tile[2], tile[3], tile[4]
    names = integers(job[6])
    for first in range(0, steps, QUERIES):
        count = min(QUERIES, steps - first)
        _begin(tile, q, q_at + first * q_step, q_step, count, dim)
        for key in range(0, frames, KEYS):
            keys = min(KEYS, frames - key)
            _score(tile, count, dim, k + key * k_step, k_step, keys)
            for n in range(wanted):
                if names[n] == head:
                    for t in range(count):
                        at = w_row + n * w_head + (first + t) * w_step + key
                        for j in range(keys):
                            w[at + j] = scores[j, t]
            _absorb(tile, count, dim, v + key * v_step, v_step, keys)
        for n in range(wanted):
            if names[n] == head:
                for t in range(count):
                    at = w_row + n * w_head + (first + t) * w_step
                    high, scale = top[t], 1 / total[t]
                    for j in range(frames):
                        w[at + j] = _power_of_two(w[at + j] - high) * scale
        _finish(tile, out, out_at + first * out_step, out_step, count, dim)


@jit
def _new_tile(dim):
    """Scaled queries, sums of values, scores, and each query's highest score, sum of weights, and
    room for both in one tile of keys; the first few queries again, each in a row."""
    return (
        np.empty((dim, QUERIES), np.float32),
        np.empty((QUERIES, dim), np.float32),
        np.empty((KEYS, QUERIES), np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
        np.empty((FEW, dim), np.float32),
    )


@jit
def _begin(tile, q, at, stride, count, dim):
    queries, sums, scores, top, total, _, _, rows = tile
    scale = np.float32(LOG2_E / math.sqrt(dim))
    queries[:] = 0
    scores[:] = 0
    sums[:] = 0
    top[:] = LOWEST
    total[:] = 0
    for t in range(count):
        for c in range(dim):
            queries[c, t] = q[at + t * stride + c] * scale
    for t in range(min(count, FEW)):
        for c in range(dim):
            rows[t, c] = queries[c, t]


@jit
def _finish(tile, out, at, stride, count, dim):
    sums, total = tile[1], tile[4]
    for t in range(count):
        scale = 1 / total[t]
        for c in range(dim):
            out[at + t * stride + c] = sums[t, c] * scale


@jit
def _attend(tile, count, dim, source, entry, key, end, view):
    """Take in keys ``key`` … ``end - 1``, which lie in ``source`` from ``entry`` on; each query those that it sees."""
    k, k_step, v, v_step = source
    position, block, left, sinks = view
    scores = tile[2]
    earliest, latest = position // block * block, (position + count - 1) // block * block  # the queries' blocks
    while key < end:
        keys = min(KEYS, end - key)
        _score(tile, count, dim, k + entry * k_step, k_step, keys)
        expires = left >= 0 and key < latest - left and key + keys > sinks
        if expires or key + keys > earliest + block:
            for t in range(count):
                start = (position + t) // block * block
                for j in range(keys):
                    expired = left >= 0 and key + j < start - left and key + j >= sinks
                    if expired or key + j >= start + block:
                        scores[j, t] = LOWEST
        _absorb(tile, count, dim, v + entry * v_step, v_step, keys)
        key += keys
        entry += keys


@jit
def _score(tile, count, dim, k, k_step, keys):
    """scores[j, t] = k[j] · queries[t]."""
    queries, scores, rows = tile[0], tile[2], tile[7]
    stride = 4 * QUERIES
    done = 0
    if count <= FEW:
        done = keys // 4 * 4
        for t in range(count):
            for j in range(0, done, 4):
                dot_four(
                    rows.ctypes.data + 4 * t * dim, k + j * k_step, k_step,
                    scores.ctypes.data + j * stride + 4 * t, stride, dim // LANES,
                )  # fmt: skip
    multiply(
        k + done * k_step, k_step, 4, queries.ctypes.data, stride,
        scores.ctypes.data + done * stride, stride, keys - done, (count + LANES - 1) // LANES, dim,
    )  # fmt: skip


@jit
def _absorb(tile, count, dim, v, v_step, keys):
    """Turn scores into weights, rescale what came before to the new highest score, and add the weighted values."""
    _, sums, scores, top, total, high, weight, _ = tile
    for t in range(0, count, LANES):
        weigh(
            scores.ctypes.data + 4 * t, 4 * QUERIES, keys,
            top.ctypes.data + 4 * t, high.ctypes.data + 4 * t, weight.ctypes.data + 4 * t,
        )  # fmt: skip
    for t in range(count):
        if high[t] > top[t]:
            fade = _power_of_two(top[t] - high[t])
            top[t] = high[t]
            total[t] *= fade
            for c in range(dim):
                sums[t, c] *= fade
        total[t] += weight[t]
    multiply_add(scores.ctypes.data, 4, 4 * QUERIES, v, v_step, sums.ctypes.data, 4 * dim, count, dim // LANES, keys)


@jit
def _power_of_two(x):
    return np.float32(2) ** max(x, np.float32(-126))


@loop
def self_attention(data):
    job = carray(data, (HEADER + 34,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _self_attention(job[HEADER:], task)


@loop
def cross_attention(data):
    job = carray(data, (HEADER + 27,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _cross_attention(job[HEADER:], task)
