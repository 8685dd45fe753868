"""The kernels of `kernels/gpu` compile for GPUs that are not there, and fit them: registers, shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loquent.kernels.registry import operations

pytestmark = pytest.mark.timeout(900)

PROGRAM = Path(__file__).parent / "compile_kernels.py"
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}  # bytes that a program may have
REGISTERS = {"sm_80": 255, "sm_90": 255, "gfx942": 512}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each kernel needs on each target, compiled anew."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run([sys.executable, PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-20_000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_every_kernel_compiles_for_every_target(compiled: list[dict[str, Any]]) -> None:
    kernels = {(one["operation"], one["kernel"]) for one in compiled}
    for target in SHARED:
        assert {(one["operation"], one["kernel"]) for one in compiled if one["target"] == target} == kernels
    written = {name for name, operation in operations().items() if "triton" in operation.implementations}
    assert {operation for operation, _ in kernels} == written


def test_no_kernel_spills_registers(compiled: list[dict[str, Any]]) -> None:
    assert [one for one in compiled if one["spills"]] == []


def test_every_kernel_fits(compiled: list[dict[str, Any]]) -> None:
    assert [one for one in compiled if one["shared"] > SHARED[one["target"]]] == []
    assert [one for one in compiled if one["registers"] > REGISTERS[one["target"]]] == []
