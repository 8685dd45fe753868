"""What several tests of the runtime share."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


band_energy_module = _load("band_energy")


@pytest.fixture(scope="session")
def band_energy() -> ModuleType:
    """The module `band_energy` beside this file: a task whose results can be compared exactly."""
    return band_energy_module
