"""The message sequence of vosk-server's own example clients, over a real socket."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from loquent.speech.net.dialects.vosk import Vosk
from loquent.speech.net.messages import Fail
from loquent.speech.runtime.engine import Engine


def ask(websocket: ClientConnection, message: Any) -> dict[str, Any]:
    """Send a message and wait for its answer, as the clients do."""
    websocket.send(message if isinstance(message, bytes) else json.dumps(message))
    answer: dict[str, Any] = json.loads(websocket.recv(timeout=30))
    return answer


def test_a_client_gets_an_answer_to_every_packet_and_all_words_at_the_end(band_energy, start_server) -> None:
    audio = np.random.default_rng(0).integers(-20_000, 20_000, 24_000, np.int16)
    session = Engine(band_energy.BandEnergy()).open(sample_rate=8000)
    expected = [event for event in session.push(audio) + session.finish() if event.type == "word"]
    server = start_server()
    with connect(f"ws://127.0.0.1:{server.port}/", compression=None) as websocket:
        websocket.send('{"config": {"sample_rate": 8000.0, "words": 1}}')
        answers = [ask(websocket, audio[at : at + 1600].tobytes()) for at in range(0, len(audio), 1600)]
        final = ask(websocket, {"eof": 1})
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=30)
    assert all(answer.keys() in ({"partial"}, {"result", "text"}) for answer in answers)
    words = [word for answer in [*answers, final] for word in answer.get("result", [])]
    assert [word["word"] for word in words] == [word.text.strip() for word in expected]
    assert [word["end"] for word in words] == pytest.approx([word.end for word in expected], abs=1e-3)
    assert final.keys() == {"result", "text"}


def test_reset_ends_the_utterance_and_times_go_on(band_energy, start_server) -> None:
    audio = np.random.default_rng(0).integers(-20_000, 20_000, 16_000, np.int16).tobytes()
    server = start_server()
    with connect(f"ws://127.0.0.1:{server.port}/", compression=None) as websocket:
        websocket.send('{"config": {"sample_rate": 16000}}')
        ask(websocket, audio)
        first = ask(websocket, {"reset": 1})
        ask(websocket, audio)
        second = ask(websocket, {"eof": 1})
    assert first["text"] == second["text"] != ""
    shift = [b["end"] - a["end"] for a, b in zip(first["result"], second["result"], strict=True)]
    assert shift == pytest.approx([1.0] * len(shift), abs=2e-3)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("[]", "a JSON object"),
        ('{"confi": {}}', "'config'"),
        ('{"config": {"rate": 8000}}', "'rate'"),
        ('{"config": {"sample_rate": "fast"}}', "sample_rate"),
        ('{"config": {"sample_rate": 8000, "max_alternatives": 3}}', "max_alternatives"),
        ('{"config": {"phrase_list": ["a", 3]}}', "a phrase"),
    ],
)
def test_what_is_wrong_is_said(message: str, why: str) -> None:
    (failure,) = Vosk().receive_text(message)
    assert isinstance(failure, Fail)
    assert why in failure.message


def test_phrases_are_the_models_option() -> None:
    (start,) = Vosk().receive_text('{"config": {"sample_rate": 16000, "phrase_list": ["Ada Lovelace"]}}')
    assert start.options == {"phrases": ["Ada Lovelace"]}
