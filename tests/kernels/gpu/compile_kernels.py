"""Compile every kernel for GPUs that are not there, as its operation launches it, and print what each needs.

    python tests/kernels/gpu/compile_kernels.py [OPERATION …]

One line of JSON for each kernel, dtype and target: registers, bytes of spills and of shared memory. Triton compiles
without a device or its driver; only what it finds out from the device is given here.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from loquent.kernels.batched_lora import AdapterRows, LoraPool
from loquent.kernels.convnext_step import ConvNeXtWeights
from loquent.kernels.finite_scalar import Digits
from loquent.kernels.int8_linear import Int8Weight
from loquent.kernels.log_mel import Compression
from loquent.kernels.registry import operations

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Enough to see every kernel with every dtype and on every target.
PLAN = [("sm_80", torch.float16), ("sm_90", torch.float32), ("sm_90", torch.bfloat16), ("gfx942", torch.bfloat16)]
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Absent:
    """A device that Triton may ask everything that compiling takes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return TARGETS[self.name]

    def get_current_device(self) -> str:
        """What kernels are kept under."""
        return self.name

    def get_current_stream(self, device: str) -> int:
        """Nothing runs on it."""
        return 0


def main() -> None:
    """Compile and print everything."""
    wanted = sys.argv[1:]
    compiled: list[tuple[str, Any]] = []
    run = JITFunction.run

    @functools.wraps(run)
    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled.append((self.fn.__qualname__, kernel))
        return kernel

    JITFunction.run = compile_only
    for target, dtype in PLAN:
        driver.set_active(Absent(target))
        for name, operation in operations().items():
            if wanted and name not in wanted:
                continue
            implementation = operation.implementations.get("triton")
            if implementation is None:
                continue
            compiled.clear()
            for args in calls(name, dtype):
                result = implementation(*args)
                if isinstance(result, torch.Tensor) and result.requires_grad:
                    result.sum().backward()
            for kernel, result in {one.hash: (function, one) for function, one in compiled}.values():
                print(json.dumps({"operation": name, "kernel": kernel, "target": target, **needs(result, dtype)}))


def needs(kernel: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Resources of a compiled kernel."""
    found = {"dtype": str(dtype).removeprefix("torch."), "shared": kernel.metadata.shared}
    if "cubin" not in kernel.asm:
        text = kernel.asm["amdgcn"]
        registers, spills = (
            int(re.findall(rf"\.{key}:\s+(\d+)", text)[0]) for key in ("vgpr_count", "vgpr_spill_count")
        )
        return {**found, "registers": registers, "spills": spills}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        arguments = [CUOBJDUMP, "--dump-resource-usage", file.name]
        text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.findall(rf"{key}:(\d+)", text)[0]) for key in ("REG", "STACK", "LOCAL"))
    return {**found, "registers": registers, "spills": stack + local}


def calls(name: str, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of calls as models make them, enough to launch each of the operation's kernels in all its forms."""
    draw = functools.partial(torch.zeros, dtype=dtype)
    two = torch.arange(2)
    match name:
        case "cached_attention":
            for steps, ring, left in ((1, 448, None), (15, 1500, 100), (60, 1500, None)):
                new = (draw(2, steps, 6, 64) for _ in range(3))
                yield *new, draw(2, 6, ring, 64), draw(2, 6, ring, 64), two, two, two, steps, left, 0
        case "cross_attention":
            yield draw(2, 1, 6, 64), draw(2, 6, 1500, 64), draw(2, 6, 1500, 64), two, two, two
        case "depthwise_conv_step":
            yield draw(2, 60, 512), draw(512, 9), draw(512), draw(2, 8, 512), two, two
        case "finite_scalar_codes":
            yield draw(9, 1280), draw(8, 1280), draw(8), Digits(*torch.zeros(4, 8), torch.zeros(8, dtype=torch.long))
        case "gated_conv_step":
            norm = draw(512), draw(512)
            yield draw(2, 14, 1024), draw(512, 9), draw(512), norm, draw(2, 8, 512), two, two
        case "convnext_step":
            shapes = (512, 7), *[(512,)] * 3, (1536, 512), (1536,), (512, 1536), *[(512,)] * 2
            yield draw(2, 14, 512), ConvNeXtWeights(*map(draw, shapes)), draw(2, 6, 512), two, two, 3
        case "linear":
            for rows, outputs in ((1, 512), (8, 4096), (64, 51864)):
                yield draw(rows, 512), draw(outputs, 512), draw(outputs), "silu", draw(rows, outputs), 0.5
        case "int8_linear":
            for rows in (1, 64):
                values = torch.zeros(51864, 512, dtype=torch.int8)
                yield torch.zeros(rows, 512), Int8Weight(values, torch.zeros(51864), torch.zeros(51864), None), "none"
        case "batched_lora":
            rows = AdapterRows.of(two)
            yield draw(2, 9, 512), draw(2, 9, 512), LoraPool(draw(2, 512, 64), draw(2, 64, 512), two), rows
        case "ssru":
            yield draw(2, 9, 512), draw(2, 9, 512), draw(2, 512)
        case "counter_noise":
            yield two, two[:, None], 80
        case "linear_argmax":
            yield draw(4, 640), draw(1025, 640), draw(1025)
        case "lstm_steps":
            for steps, size in ((8, 128), (1, 640)):
                yield draw(2, steps, 4 * size), draw(4 * size, size), draw(2, size), draw(2, size), two
        case "log_mel":
            yield torch.zeros(2, 2000), torch.zeros(400), torch.zeros(201, 80), 160, Compression(floor=1.0)
        case "transducer_loss":
            logits = torch.zeros(2, 3, 40, 1025, requires_grad=True)
            yield logits, torch.zeros(2, 39, dtype=torch.long), two, two
        case "relative_attention":
            for asked in (14, 60):
                new = (draw(2, asked, 8, 64) for _ in range(3))
                seen = torch.zeros(2, asked, dtype=torch.long)
                rings, biases = (draw(2, 8, 70, 64), draw(2, 8, 70, 64)), (draw(8, 64), draw(8, 64))
                yield *new, *rings, two, two, two, seen, seen, seen, draw(97, 8, 64), 13, *biases


if __name__ == "__main__":
    main()
