"""The kernels of `kernels/gpu` do what their references do, as far as Triton's interpreter can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


@pytest.mark.timeout(900)
def test_kernels_do_what_their_references_do() -> None:
    """In a process of its own: Triton decides when it is first imported whether it compiles or interprets."""
    options = ("-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", "-q")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(FOLDER)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
    assert " passed" in run.stdout
