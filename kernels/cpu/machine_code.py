"""Machine code of kernels: kept on disk for the next process, which then needs no compiler.

What is kept is an object file that calls nothing but the C library. LLVM alone loads it, in a few milliseconds; to
import numba and have it read a cache of its own takes a hundred times as long.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm

from loquent.kernels.cache_folder import cache_dir

_DIGEST = hashlib.sha256().digest_size


def machine_code(module: str, name: str) -> bytes:
    """The object file of the function of that name in a module, with the symbol ``name``.

    It comes from the user's cache, or is compiled and put there; where that cannot be written it is compiled anew in
    every process.
    """
    file = cache_dir() / "kernels" / _origin() / f"{module.rpartition('.')[2]}.{name}.o"
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
        return content[_DIGEST:]
    from loquent.kernels.cpu.compiler import compiled

    code = compiled(getattr(importlib.import_module(module), name), target_machine())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
            scratch.write(hashlib.sha256(code).digest() + code)
        os.replace(scratch.name, file)
    except OSError:
        pass
    return code


def load(code: bytes, name: str) -> tuple[int, Any]:
    """The address of a function in an object file, and what keeps it there."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine.get_function_address(name), engine


def target_machine() -> Any:
    """This processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, codemodel="jitdefault"
    )


@functools.cache
def _origin() -> str:
    """What machine code depends on: the sources of all kernels, the compiler and the processor."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(source.read_bytes())
    for part in (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()):
        digest.update(part.encode())
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(metadata.version(package).encode())
    return digest.hexdigest()[:16]
