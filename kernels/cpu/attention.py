"""Attention over cached keys on the CPU; a kernel's task is one head of one row."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.cpu.tile import FEW, KEYS, LOWEST, QUERIES, absorb, begin, finish, new_tile, power_of_two, score


@jit
def _self_attention(job, task, tile):
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

    for first in range(0, length, QUERIES):
        count = min(QUERIES, length - first)
        begin(tile, q, q_at + first * q_step, q_step, count, dim)
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
        finish(tile, out, out_at + first * out_step, out_step, count, dim)

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
def _cross_attention(job, task, tile):
    """A stretch of the queries of one head of one row; the order of the fields is that of `cross_attention._numba`.

    Rows of one query each that follow each other in the batch and read the same frames (the hypotheses of a beam do)
    are a few queries of the first of them: keys and values are read once for all.
    """
    heads, dim, wanted, stretch, stretches = job[1], job[2], job[3], job[27], job[28]
    row, head, start = task // stretches // heads, task // stretches % heads, task % stretches * stretch
    end = min(start + stretch, job[0])
    slots, lengths = integers(job[4]), integers(job[5])
    slot, frames = slots[row], lengths[row]
    q, q_at, q_step = floats(job[7]), row * job[8] + head * job[10], job[9]
    out, out_at, out_step = floats(job[11]), row * job[12] + head * job[14], job[13]
    k, k_step = job[15] + 4 * (slot * job[16] + head * job[17]), 4 * job[18]  # in bytes
    v, v_step = job[19] + 4 * (slot * job[20] + head * job[21]), 4 * job[22]
    w, w_row, w_head, w_step = floats(job[23]), row * job[24], job[25], job[26]
    if job[0] == 1:
        before = row
        while before > 0 and slots[before - 1] == slot and lengths[before - 1] == frames:
            before -= 1
        if (row - before) % FEW:
            return  # the first one's task does it
        while end < FEW and row + end < job[29] and slots[row + end] == slot and lengths[row + end] == frames:
            end += 1
        q_step, out_step, w_step = job[8], job[12], job[24]
    if frames == 0:
        for step in range(start, end):
            for c in range(dim):
                out[out_at + step * out_step + c] = 0
        return

    queries, _, scores, top, total, _, _, few = tile
    names = integers(job[6])
    for first in range(start, end, QUERIES):
        count = min(QUERIES, end - first)
        begin(tile, q, q_at + first * q_step, q_step, count, dim)
        for key in range(0, frames, KEYS):
            keys = min(KEYS, frames - key)
            score(queries, few, scores, count, dim, k + key * k_step, k_step, keys)
            for n in range(wanted):
                if names[n] == head:
                    for t in range(count):
                        at = w_row + n * w_head + (first + t) * w_step + key
                        for j in range(keys):
                            w[at + j] = scores[j, t]
            absorb(tile, count, dim, v + key * v_step, v_step, keys)
        for n in range(wanted):
            if names[n] == head:
                for t in range(count):
                    at = w_row + n * w_head + (first + t) * w_step
                    high, scale = top[t], 1 / total[t]
                    for j in range(frames):
                        w[at + j] = power_of_two(w[at + j] - high) * scale
        finish(tile, out, out_at + first * out_step, out_step, count, dim)


@jit
def _attend(tile, count, dim, source, entry, key, end, view):
    """Take in keys ``key`` … ``end - 1``, which lie in ``source`` from ``entry`` on; each query those that it sees."""
    k, k_step, v, v_step = source
    position, block, left, sinks = view
    queries, scores, few = tile[0], tile[2], tile[7]
    earliest, latest = position // block * block, (position + count - 1) // block * block  # the queries' blocks
    while key < end:
        keys = min(KEYS, end - key)
        score(queries, few, scores, count, dim, k + entry * k_step, k_step, keys)
        expires = left >= 0 and key < latest - left and key + keys > sinks
        if expires or key + keys > earliest + block:
            for t in range(count):
                start = (position + t) // block * block
                for j in range(keys):
                    expired = left >= 0 and key + j < start - left and key + j >= sinks
                    if expired or key + j >= start + block:
                        scores[j, t] = LOWEST
        absorb(tile, count, dim, v + entry * v_step, v_step, keys)
        key += keys
        entry += keys


def self_attention(data):
    job = carray(data, (HEADER + 34,), np.int64)
    tile = new_tile(job[HEADER + 2])
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _self_attention(job[HEADER:], task, tile)


def cross_attention(data):
    job = carray(data, (HEADER + 30,), np.int64)
    tile = new_tile(job[HEADER + 2])
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _cross_attention(job[HEADER:], task, tile)
