"""Inner loop of batched low-rank adapters on the CPU."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.panel import LANES, multiply
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.registry import TILE


@jit
def _batched_lora(job, task, wide, narrow):
    """A tile of steps with one adapter; the order of the fields is that of `batched_lora._numba`."""
    steps, inputs, room, outputs = job[0], job[1], job[2], job[3]
    tile = integers(job[4])[3 * task : 3 * task + 3]
    adapter, first, count = tile[0], tile[1], tile[2]
    order, rank = integers(job[5]), integers(job[6])[adapter]
    if rank == 0:
        return
    x, x_row, x_step = floats(job[7]), job[8], job[9]
    y, y_row, y_step = floats(job[10]), job[11], job[12]
    down, up = job[13] + 4 * adapter * job[14], job[16] + 4 * adapter * job[17]
    down_row, up_row = 4 * job[15], 4 * job[18]

    for i in range(count):  # rows of an adapter may lie anywhere
        at = order[(first + i) // steps] * x_row + (first + i) % steps * x_step
        target = wide[i * inputs :]
        source = x[at:]
        for k in range(inputs):
            target[k] = source[k]
    multiply(
        wide.ctypes.data, 4 * inputs, 4, down, down_row, narrow.ctypes.data, 4 * room, count, rank // LANES, inputs
    )
    multiply(narrow.ctypes.data, 4 * room, 4, up, up_row, wide.ctypes.data, 4 * outputs, count, outputs // LANES, rank)
    for i in range(count):
        at = order[(first + i) // steps] * y_row + (first + i) % steps * y_step
        target = y[at:]
        source = wide[i * outputs :]
        for m in range(outputs):
            target[m] += source[m]


def batched_lora(data):
    job = carray(data, (HEADER + 19,), np.int64)
    wide = np.empty(TILE * max(job[HEADER + 1], job[HEADER + 3]), np.float32)
    narrow = np.empty(TILE * job[HEADER + 2], np.float32)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _batched_lora(job[HEADER:], task, wide, narrow)
