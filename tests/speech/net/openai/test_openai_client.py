"""OpenAI's own client, unmodified and validating strictly, gets speech: as a file of any format, and as events.

What it gets of recordings is in ``tests/asr/test_foreign_clients.py``, with real models.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from types import ModuleType
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from loquent.speech.audio.files import read_audio
from loquent.speech.net.openai.speech_body import FORMATS
from loquent.speech.runtime.engine import Engine

TEXT = "Spell these few words, please. Every letter is a tone, and the tones follow each other for some time."


@pytest.fixture
def server(start_server: Any, tones: ModuleType) -> Any:
    return start_server(engines={"say": Engine(tones.Tones(), 4)}, aliases={"narrator": "say"})


def reached(server: Any) -> dict[str, Any]:
    base = f"http://127.0.0.1:{server.port}/v1"
    return {"api_key": "any", "base_url": base, "max_retries": 0, "_strict_response_validation": True}


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_any_format_comes_while_it_is_made(server: Any, format: Any) -> None:
    client = OpenAI(**reached(server))
    whole = client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format=format).content
    streaming = client.audio.speech.with_streaming_response
    with streaming.create(model="narrator", voice="alloy", input=TEXT, response_format=format) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = list(answer.iter_bytes())
    assert len(pieces) > 1
    assert len(b"".join(pieces)) == len(whole)
    if format != "pcm":
        assert read_audio(io.BytesIO(whole)).duration_s == pytest.approx(0.04 * len(TEXT.replace(" ", "")), abs=0.6)


def test_events_come_while_speech_is_made(server: Any) -> None:
    async def told() -> list[dict[str, Any]]:
        async with AsyncOpenAI(**reached(server)) as client:
            asked = client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts", voice="nova", input=TEXT, response_format="wav", stream_format="sse"
            )
            async with asked as answer:
                return [json.loads(line.removeprefix("data: ")) async for line in answer.iter_lines() if line]

    *deltas, done = asyncio.run(told())
    whole = OpenAI(**reached(server)).audio.speech.create(model="say", voice="nova", input=TEXT, response_format="wav")
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == whole.content
    assert len(deltas) > 1
    assert done["type"] == "speech.audio.done"


def test_what_is_wrong_has_the_field(server: Any) -> None:
    client = OpenAI(**reached(server))
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(model="say", voice="alloy", input=TEXT, speed=2.0)
    assert caught.value.param == "speed"
    with pytest.raises(openai.NotFoundError) as missing:
        client.audio.speech.create(model="huge", voice="alloy", input=TEXT)
    assert missing.value.param == "model"
