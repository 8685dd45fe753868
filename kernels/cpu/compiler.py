"""Compiles kernels by numba; imported only where there is no machine code of a kernel yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

# Without what numba adds for calls from Python, which kernels do not get.
_PLAIN = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_UNBOUNDED = 1 << 48


def jit(function: Callable[..., Any], *, exact: bool = False) -> Any:
    """Compile a function that kernels call; ``exact``: floating-point operations are those that are written."""
    return numba.njit(fastmath=not exact, **_PLAIN)(function)


def compiled(function: Callable[[Any], None], machine: Any) -> bytes:
    """Compile a kernel, ``function(job)`` with the job's address as a void pointer, to an object file.

    The symbol is the function's name, and its type ``void (void *)``.

    Raises:
        RuntimeError: the function needs more of numba than memory for arrays.
    """
    dispatcher = numba.njit("void(voidptr)", **_PLAIN)(function)
    (signature,) = dispatcher.signatures
    module = llvm.parse_assembly(dispatcher.inspect_llvm(signature))
    entry = _entry(function.__name__, dispatcher.overloads[signature].fndesc.llvm_func_name)
    module.link_in(llvm.parse_assembly(str(entry)))
    module.verify()
    needed = [one.name for one in module.functions if one.is_declaration]
    if foreign := [name for name in needed if name.startswith(("NRT_", "numba_", "Py"))]:
        raise RuntimeError(f"the kernel {function.__name__!r} needs {', '.join(foreign)}, which only numba has")
    return machine.emit_object(module)


def _entry(name: str, target: str) -> ir.Module:
    """The callback that calls what numba compiled, and the memory for arrays that this asks for.

    A block of memory begins with numba's `MemInfo`: the number of owners first, the address of the array fourth.
    """
    module = ir.Module()
    integer, pointer, nothing = ir.IntType(64), ir.IntType(8).as_pointer(), ir.VoidType()

    def declared(name: str, result: Any, *arguments: Any) -> ir.Function:
        return ir.Function(module, ir.FunctionType(result, arguments), name)

    def begun(name: str, result: Any, *arguments: Any) -> tuple[Any, ir.IRBuilder]:
        function = declared(name, result, *arguments)
        return function.args, ir.IRBuilder(function.append_basic_block())

    (job,), builder = begun(name, nothing, pointer)
    status = declared(target, ir.IntType(32), pointer.as_pointer(), pointer.as_pointer(), pointer)
    builder.call(status, [builder.alloca(pointer), builder.alloca(pointer), job])  # kernels raise nothing
    builder.ret_void()

    (size, _), builder = begun("NRT_MemInfo_alloc_aligned", pointer, integer, ir.IntType(32))
    line = ir.Constant(integer, 64)  # bytes of a line of the cache, and of the header
    whole = builder.and_(builder.add(size, ir.Constant(integer, 2 * 64 - 1)), ir.Constant(integer, -64))
    block = builder.call(declared("aligned_alloc", pointer, integer, integer), [line, whole])
    fields = builder.bitcast(block, integer.as_pointer())
    builder.store(ir.Constant(integer, 1), fields)
    array = builder.ptrtoint(builder.gep(block, [line]), integer)
    builder.store(array, builder.gep(fields, [ir.Constant(integer, 3)]))
    builder.ret(block)

    (block,), builder = begun("NRT_MemInfo_call_dtor", nothing, pointer)
    builder.call(declared("free", nothing, pointer), [block])
    builder.ret_void()
    return module


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def next_task(typing: Any, job: Any) -> Any:
    """Take the next number from the counter at the head of a job."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        integer = ir.IntType(64)
        counter = builder.bitcast(values[0], integer.as_pointer())
        return builder.atomic_rmw("add", counter, ir.Constant(integer, 1), "monotonic")

    return types.int64(types.voidptr), generate


@jit
def floats(address: int) -> Any:
    """The float32 memory from an address on."""
    return carray(_pointer(address), (_UNBOUNDED,), np.float32)


@jit
def words(address: int) -> Any:
    """The int32 memory from an address on."""
    return carray(_pointer(address), (_UNBOUNDED,), np.int32)


@jit
def integers(address: int) -> Any:
    """The int64 memory from an address on."""
    return carray(_pointer(address), (_UNBOUNDED,), np.int64)


@jit
def matrix(address: int, rows: int, columns: int) -> Any:
    """The float32 memory from an address on, (rows, columns)."""
    return carray(_pointer(address), (rows, columns), np.float32)
