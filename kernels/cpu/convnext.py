"""A ConvNeXt block for a few steps on the CPU, all of it in one call."""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from loquent.kernels.cpu.compiler import floats, integers, jit, matrix, next_task
from loquent.kernels.cpu.gelu import gelu
from loquent.kernels.cpu.panel import LANES, dots_1x4, dots_2x4
from loquent.kernels.cpu.runtime import HEADER, TASKS

EPSILON = np.float32(1e-5)
ONE = np.float32(1)


@jit
def _products(a, width, weight, c, rows, outputs):
    """c[r, n] = Σ_l a[r, l] · weight[n, l]; addresses of packed rows, those of a and weight of ``width`` bytes."""
    vectors = width // (4 * LANES)
    for n in range(0, outputs, 4):
        block, column = weight + n * width, c + 4 * n
        for r in range(0, rows - 1, 2):
            dots_2x4(a + r * width, width, block, width, column + r * 4 * outputs, 4 * outputs, 4, vectors)
        if rows % 2:
            dots_1x4(a + (rows - 1) * width, 0, block, width, column + (rows - 1) * 4 * outputs, 0, 4, vectors)


@jit
def _convolve(job, out, h):
    """Residual steps to ``out``, convolved and normalised ones to ``h``; then move the tails on."""
    batch, steps, channels, context, right = job[0], job[1], job[2], job[4], job[5]
    slots, lengths = integers(job[6]), integers(job[7])
    x, x_row, x_step = floats(job[8]), job[9], job[10]
    tails, tail_row, tail_step = floats(job[11]), job[12], job[13]
    weight, bias, norm, norm_bias = floats(job[15]), floats(job[16]), floats(job[17]), floats(job[18])

    taps = np.empty((context + 1, channels), np.float32)  # channels innermost, as in the signal
    for c in range(channels):
        for i in range(context + 1):
            taps[i, c] = weight[c * (context + 1) + i]
    for b in range(batch):
        length = lengths[b]
        signal, tail = x[b * x_row :], tails[slots[b] * tail_row :]
        for t in range(steps):
            y, now = h[b * steps + t], out[b * steps + t]
            if t >= length:
                y[:] = 0
                now[:] = 0
                continue
            for c in range(channels):
                y[c] = bias[c]
            for i in range(context + 1):
                tap = taps[i]
                s = tail[(t + i) * tail_step :] if t + i < context else signal[(t + i - context) * x_step :]
                for c in range(channels):
                    y[c] += tap[c] * s[c]
                if i == context - right:
                    for c in range(channels):
                        now[c] = s[c]
            mean = np.float32(0)
            for c in range(channels):
                mean += y[c]
            mean /= np.float32(channels)
            variance = np.float32(0)
            for c in range(channels):
                variance += (y[c] - mean) * (y[c] - mean)
            unit = ONE / math.sqrt(variance / np.float32(channels) + EPSILON)
            for c in range(channels):
                y[c] = (y[c] - mean) * unit * norm[c] + norm_bias[c]
        for i in range(context if length > 0 else 0):
            new = tail[i * tail_step :]
            past = i + length < context
            s = tail[(i + length) * tail_step :] if past else signal[(i + length - context) * x_step :]
            for c in range(channels):
                new[c] = s[c]


@jit
def _convnext_step(job):
    """The whole block; the order of the fields is that of `convnext_step._numba`."""
    channels, hidden, count = job[2], job[3], job[0] * job[1]
    expand_bias, contract_bias, scale = floats(job[20]), floats(job[22]), floats(job[23])
    out = matrix(job[14], count, channels)
    h, wide = np.empty((count, channels), np.float32), np.empty((count, hidden), np.float32)
    _convolve(job, out, h)
    _products(h.ctypes.data, 4 * channels, job[19], wide.ctypes.data, count, hidden)
    for r in range(count):
        row = wide[r]
        for n in range(hidden):
            row[n] = gelu(row[n] + expand_bias[n])
    _products(wide.ctypes.data, 4 * hidden, job[21], h.ctypes.data, count, channels)
    for r in range(count):
        row, y = h[r], out[r]
        for c in range(channels):
            y[c] += scale[c] * (row[c] + contract_bias[c])


def convnext_step(data):
    job = carray(data, (HEADER + 24,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _convnext_step(job[HEADER:])
