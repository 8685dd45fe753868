"""A voice to test with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from loquent.tts.frontend.phonemizer import Phonemizer
from loquent.tts.task import SpeechTask


@pytest.fixture(scope="session")
def speaking() -> SpeechTask:
    """The toy voice of tests/tts as a task."""
    path = Path(__file__).parents[2] / "tts" / "toy_voice.py"
    spec = importlib.util.spec_from_file_location("toy_voice", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["toy_voice"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return SpeechTask(module.ToyVoice(), Phonemizer.load())
