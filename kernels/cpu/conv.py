"""Inner loop of the streaming depthwise convolution on the CPU."""

from __future__ import annotations

import numpy as np
from numba import carray

from loquent.kernels.conv_step import CHANNELS
from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.runtime import HEADER, TASKS


@jit
def _depthwise_conv_step(job, task):
    """A stretch of channels of one row; the order of the fields is that of `conv_step._numba`."""
    steps, channels, context = job[0], job[1], job[2]
    stretches = (channels + CHANNELS - 1) // CHANNELS
    row, start = task // stretches, task % stretches * CHANNELS
    slot, length = integers(job[3])[row], integers(job[4])[row]
    x, x_at, x_step = floats(job[5]), row * job[6] + start, job[7]
    out, out_at, out_step = floats(job[8]), row * job[9] + start, job[10]
    tail, tail_at, tail_step = floats(job[11]), slot * job[12] + start, job[13]
    weight, weight_at, weight_step = floats(job[14]), start * job[15], job[15]
    bias, has_bias = floats(job[16]), job[16] != 0
    width = min(CHANNELS, channels - start)

    taps = np.empty((context + 1, width), np.float32)  # channels innermost, as in the signal
    for c in range(width):
        for i in range(context + 1):
            taps[i, c] = weight[weight_at + c * weight_step + i]

    for t in range(steps):
        y = out[out_at + t * out_step :]
        if t >= length:
            for c in range(width):
                y[c] = 0
            continue
        current, s = taps[context], x[x_at + t * x_step :]
        if has_bias:
            for c in range(width):
                y[c] = bias[start + c] + current[c] * s[c]
        else:
            for c in range(width):
                y[c] = current[c] * s[c]
        for i in range(context):
            tap, past = taps[i], t + i < context
            s = tail[tail_at + (t + i) * tail_step :] if past else x[x_at + (t + i - context) * x_step :]
            for c in range(width):
                y[c] += tap[c] * s[c]

    for i in range(context if length > 0 else 0):
        new = tail[tail_at + i * tail_step :]
        past = i + length < context
        s = tail[tail_at + (i + length) * tail_step :] if past else x[x_at + (i + length - context) * x_step :]
        for c in range(width):
            new[c] = s[c]


def depthwise_conv_step(data):
    job = carray(data, (HEADER + 17,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _depthwise_conv_step(job[HEADER:], task)
