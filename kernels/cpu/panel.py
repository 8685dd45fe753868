"""Vector code that a compiler does not find in a loop nest by itself: products of small panels, softmax of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from loquent.kernels.cpu.compiler import jit

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # floats of a vector; narrower machines split it
STRIP = 64 // LANES  # vectors of a row, of as many channels as heads have most often
_FLOAT, _INTEGER, _SHORT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_SPLAT = ir.Constant(ir.VectorType(_SHORT, LANES), [0] * LANES)
# 2**x = Σ c_i x^i to 2e-7, relative, for |x| <= 1/2; the highest power first
_POWER_OF_TWO = (1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0)


@intrinsic
def weigh(typing, scores, stride, length, top, high, total):
    """Softmax over the rows of LANES columns, in powers of two and before division.

    Raises ``top`` to the highest score, in ``high``; replaces scores by 2**(score - high) and stores their sums in
    ``total``. All are addresses, ``stride`` is in bytes, ``length`` is at least 1.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        scores, stride, length, top, high, total = values

        def fold(start: Any, step: Callable[[Any, Any], Any]) -> Any:
            before, loop, after = builder.basic_block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            left, at, state = builder.phi(_INTEGER), builder.phi(_INTEGER), builder.phi(_VECTOR)
            new = step(builder.inttoptr(at, _VECTOR.as_pointer()), state)
            rest = builder.sub(left, ir.Constant(_INTEGER, 1))
            for phi, first, following in (
                (left, length, rest),
                (at, scores, builder.add(at, stride)),
                (state, start, new),
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed(">", rest, ir.Constant(_INTEGER, 0)), loop, after)
            builder.position_at_end(after)
            return new

        def larger(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", a, b, flags=("fast",)), a, b)

        def power_of_two(x: Any) -> Any:
            x = larger(x, _every(-126.0))
            whole = builder.call(floor, [builder.fadd(x, _every(0.5))])
            x = builder.fsub(x, whole)
            y = _every(_POWER_OF_TWO[0])
            for coefficient in _POWER_OF_TWO[1:]:
                y = builder.fadd(builder.fmul(y, x, flags=("contract",)), _every(coefficient), flags=("contract",))
            lanes = ir.VectorType(_SHORT, LANES)
            exponent = builder.add(builder.fptosi(whole, lanes), ir.Constant(lanes, [127] * LANES))
            return builder.fmul(y, builder.bitcast(builder.shl(exponent, ir.Constant(lanes, [23] * LANES)), _VECTOR))

        def add_weight(cell: Any, sum_: Any) -> Any:
            weight = power_of_two(builder.fsub(builder.load(cell, align=4), highest))
            builder.store(weight, cell, align=4)
            return builder.fadd(sum_, weight)

        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR]), f"llvm.floor.v{LANES}f32"
        )
        targets = [builder.inttoptr(address, _VECTOR.as_pointer()) for address in (top, high, total)]
        highest = fold(builder.load(targets[0], align=4), lambda cell, best: larger(best, builder.load(cell, align=4)))
        builder.store(highest, targets[1], align=4)
        builder.store(fold(_every(0.0), add_weight), targets[2], align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _dots(rows: int) -> Any:
    """c[r, m] = Σ_l a[r, l] · b[m, l] for ``rows`` r, four m, l < vectors · LANES; addresses and strides in bytes."""

    @intrinsic
    def dots(typing, a, a_row, b, b_row, c, c_row, c_column, vectors):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            a, a_row, b, b_row, c, c_row, c_column, vectors = values

            def away(address: Any, stride: Any, count: int) -> Any:
                return builder.add(address, builder.mul(stride, ir.Constant(_INTEGER, count))) if count else address

            def vector(address: Any, stride: Any, count: int) -> Any:
                return builder.load(builder.inttoptr(away(address, stride, count), _VECTOR.as_pointer()), align=4)

            before, loop, after = builder.basic_block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            left, a_at, b_at = (builder.phi(_INTEGER) for _ in range(3))
            sums = [[builder.phi(_VECTOR) for _ in range(4)] for _ in range(rows)]
            factors, others = [vector(a_at, a_row, r) for r in range(rows)], [vector(b_at, b_row, m) for m in range(4)]
            new = [
                [
                    builder.fadd(total, builder.fmul(factor, other, flags=("contract",)), flags=("contract",))
                    for total, other in zip(totals, others, strict=True)
                ]
                for totals, factor in zip(sums, factors, strict=True)
            ]
            rest, step = builder.sub(left, ir.Constant(_INTEGER, 1)), ir.Constant(_INTEGER, 4 * LANES)
            for phi, first, following in (
                (left, vectors, rest),
                (a_at, a, builder.add(a_at, step)),
                (b_at, b, builder.add(b_at, step)),
                *((sums[r][m], _every(0.0), new[r][m]) for r in range(rows) for m in range(4)),
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed(">", rest, ir.Constant(_INTEGER, 0)), loop, after)
            builder.position_at_end(after)

            def fold(x: Any, y: Any, even: list[int], odd: list[int]) -> Any:
                pick = [ir.Constant(ir.VectorType(_SHORT, len(half)), half) for half in (even, odd)]
                return builder.fadd(builder.shuffle_vector(x, y, pick[0]), builder.shuffle_vector(x, y, pick[1]))

            # Each fold adds neighbours in two vectors, or in one; the lanes of the last are the four sums.
            even, odd = list(range(0, 2 * LANES, 2)), list(range(1, 2 * LANES, 2))
            for r, totals in enumerate(new):
                four = fold(fold(totals[0], totals[1], even, odd), fold(totals[2], totals[3], even, odd), even, odd)
                for lanes in (8, 4) if LANES == 16 else (4,):
                    four = fold(four, four, even[:lanes], odd[:lanes])
                for m in range(4):
                    target = builder.inttoptr(away(away(c, c_row, r), c_column, m), _FLOAT.as_pointer())
                    builder.store(builder.extract_element(four, ir.Constant(_SHORT, m)), target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return dots


dots_1x4, dots_2x4 = _dots(1), _dots(2)


def _every(value: float) -> Any:
    return ir.Constant(_VECTOR, [value] * LANES)


def _panel(rows: int, vectors: int, accumulate: bool) -> Any:
    """c[m, n] (+)= Σ_l a[m, l] · b[l, n] for ``rows`` m and ``vectors`` · LANES n: at most 12 sums for 16 registers."""

    @intrinsic
    def panel(typing, a, a_row, a_step, b, b_step, c, c_row, length):
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            a, a_row, a_step, b, b_step, c, c_row, length = values

            def at(address: Any, kind: Any, row: int = 0, stride: Any = None, vector: int = 0) -> Any:
                if row:
                    address = builder.add(address, builder.mul(stride, ir.Constant(_INTEGER, row)))
                if vector:
                    address = builder.add(address, ir.Constant(_INTEGER, vector * LANES * 4))
                return builder.inttoptr(address, kind.as_pointer())

            cells = [(m, n) for m in range(rows) for n in range(vectors)]
            targets = [at(c, _VECTOR, m, c_row, n) for m, n in cells]
            start = [builder.load(target, align=4) if accumulate else _every(0.0) for target in targets]

            before, loop, after = builder.basic_block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            left, a_at, b_at = (builder.phi(_INTEGER) for _ in range(3))
            sums = [builder.phi(_VECTOR) for _ in cells]
            right = [builder.load(at(b_at, _VECTOR, vector=n), align=4) for n in range(vectors)]
            new = []
            for m in range(rows):
                scalar = builder.load(at(a_at, _FLOAT, m, a_row), align=4)
                single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_SHORT, 0))
                factor = builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), _SPLAT)
                for n in range(vectors):
                    product = builder.fmul(factor, right[n], flags=("contract",))
                    new.append(builder.fadd(sums[m * vectors + n], product, flags=("contract",)))
            rest = builder.sub(left, ir.Constant(_INTEGER, 1))
            for phi, first, following in (
                (left, length, rest),
                (a_at, a, builder.add(a_at, a_step)),
                (b_at, b, builder.add(b_at, b_step)),
                *zip(sums, start, new, strict=True),
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed(">", rest, ir.Constant(_INTEGER, 0)), loop, after)
            builder.position_at_end(after)
            for total, target in zip(new, targets, strict=True):
                builder.store(total, target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return panel


_set_6x2, _set_3x2, _set_1x2 = (_panel(rows, 2, False) for rows in (6, 3, 1))
_set_6x1, _set_3x1, _set_1x1 = (_panel(rows, 1, False) for rows in (6, 3, 1))
_add_6x2, _add_3x4, _add_strip = _panel(6, 2, True), _panel(3, 4, True), _panel(1, STRIP, True)
_add_6x1, _add_3x1, _add_1x1 = (_panel(rows, 1, True) for rows in (6, 3, 1))


@jit
def multiply(a, a_row, a_step, b, b_step, c, c_row, rows, vectors, length):
    """c[m, n] = Σ_l a[m, l] · b[l, n] for m < rows, n < vectors · LANES, l < length; addresses and strides in bytes."""
    n = 0
    while n < vectors:
        wide = n + 2 <= vectors
        m = 0
        while m < rows:
            x, y = a + m * a_row, c + m * c_row
            if m + 6 <= rows:
                if wide:
                    _set_6x2(x, a_row, a_step, b, b_step, y, c_row, length)
                else:
                    _set_6x1(x, a_row, a_step, b, b_step, y, c_row, length)
                m += 6
            elif m + 3 <= rows:
                if wide:
                    _set_3x2(x, a_row, a_step, b, b_step, y, c_row, length)
                else:
                    _set_3x1(x, a_row, a_step, b, b_step, y, c_row, length)
                m += 3
            else:
                if wide:
                    _set_1x2(x, a_row, a_step, b, b_step, y, c_row, length)
                else:
                    _set_1x1(x, a_row, a_step, b, b_step, y, c_row, length)
                m += 1
        step = 2 if wide else 1
        n += step
        b += step * LANES * 4
        c += step * LANES * 4


@jit
def multiply_add(a, a_row, a_step, b, b_step, c, c_row, rows, vectors, length):
    """`multiply` added to c."""
    m = 0
    while m < rows:
        height = 6 if m + 6 <= rows else 3 if m + 3 <= rows else 1
        x = a + m * a_row
        n = 0
        while n < vectors:
            y, z = b + n * LANES * 4, c + m * c_row + n * LANES * 4
            if height == 6:
                if n + 2 <= vectors:
                    _add_6x2(x, a_row, a_step, y, b_step, z, c_row, length)
                    n += 2
                else:
                    _add_6x1(x, a_row, a_step, y, b_step, z, c_row, length)
                    n += 1
            elif height == 3:
                if n + 4 <= vectors:
                    _add_3x4(x, a_row, a_step, y, b_step, z, c_row, length)
                    n += 4
                else:
                    _add_3x1(x, a_row, a_step, y, b_step, z, c_row, length)
                    n += 1
            else:
                if n + STRIP <= vectors:
                    _add_strip(x, a_row, a_step, y, b_step, z, c_row, length)
                    n += STRIP
                else:
                    _add_1x1(x, a_row, a_step, y, b_step, z, c_row, length)
                    n += 1
        m += height
