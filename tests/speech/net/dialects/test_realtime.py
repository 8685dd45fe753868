"""OpenAI's own client, unmodified, in a transcription session with a server of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from loquent.speech.net.dialects.realtime import Realtime
from loquent.speech.net.messages import Renew, Samples, Say, Start
from loquent.speech.runtime.engine import Engine

INTENT = {"intent": "transcription"}


@pytest.fixture
def server(start_server: Any) -> Any:
    return start_server(token="secret")


@pytest.fixture
def connection(server: Any) -> Iterator[Any]:
    client = OpenAI(api_key="secret", base_url=f"http://127.0.0.1:{server.port}/v1", _strict_response_validation=True)
    with client.realtime.connect(model="gpt-4o-transcribe", extra_query=INTENT) as connection:
        yield connection


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-20_000, 20_000, samples, np.int16)


def encoded(audio: np.ndarray) -> str:
    return base64.b64encode(audio.tobytes()).decode()


def until(connection: Any, kind: str) -> list[Any]:
    events = []
    while not events or events[-1].type != kind:
        events.append(connection.recv())
    return events


COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


def test_what_is_committed_comes_back_as_an_item(band_energy: Any, connection: Any) -> None:
    audio = noise(48_000)
    session = Engine(band_energy.BandEnergy()).open(sample_rate=24_000)
    said = "".join(event.text for event in session.push(audio) + session.finish() if event.type == "word").strip()
    assert connection.recv().type == "session.created"
    connection.session.update(session={"type": "transcription", "audio": {"input": {"turn_detection": None}}})
    assert connection.recv().session.audio.input.turn_detection is None
    items = []
    for _ in range(2):
        for piece in np.split(audio, 8):
            connection.input_audio_buffer.append(audio=encoded(piece))
        connection.input_audio_buffer.commit()
        events = until(connection, COMPLETED)
        items.append(events[-1])
        assert "".join(event.delta for event in events if event.type == DELTA) == items[-1].transcript
        assert {event.item_id for event in events} == {items[-1].item_id}
        assert [event.type for event in events].count("input_audio_buffer.committed") == 1
    assert [item.transcript for item in items] == [said] * 2
    assert items[0].item_id != items[1].item_id


def test_what_is_cleared_is_not_told(connection: Any) -> None:
    connection.recv()
    connection.input_audio_buffer.append(audio=encoded(noise(2400)))
    connection.input_audio_buffer.clear()
    until(connection, "input_audio_buffer.cleared")
    connection.input_audio_buffer.append(audio=encoded(noise(48_000)))
    connection.input_audio_buffer.commit()
    assert until(connection, COMPLETED)[-1].transcript


def test_an_error_leaves_the_connection_open(connection: Any) -> None:
    connection.recv()
    connection.input_audio_buffer.commit()
    error = connection.recv().error
    assert (error.type, error.code) == ("invalid_request_error", "bad_message")
    assert "empty" in error.message
    connection.send({"type": "response.create", "event_id": "mine"})
    assert connection.recv().error.event_id == "mine"
    connection.input_audio_buffer.append(audio=base64.b64encode(b"cut").decode())
    assert connection.recv().error.code == "bad_audio"
    connection.input_audio_buffer.append(audio=encoded(noise(24_000)))
    connection.input_audio_buffer.commit()
    assert until(connection, COMPLETED)[-1].transcript


def opened(**given: Any) -> Realtime:
    realtime = Realtime()
    realtime.receive_query(INTENT)
    session = {"type": "transcription", "audio": {"input": given}}
    (say,) = realtime.receive_text(json.dumps({"type": "session.update", "session": session}))
    assert isinstance(say, Say)
    assert say.message["type"] == "session.updated", say
    return realtime


def test_settings_become_options() -> None:
    transcription = {"model": "gpt-4o-transcribe", "language": "en", "prompt": "Ada"}
    realtime = opened(format={"type": "audio/pcmu"}, transcription=transcription)
    append = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(b"\0" * 80).decode()})
    start, samples = realtime.receive_text(append)
    options = {"language": "en", "prompt": "Ada"}
    assert start == Start(8000, encoding="mulaw", model="gpt-4o-transcribe", options=options)
    assert isinstance(samples, Samples)
    assert realtime.receive_text('{"type": "input_audio_buffer.commit"}') == [Renew()]


@pytest.mark.parametrize(
    "given",
    [
        {"format": {"type": "audio/pcma"}},
        {"format": {"type": ["audio/pcm"]}},
        {"format": {"type": "audio/pcm", "rate": 16_000}},
        {"transcription": {"language": 3}},
        {"turn_detection": {"type": "magic"}},
    ],
)
def test_a_wrong_setting_changes_nothing(given: dict[str, Any]) -> None:
    realtime = opened()
    before = realtime.session
    session = {"type": "transcription", "audio": {"input": given}}
    (say,) = realtime.receive_text(json.dumps({"type": "session.update", "session": session}))
    assert isinstance(say, Say)
    assert say.message["type"] == "error"
    assert realtime.session == before


def test_a_session_keeps_no_settings_that_there_are_not() -> None:
    realtime = Realtime()
    realtime.receive_query({"intent": "transcription"})
    for number in range(3):
        settings = {f"unknown {number}": "x" * 1000, "noise_reduction": {"type": "near_field"}}
        message = {"type": "session.update", "session": {"audio": {"input": settings}}}
        (said,) = realtime.receive_text(json.dumps(message))
        assert isinstance(said, Say)
        told = said.message["session"]["audio"]["input"]
        assert told.keys() == {"format", "transcription", "turn_detection", "noise_reduction"}
        assert told["noise_reduction"] == {"type": "near_field"}
