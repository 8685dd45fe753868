"""Fixtures of Marian's models."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"marian_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module `tiny` beside this file, which makes models."""
    return _load("tiny")


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The module `reference` beside this file: the equations of the network, in plain numpy."""
    return _load("reference")


@pytest.fixture(scope="session")
def opus(tiny, tmp_path_factory):
    """A MarianMT folder, and the model of `transformers` that is in it."""
    folder = tmp_path_factory.mktemp("hub") / "opus-mt-en-es"
    return folder, tiny.save_hugging_face(folder)


@pytest.fixture(scope="session")
def student(tiny, tmp_path_factory):
    """A folder as Firefox keeps its models, int8, and the weights before they were quantised."""
    folder = tmp_path_factory.mktemp("firefox") / "enes"
    return folder, tiny.save_student(folder)
