"""The benchmark of kernels for GPUs on a machine that has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).parents[3] / "benchmarks/gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_nothing_was_measured() -> None:
    run = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Nothing was measured" in run.stderr
    assert not run.stdout
