"""Inner loop of the counter-based normal noise on the CPU."""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.runtime import HEADER, TASKS

GAMMA = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31, S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
UNIT, TURN = np.float32(2.0**-32), np.float32(2 * math.pi * 2.0**-32)
HALF, MINUS_TWO = np.float32(0.5), np.float32(-2)


@jit
def _mix(z):
    z = (z ^ (z >> S30)) * FIRST
    z = (z ^ (z >> S27)) * SECOND
    return z ^ (z >> S31)


@jit
def _counter_noise(job, task):
    """One frame; the order of the fields is that of `counter_noise._numba`."""
    steps, size = job[0], job[1]
    seed, frame = np.uint64(integers(job[2])[task // steps]), np.uint64(integers(job[3])[task])
    out = floats(job[4] + 4 * task * size)
    key, pairs = _mix(_mix(seed) + frame * GAMMA), (size + 1) // 2
    radius, angle = np.empty(pairs, np.float32), np.empty(pairs, np.float32)
    for i in range(pairs):
        z = _mix(key + np.uint64(i + 1) * GAMMA)
        radius[i] = (np.float32(z >> S32) + HALF) * UNIT
        angle[i] = np.float32(z & LOW) * TURN
    for i in range(pairs):
        radius[i] = math.sqrt(MINUS_TWO * math.log(radius[i]))
    for i in range(pairs):
        out[i] = radius[i] * math.cos(angle[i])
    for i in range(size - pairs):
        out[pairs + i] = radius[i] * math.sin(angle[i])


def counter_noise(data):
    job = carray(data, (HEADER + 5,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _counter_noise(job[HEADER:], task)
