"""Attention with relative positions on the CPU; a task is one head of one row."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.cpu.tile import FEW, KEYS, LOWEST, QUERIES, absorb, begin, finish, new_tile, place, score


@jit
def _relative_attention(job, task):
    """One head of one row; the order of the fields is that of `relative_attention._numba`."""
    asked, heads, dim, ring, distances, future = job[0], job[1], job[2], job[3], job[4], job[5]
    row, head = task // heads, task % heads
    slot, position, length = integers(job[6])[row], integers(job[7])[row], integers(job[8])[row]
    sight = (integers(job[9])[row * asked :], integers(job[10])[row * asked :], integers(job[11])[row * asked :])
    q, q_at, q_step = floats(job[12]), row * job[13] + head * job[15], job[14]
    k, k_at, k_step = floats(job[16]), row * job[17] + head * job[19], job[18]
    v, v_at, v_step = floats(job[20]), row * job[21] + head * job[23], job[22]
    out, out_at, out_step = floats(job[24]), row * job[25] + head * job[27], job[26]
    old_k, old_k_at, old_k_step = floats(job[28]), slot * job[29] + head * job[30], job[31]
    old_v, old_v_at, old_v_step = floats(job[32]), slot * job[33] + head * job[34], job[35]
    table, table_step = job[36] + 4 * head * job[38], 4 * job[37]  # from here on addresses and strides in bytes
    new = job[16] + 4 * k_at, 4 * k_step, job[20] + 4 * v_at, 4 * v_step
    old = job[28] + 4 * old_k_at, 4 * old_k_step, job[32] + 4 * old_v_at, 4 * old_v_step
    content_bias, distance_bias = floats(job[39])[head * job[40] :], floats(job[41])[head * job[42] :]

    tile, biased = new_tile(dim), np.empty(QUERIES * dim, np.float32)
    far_queries, far_few = np.zeros((dim, QUERIES), np.float32), np.empty((FEW, dim), np.float32)
    far_scores = np.empty((KEYS + QUERIES, QUERIES), np.float32)
    queries, scores, total, few = tile[0], tile[2], tile[4], tile[7]
    start = 0
    while start < asked:
        count, nearest, farthest, key, end = _gather(sight, start, asked)
        _bias(biased, q, q_at + start * q_step, q_step, sight, start, count, content_bias, dim)
        begin(tile, biased, 0, dim, count, dim)
        _bias(biased, q, q_at + start * q_step, q_step, sight, start, count, distance_bias, dim)
        place(far_queries, far_few, biased, 0, dim, count, dim)

        key, end = max(key, position - ring, 0), min(end, position + length)
        while key < end:
            if key < position:
                source, entry = old, key % ring
                keys = min(KEYS, min(end, position) - key, ring - entry)
            else:
                source, entry = new, key - position
                keys = min(KEYS, end - key)
            score(queries, few, scores, count, dim, source[0] + entry * source[1], source[1], keys)
            low = min(max(nearest - key - keys + 1 + future, 0), distances - 1)
            high = min(max(farthest - key + future, 0), distances - 1)
            score(far_queries, far_few, far_scores, count, dim, table + low * table_step, table_step, high - low + 1)
            for t in range(count):
                _add_distances(scores, far_scores, t, sight, start, key, keys, future, low, high)
            absorb(tile, count, dim, source[2] + entry * source[3], source[3], keys)
            key += keys
        finish(tile, out, out_at + start * out_step, out_step, count, dim)
        for t in range(count):
            if sight[1][start + t] >= sight[2][start + t] or total[t] == 0:
                for c in range(dim):
                    out[out_at + (start + t) * out_step + c] = 0
        start += count

    for step in range(max(length - ring, 0), length):
        entry = (position + step) % ring
        for c in range(dim):
            old_k[old_k_at + entry * old_k_step + c] = k[k_at + step * k_step + c]
        for c in range(dim):
            old_v[old_v_at + entry * old_v_step + c] = v[v_at + step * v_step + c]


@jit
def _gather(sight, start, asked):
    """How many queries from ``start`` on share a tile: those that see anything stand less than QUERIES steps apart.

    And the least and the greatest of their steps, and the first and the end of all that they see.
    """
    query, first, end = sight
    nearest, farthest, low, high = np.int64(1 << 60), np.int64(-(1 << 60)), np.int64(1 << 60), np.int64(0)
    count = 0
    while count < min(QUERIES, asked - start):
        step = start + count
        if first[step] < end[step]:
            if max(farthest, query[step]) - min(nearest, query[step]) >= QUERIES:
                break
            nearest, farthest = min(nearest, query[step]), max(farthest, query[step])
            low, high = min(low, first[step]), max(high, end[step])
        count += 1
    return count, nearest, farthest, low, high


@jit
def _bias(biased, q, at, stride, sight, start, count, bias, dim):
    """Queries plus a bias, each in a row; zero for a query that sees nothing, which may be NaN."""
    _, first, end = sight
    for t in range(count):
        if first[start + t] < end[start + t]:
            for c in range(dim):
                biased[t * dim + c] = q[at + t * stride + c] + bias[c]
        else:
            for c in range(dim):
                biased[t * dim + c] = 0


@jit
def _add_distances(scores, far_scores, t, sight, start, key, keys, future, low, high):
    """Add the scores of distances to those of query t, and hide what it does not see; far_scores begin at ``low``."""
    query, first, end = sight
    distance = query[start + t] - key + future
    begin = min(max(first[start + t] - key, 0), keys)
    finish = max(min(end[start + t] - key, keys), begin)
    for j in range(begin):
        scores[j, t] = LOWEST
    for j in range(begin, finish):
        scores[j, t] += far_scores[min(max(distance - j, low), high) - low, t]
    for j in range(finish, keys):
        scores[j, t] = LOWEST


def relative_attention(data):
    job = carray(data, (HEADER + 43,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _relative_attention(job[HEADER:], task)
