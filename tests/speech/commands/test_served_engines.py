"""The engines of a server have run before anybody comes."""

from __future__ import annotations

import pytest

from loquent.speech.commands.cli import _parsed
from loquent.speech.commands.serving.engines import WARM_UP_STREAMS, speaking, translating
from loquent.speech.runtime.engine import Engine


def served(engine: Engine) -> None:
    """It knows what a step costs, and nobody is in it."""
    assert engine.active == engine.waiting == 0
    assert engine.pace.step_seconds(1) is not None
    one, several = engine.pace.load(1), engine.pace.load(WARM_UP_STREAMS)
    assert one > 0
    assert several > 0
    assert engine.pace.streams_within(1e9, 100) == 2 * WARM_UP_STREAMS


def test_a_translator_has_translated() -> None:
    languages, engine = translating("loquent/en-es", _parsed(["serve", "--max-sessions", "6"]))
    assert languages == ("en", "es")
    served(engine)


def test_a_voice_has_spoken() -> None:
    pytest.importorskip("hibari")
    served(speaking("loquent/hibari", _parsed(["serve", "--max-sessions", "6"]), {}))


def test_where_there_is_room_for_one_stream_one_is_tried() -> None:
    _, engine = translating("loquent/en-es", _parsed(["serve", "--max-sessions", "1"]))
    assert engine.pace.load(1) > 0
