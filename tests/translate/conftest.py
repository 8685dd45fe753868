"""Models of translation to test with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module `toy_translation` beside this file."""
    path = Path(__file__).with_name("toy_translation.py")
    spec = importlib.util.spec_from_file_location("toy_translation", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["toy_translation"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
