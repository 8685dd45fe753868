"""The message sequence of vLLM's own example client, over a real socket."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from loquent.speech.net.dialects.vllm import Vllm
from loquent.speech.net.messages import Renew, Samples, Say, Start
from loquent.speech.runtime.engine import Engine


def append(audio: np.ndarray) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio.tobytes()).decode()})


def transcribed(websocket: ClientConnection, audio: np.ndarray) -> str:
    websocket.send('{"type": "input_audio_buffer.commit"}')
    for piece in np.split(audio, 10):
        websocket.send(append(piece))
    websocket.send('{"type": "input_audio_buffer.commit", "final": true}')
    text = ""
    while (answer := json.loads(websocket.recv(timeout=30)))["type"] == "transcription.delta":
        text += answer["delta"]
    assert answer == {"type": "transcription.done", "text": text}
    return text


def test_recordings_are_transcribed_one_after_another(band_energy: Any, start_server: Any) -> None:
    audio = np.random.default_rng(0).integers(-20_000, 20_000, 24_000, np.int16)
    session = Engine(band_energy.BandEnergy()).open(sample_rate=16_000)
    said = "".join(event.text for event in session.push(audio) + session.finish() if event.type == "word").strip()
    with connect(f"ws://127.0.0.1:{start_server().port}/v1/realtime", compression=None) as websocket:
        created = json.loads(websocket.recv(timeout=30))
        assert created["type"] == "session.created"
        assert created["id"]
        websocket.send('{"type": "session.update", "model": "mistralai/Voxtral-Mini-4B-Realtime-2602"}')
        assert [transcribed(websocket, audio) for _ in range(2)] == [said] * 2


def test_an_error_leaves_the_connection_open() -> None:
    vllm = Vllm()
    vllm.receive_query({})
    for wrong in ('{"type": "response.create"}', '{"type": "session.update", "model": 3}', "[]"):
        (say,) = vllm.receive_text(wrong)
        assert isinstance(say, Say)
        assert isinstance(say.message["error"], str)
    (say,) = vllm.receive_text('{"type": "input_audio_buffer.commit", "final": true}')
    assert say == Say({"type": "transcription.done", "text": ""})
    assert vllm.receive_text('{"type": "session.update", "model": "tiny.en", "language": "en"}') == []
    start, samples = vllm.receive_text(append(np.zeros(160, np.int16)))
    assert start == Start(16_000, model="tiny.en", options={"language": "en"})
    assert isinstance(samples, Samples)
    assert vllm.receive_text('{"type": "input_audio_buffer.commit", "final": true}') == [Renew()]


@pytest.mark.parametrize("model", ["base", None])
def test_the_model_is_fixed_once_there_is_audio(model: str | None) -> None:
    vllm = Vllm()
    vllm.receive_query({})
    vllm.receive_text('{"type": "session.update", "model": "tiny.en"}')
    vllm.receive_text(append(np.zeros(160, np.int16)))
    (say,) = vllm.receive_text(json.dumps({"type": "session.update", "model": model}))
    assert isinstance(say, Say)
    assert "fixed" in say.message["error"]
