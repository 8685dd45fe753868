"""Voices to test with: a toy, and the real ones where they are installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loquent.speech.hub import CheckpointError, resolve


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module `toy_voice` beside this file."""
    spec = importlib.util.spec_from_file_location("toy_voice", Path(__file__).with_name("toy_voice.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["toy_voice"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def phonemizer() -> Any:
    from loquent.tts.frontend.phonemizer import Phonemizer

    return Phonemizer.load()


@pytest.fixture
def toy_task(toy, phonemizer) -> Any:
    """The toy voice as a task."""
    from loquent.tts.task import SpeechTask

    return SpeechTask(toy.ToyVoice(), phonemizer)


@pytest.fixture(scope="session")
def hibari() -> Any:
    """The voice hibari, with its own weights."""
    from loquent.tts.synthesizer import Synthesizer

    try:
        resolve("loquent/hibari")
    except CheckpointError as error:
        pytest.skip(str(error))
    return Synthesizer.from_pretrained("loquent/hibari")
