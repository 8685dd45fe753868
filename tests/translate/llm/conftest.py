"""The module `tiny_lm` beside this file as a fixture: tiny models and a tokenizer for them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny_lm() -> ModuleType:
    """Tiny causal language models with random weights, and a tokenizer for them."""
    path = Path(__file__).parent / "tiny_lm.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
