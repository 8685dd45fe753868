"""Inner loops of attention on the CPU: tiles of queries over tiles of keys with a running softmax (arXiv 2205.14135)."""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from loquent.kernels.numba_runtime import HEADER, TASKS, floats, integers, jit, loop, next_task

QUERIES = 24  # per tile: the scores of a tile and its queries stay in the first-level cache
KEYS = 64
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
    turn = ring - sinks  # entries that are overwritten in turn

    tile = _new_tile(dim)
    for first in range(0, length, QUERIES):
        count = min(QUERIES, length - first)
        _begin(tile, q, q_at + first * q_step, q_step, count, dim)
        start = (position + first) // block * block  # of the first query's block
        end = min(((position + first + count - 1) // block + 1) * block, position + length)
        seen = max(0, start - left) if left >= 0 else 0
        view = (position + first, block, left, sinks)

        _attend(tile, count, dim, old_k, old_k_at, old_k_step, old_v, old_v_at, old_v_step, 0, min(sinks, position), view)
        key = max(seen, sinks, position - turn)
        while key < position:  # once, or twice where the ring wraps
            entry = sinks + (key - sinks) % turn
            stretch = min(position - key, ring - entry)
            _attend(
                tile, count, dim, old_k, old_k_at + entry * old_k_step, old_k_step,
                old_v, old_v_at + entry * old_v_step, old_v_step, key, key + stretch, view,
            )  # fmt: skip
            key += stretch
        key = position if position < sinks else max(position, seen)
        skip = key - position
        _attend(tile, count, dim, k, k_at + skip * k_step, k_step, v, v_at + skip * v_step, v_step, key, end, view)
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
    k, k_at, k_step = floats(job[15]), slot * job[16] + head * job[17], job[18]
    v, v_at, v_step = floats(job[19]), slot * job[20] + head * job[21], job[22]
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
            _score(tile, count, dim, k, k_at + key * k_step, k_step, keys)
            for n in range(wanted):
                if names[n] == head:
                    for t in range(count):
                        at = w_row + n * w_head + (first + t) * w_step + key
                        for j in range(keys):
                            w[at + j] = scores[t, j]
            _absorb(tile, count, dim, v, v_at + key * v_step, v_step, keys)
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
    """Scaled queries, sums of values, scores, and each query's highest score and sum of weights."""
    return (
        np.empty((QUERIES, dim), np.float32),
        np.empty((QUERIES, dim), np.float32),
        np.empty((QUERIES, KEYS), np.float32),
        np.empty(QUERIES, np.float32),
        np.empty(QUERIES, np.float32),
    )


@jit
def _begin(tile, q, at, stride, count, dim):
    queries, sums, _, top, total = tile
    scale = np.float32(LOG2_E / math.sqrt(dim))
    for t in range(count):
        for c in range(dim):
            queries[t, c] = q[at + t * stride + c] * scale
            sums[t, c] = 0
        top[t] = LOWEST
        total[t] = 0


@jit
def _finish(tile, out, at, stride, count, dim):
    _, sums, _, _, total = tile
    for t in range(count):
        scale = 1 / total[t]
        for c in range(dim):
            out[at + t * stride + c] = sums[t, c] * scale


@jit
def _attend(tile, count, dim, k, k_at, k_step, v, v_at, v_step, key, end, view):
    """Take in consecutive keys ``key`` … ``end - 1``, each query those that it sees."""
    position, block, left, sinks = view
    scores = tile[2]
    earliest, latest = position // block * block, (position + count - 1) // block * block  # the queries' blocks
    offset = 0
    while key < end:
        keys = min(KEYS, end - key)
        _score(tile, count, dim, k, k_at + offset * k_step, k_step, keys)
        past = left >= 0 and key < latest - left and key + keys > sinks
        if past or key + keys > earliest + block:
            for t in range(count):
                start = (position + t) // block * block
                for j in range(keys):
                    expired = left >= 0 and key + j < start - left and key + j >= sinks
                    if expired or key + j >= start + block:
                        scores[t, j] = LOWEST
        _absorb(tile, count, dim, v, v_at + offset * v_step, v_step, keys)
        key += keys
        offset += keys


@jit
def _score(tile, count, dim, k, at, stride, keys):
    """scores[t, j] = queries[t] · k[j], twelve at a time."""
    queries, scores = tile[0], tile[2]
    t = 0
    while t < count:
        batch = 3 if t + 3 <= count else 1
        q0 = queries[t]
        j = 0
        while j + 4 <= keys:
            k0, k1 = k[at + j * stride :], k[at + (j + 1) * stride :]
            k2, k3 = k[at + (j + 2) * stride :], k[at + (j + 3) * stride :]
            a0 = a1 = a2 = a3 = np.float32(0)
            if batch == 3:
                q1, q2 = queries[t + 1], queries[t + 2]
                b0 = b1 = b2 = b3 = c0 = c1 = c2 = c3 = np.float32(0)
                for c in range(dim):
                    x, y, z = q0[c], q1[c], q2[c]
                    a0 += x * k0[c]
                    a1 += x * k1[c]
                    a2 += x * k2[c]
                    a3 += x * k3[c]
                    b0 += y * k0[c]
                    b1 += y * k1[c]
                    b2 += y * k2[c]
                    b3 += y * k3[c]
                    c0 += z * k0[c]
                    c1 += z * k1[c]
                    c2 += z * k2[c]
                    c3 += z * k3[c]
                scores[t + 1, j], scores[t + 1, j + 1], scores[t + 1, j + 2], scores[t + 1, j + 3] = b0, b1, b2, b3
                scores[t + 2, j], scores[t + 2, j + 1], scores[t + 2, j + 2], scores[t + 2, j + 3] = c0, c1, c2, c3
            else:
                for c in range(dim):
                    x = q0[c]
                    a0 += x * k0[c]
                    a1 += x * k1[c]
                    a2 += x * k2[c]
                    a3 += x * k3[c]
            scores[t, j], scores[t, j + 1], scores[t, j + 2], scores[t, j + 3] = a0, a1, a2, a3
            j += 4
        while j < keys:
            k0 = k[at + j * stride :]
            for i in range(t, t + batch):
                a0 = np.float32(0)
                for c in range(dim):
                    a0 += queries[i, c] * k0[c]
                scores[i, j] = a0
            j += 1
        t += batch


@jit
def _absorb(tile, count, dim, v, at, stride, keys):
    """Turn scores into weights, rescale what came before to the new highest score, and add the weighted values."""
    _, sums, scores, top, total = tile
    for t in range(count):
        row = scores[t]
        high = top[t]
        for j in range(keys):
            high = max(high, row[j])
        weight = np.float32(0)
        for j in range(keys):
            row[j] = _power_of_two(row[j] - high)
            weight += row[j]
        if high > top[t]:
            fade = _power_of_two(top[t] - high)
            total[t] *= fade
            for c in range(dim):
                sums[t, c] *= fade
        top[t] = high
        total[t] += weight

    t = 0
    while t < count:
        batch = 2 if t + 2 <= count else 1
        s0 = sums[t]
        j = 0
        while j + 4 <= keys:
            v0, v1 = v[at + j * stride :], v[at + (j + 1) * stride :]
            v2, v3 = v[at + (j + 2) * stride :], v[at + (j + 3) * stride :]
            a0, a1, a2, a3 = scores[t, j], scores[t, j + 1], scores[t, j + 2], scores[t, j + 3]
            if batch == 2:
                s1 = sums[t + 1]
                b0, b1, b2, b3 = scores[t + 1, j], scores[t + 1, j + 1], scores[t + 1, j + 2], scores[t + 1, j + 3]
                for c in range(dim):
                    w, x, y, z = v0[c], v1[c], v2[c], v3[c]
                    s0[c] += a0 * w + a1 * x + a2 * y + a3 * z
                    s1[c] += b0 * w + b1 * x + b2 * y + b3 * z
            else:
                for c in range(dim):
                    s0[c] += a0 * v0[c] + a1 * v1[c] + a2 * v2[c] + a3 * v3[c]
            j += 4
        while j < keys:
            v0 = v[at + j * stride :]
            for i in range(t, t + batch):
                a0 = scores[i, j]
                for c in range(dim):
                    sums[i, c] += a0 * v0[c]
            j += 1
        t += batch


@jit
def _power_of_two(x):
    """2**x for x <= 0 to 2e-7, relative, as a polynomial that vectorises; below the smallest normal number it is that number."""
    x = max(x, np.float32(-126))
    whole = np.floor(x + np.float32(0.5))
    x -= whole
    y = np.float32(1.5403530e-4)
    y = y * x + np.float32(1.3333558e-3)
    y = y * x + np.float32(9.6181291e-3)
    y = y * x + np.float32(5.5504109e-2)
    y = y * x + np.float32(2.4022651e-1)
    y = y * x + np.float32(6.9314718e-1)
    y = y * x + np.float32(1)
    return y * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


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
