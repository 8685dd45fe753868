"""The linear layer in 8 bits, for processors that add products of four bytes at once (VNNI)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from loquent.kernels.cpu.compiler import floats, jit, next_task, words
from loquent.kernels.cpu.gelu import gelu
from loquent.kernels.cpu.runtime import HEADER, TASKS
from loquent.kernels.int8_linear import FINE_LEVELS, GROUP, PANEL, ROWS

VECTORS = PANEL * GROUP // 64
_INTEGER, _LANE, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)
_SUMS, _BYTES = ir.VectorType(_LANE, 16), ir.VectorType(_BYTE, 64)
ZERO = 128  # what zero is among the unsigned weights
NEAREST = np.float32(3 << 22)  # the sum with it has no digits after the point, the last one rounded to even
EPSILON = np.float32(1e-5)  # of the normalisation
INFINITY, TINY = np.int32(0x7F800000), np.finfo(np.float32).tiny


def _tile(rows: int) -> Any:
    """sums[r, n] = Σ_l x[r, l] · w[l, n] of ``rows`` rows of signed bytes and one panel of unsigned ones.

    Arguments are addresses, the stride of x in bytes, and the number of groups of inputs.
    """

    @intrinsic
    def tile(typing, x, x_row, w, sums, groups):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            x, x_row, w, sums, groups = values

            def at(address: Any, kind: Any, offset: Any) -> Any:
                return builder.inttoptr(builder.add(address, offset), kind.as_pointer())

            def number(value: int) -> Any:
                return ir.Constant(_INTEGER, value)

            product = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_SUMS, [_SUMS, _BYTES, _BYTES]), "llvm.x86.avx512.vpdpbusd.512"
            )
            cells = [(r, v) for r in range(rows) for v in range(VECTORS)]
            before, loop, after = builder.basic_block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            left, x_at, w_at = (builder.phi(_INTEGER) for _ in range(3))
            totals = [builder.phi(_SUMS) for _ in cells]
            panel = [builder.load(at(w_at, _BYTES, number(64 * v)), align=1) for v in range(VECTORS)]
            new = []
            for r in range(rows):
                four = builder.load(at(x_at, _LANE, builder.mul(x_row, number(r))), align=1)
                single = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), four, ir.Constant(_LANE, 0))
                splat = builder.shuffle_vector(single, ir.Constant(_SUMS, ir.Undefined), ir.Constant(_SUMS, [0] * 16))
                every = builder.bitcast(splat, _BYTES)
                new += [builder.call(product, [totals[r * VECTORS + v], panel[v], every]) for v in range(VECTORS)]
            rest = builder.sub(left, number(1))
            for phi, first, following in (
                (left, groups, rest),
                (x_at, x, builder.add(x_at, number(GROUP))),
                (w_at, w, builder.add(w_at, number(PANEL * GROUP))),
                *((total, ir.Constant(_SUMS, [0] * 16), one) for total, one in zip(totals, new, strict=True)),
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed(">", rest, number(0)), loop, after)
            builder.position_at_end(after)
            for (r, v), total in zip(cells, new, strict=True):
                builder.store(total, at(sums, _SUMS, number(4 * PANEL * r + 64 * v)), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), generate

    return tile


_tile_12, _tile_6, _tile_3, _tile_2, _tile_1 = (_tile(rows) for rows in (12, 6, 3, 2, 1))


@jit
def _sum(x, x_row, w, sums, groups, rows):
    """The sums of any number of rows with one panel; returns how many rows a tile took."""
    if rows >= 12:
        _tile_12(x, x_row, w, sums, groups)
        return 12
    if rows >= 6:
        _tile_6(x, x_row, w, sums, groups)
        return 6
    if rows >= 3:
        _tile_3(x, x_row, w, sums, groups)
        return 3
    if rows == 2:
        _tile_2(x, x_row, w, sums, groups)
        return 2
    _tile_1(x, x_row, w, sums, groups)
    return 1


@jit
def _normalise(x, inputs, weight, bias, normal):
    """normal = (x - mean) / √(variance + ε) · weight + bias."""
    mean = np.float32(0)
    for c in range(inputs):
        mean += x[c]
    mean /= np.float32(inputs)
    variance = np.float32(0)
    for c in range(inputs):
        variance += (x[c] - mean) * (x[c] - mean)
    unit = np.float32(1) / np.float32(math.sqrt(variance / np.float32(inputs) + EPSILON))
    for c in range(inputs):
        normal[c] = (x[c] - mean) * unit * weight[c] + bias[c]


@partial(jit, exact=True)
def _quantize(row, inputs, values, scratch):
    """Round the row at an address to integers, as the reference does to the bit.

    Returns the largest magnitude over the levels, and the sum of the integers. In the order of their bits, what is not
    a finite number is above all others."""
    x, bits, highest = floats(row), words(row), np.int32(0)
    for c in range(inputs):
        highest = max(highest, bits[c] & np.int32(0x7FFFFFFF))
    if highest >= INFINITY:
        return np.float32(np.nan), np.int32(0)
    scratch[0] = highest
    largest = floats(scratch.ctypes.data)[0]
    scale = np.float32(1) / max(largest, TINY)
    total = np.int32(0)
    for c in range(inputs):
        value = np.int32(x[c] * scale * np.float32(FINE_LEVELS) + NEAREST - NEAREST)
        values[c] = value
        total += value
    return largest / np.float32(FINE_LEVELS), total


@jit
def _finish(sums, zero, unit, scale, bias, activation, y, count):
    """Integers to numbers."""
    for m in range(count):
        y[m] = np.float32(sums[m] - zero) * scale[m] * unit + bias[m]
    if activation:
        for m in range(count):
            y[m] = gelu(y[m])


@jit
def _int8_linear(job, task):
    """A block of rows times a stretch of panels; the order of the fields is that of `int8_linear._panels_product`."""
    rows, inputs, outputs, panels, stretches, activation = job[0], job[1], job[2], job[3], job[4], job[5]
    x, weight, norm = job[6], job[7], job[11]
    first = task // stretches * ROWS
    count = min(ROWS, rows - first)
    values, sums = np.empty((count, inputs), np.int8), np.empty((12, PANEL), np.int32)
    units, totals = np.empty(count, np.float32), np.empty(count, np.int32)
    normal = np.empty(inputs if norm else 0, np.float32)
    for r in range(count):
        row = x + 4 * (first + r) * inputs
        if norm:
            _normalise(floats(row), inputs, floats(norm), floats(job[12]), normal)
            row = normal.ctypes.data
        units[r], totals[r] = _quantize(row, inputs, values[r], sums[0])

    stretch = task % stretches
    for panel in range(panels * stretch // stretches, panels * (stretch + 1) // stretches):
        n = panel * PANEL
        last, scale, bias = min(PANEL, outputs - n), floats(job[8] + 4 * n), floats(job[9] + 4 * n)
        done = 0
        while done < count:
            address = values.ctypes.data + done * inputs
            tile = _sum(address, inputs, weight + n * inputs, sums.ctypes.data, inputs // GROUP, count - done)
            for i in range(tile):
                y = floats(job[10] + 4 * ((first + done) * outputs + n))
                zero = totals[done] * np.int32(ZERO)
                if last == PANEL:  # of a constant length: half the time
                    _finish(sums[i], zero, units[done], scale, bias, activation, y, PANEL)
                else:
                    _finish(sums[i], zero, units[done], scale, bias, activation, y, last)
                done += 1


def int8_linear(data):
    job = carray(data, (HEADER + 13,), np.int64)
    while True:
        task = next_task(data)
        if task >= job[TASKS]:
            break
        _int8_linear(job[HEADER:], task)
