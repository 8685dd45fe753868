"""A layer in 8 bits on the CPU: normalisation, product and activation, for a block of rows at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from loquent.kernels.cpu.compiler import floats, integers, jit, next_task
from loquent.kernels.cpu.gelu import gelu
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.int8_layer import INPUTS, LANES, ROWS, STRIP
from loquent.kernels.int8_linear import LEVELS, ZERO

EPSILON, STEPS = np.float32(1e-5), np.float32(LEVELS)
MAGNITUDE, LEAST = np.int32(0x7FFFFFFF), np.float32(1e-30).view(np.int32)  # bits
HEIGHT, VECTORS = 6, STRIP // LANES  # rows and vectors of a step: 24 sums in 32 registers
_INTEGER, _SHORT, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)
_SUMS, _BYTES = ir.VectorType(_SHORT, LANES), ir.VectorType(_BYTE, LANES * INPUTS)


def _products(rows: int) -> Any:
    """c[m, n] = Σ_l a[m, l] · b[n, l] for ``rows`` m, STRIP n and l < steps · INPUTS, in integers.

    Addresses and strides in bytes; a is unsigned, b as `panels_of` lays it out: a vector of bytes has INPUTS of each of
    LANES outputs.
    """

    @intrinsic
    def products(typing, a, a_row, b, b_vector, c, steps):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            a, a_row, b, b_vector, c, steps = values
            add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_SUMS, [_SUMS, _BYTES, _BYTES]), "llvm.x86.avx512.vpdpbusd.512"
            )

            def load(address: Any, kind: Any, stride: Any = None, count: int = 0) -> Any:
                if count:
                    address = builder.add(address, builder.mul(stride, ir.Constant(_INTEGER, count)))
                return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

            before, loop, after = builder.basic_block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            left, a_at, b_at = (builder.phi(_INTEGER) for _ in range(3))
            sums = [[builder.phi(_SUMS) for _ in range(VECTORS)] for _ in range(rows)]
            others = [load(b_at, _BYTES, b_vector, n) for n in range(VECTORS)]
            new, undefined = [], ir.Constant(_SUMS, ir.Undefined)
            for m in range(rows):
                few = builder.insert_element(undefined, load(a_at, _SHORT, a_row, m), ir.Constant(_SHORT, 0))
                every = builder.shuffle_vector(few, undefined, ir.Constant(_SUMS, [0] * LANES))
                factor = builder.bitcast(every, _BYTES)
                new.append([builder.call(add, [sums[m][n], factor, others[n]]) for n in range(VECTORS)])
            rest = builder.sub(left, ir.Constant(_INTEGER, 1))
            for phi, first, following in (
                (left, steps, rest),
                (a_at, a, builder.add(a_at, ir.Constant(_INTEGER, INPUTS))),
                (b_at, b, builder.add(b_at, ir.Constant(_INTEGER, LANES * INPUTS))),
                *(
                    (sums[m][n], ir.Constant(_SUMS, [0] * LANES), new[m][n])
                    for m in range(rows)
                    for n in range(VECTORS)
                ),
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed(">", rest, ir.Constant(_INTEGER, 0)), loop, after)
            builder.position_at_end(after)
            for m in range(rows):
                for n in range(VECTORS):
                    target = builder.add(c, ir.Constant(_INTEGER, 4 * (m * STRIP + n * LANES)))
                    builder.store(new[m][n], builder.inttoptr(target, _SUMS.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return products


_products_6, _products_3, _products_2, _products_1 = (_products(rows) for rows in (HEIGHT, 3, 2, 1))


@jit
def _quantise(x, inputs, norm, norm_bias, normal, quantised, step):
    """A row, normalised if ``normal`` has room for it, as integers from 1 to 127, and the value of one step."""
    if len(normal):
        mean = np.float32(0)
        for k in range(inputs):
            mean += x[k]
        mean /= np.float32(inputs)
        variance = np.float32(0)
        for k in range(inputs):
            variance += (x[k] - mean) * (x[k] - mean)
        unit = np.float32(1) / np.float32(math.sqrt(variance / np.float32(inputs) + EPSILON))
        for k in range(inputs):
            normal[k] = (x[k] - mean) * unit * norm[k] + norm_bias[k]
        x = normal
    # Numbers without their sign compare as their bits do, and what is not a number is larger than all: it stays.
    bits, largest = x[:inputs].view(np.int32), np.int32(0)
    for k in range(inputs):
        largest = max(largest, bits[k] & MAGNITUDE)
    step.view(np.int32)[0] = max(largest, LEAST)
    unit = STEPS / step[0]
    for k in range(inputs):
        quantised[k] = np.uint8(np.int32(np.rint(x[k] * unit)) + ZERO)
    step[0] /= STEPS


@jit
def _finish(sums, step, scale, offset, bias, activation, y):
    """Integers to numbers."""
    for i in range(STRIP):
        y[i] = np.float32(sums[i] - np.int32(offset[i])) * (step * scale[i]) + bias[i]
    if activation:
        for i in range(STRIP):
            y[i] = gelu(y[i])


@jit
def _int8_layer(job, task, normal, quantised, steps, sums):
    """A block of rows; the order of the fields is that of `int8_layer._numba`."""
    rows, outputs, inputs, activation, panels = job[0], job[1], job[2], job[3], job[4]
    x, y, scale, offset, bias = floats(job[5]), floats(job[6]), floats(job[7]), integers(job[8]), floats(job[9])
    norm, norm_bias = floats(job[10]), floats(job[11])
    first = task * ROWS
    count = min(ROWS, rows - first)
    room = normal if job[10] else normal[:0]
    for r in range(count):
        _quantise(x[(first + r) * inputs :], inputs, norm, norm_bias, room, quantised[r * inputs :], steps[r : r + 1])
    vector = LANES * inputs
    for n in range(0, outputs, STRIP):
        r = 0
        while r < count:
            a, b = quantised.ctypes.data + r * inputs, panels + n * inputs
            height = count - r
            if height >= HEIGHT:
                height = HEIGHT
                _products_6(a, inputs, b, vector, sums.ctypes.data, inputs // INPUTS)
            elif height >= 3:
                height = 3
                _products_3(a, inputs, b, vector, sums.ctypes.data, inputs // INPUTS)
            elif height == 2:
                _products_2(a, inputs, b, vector, sums.ctypes.data, inputs // INPUTS)
            else:
                _products_1(a, inputs, b, vector, sums.ctypes.data, inputs // INPUTS)
            for m in range(height):
                at = (first + r + m) * outputs + n
                _finish(sums[m], steps[r + m], scale[n:], offset[n:], bias[n:], activation, y[at:])
            r += height


def int8_layer(data):
    job = carray(data, (HEADER + 12,), np.int64)
    inputs = job[HEADER + 2]
    normal, quantised = np.empty(inputs, np.float32), np.empty(ROWS * inputs, np.uint8)
    steps, sums = np.empty(ROWS, np.float32), np.empty((HEIGHT, STRIP), np.int32)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _int8_layer(job[HEADER:], task, normal, quantised, steps, sums)
