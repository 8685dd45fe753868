"""Deepgram's own client, unmodified, against a server of ours."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

from loquent.speech.net.dialects.deepgram import Deepgram
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import Fail, Renew, Start
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Endpoint, Final, Language, Word

LINEAR = {"encoding": "linear16", "sample_rate": "16000"}


def client(server: Any, key: str = "any") -> DeepgramClient:
    here = f"127.0.0.1:{server.port}"
    return DeepgramClient(
        api_key=key,
        environment=DeepgramClientEnvironment(
            base=f"http://{here}", production=f"ws://{here}", agent=f"ws://{here}", agent_rest=f"http://{here}"
        ),
    )


def heard(server: Any, pieces: list[Any], key: str = "any", **options: Any) -> list[Any]:
    """What the client is told when it sends audio, and does what strings say."""
    messages: list[Any] = []
    with client(server, key).listen.v1.connect(model="nova-3", encoding="linear16", **options) as connection:
        connection.on(EventType.MESSAGE, messages.append)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        for piece in pieces:
            if isinstance(piece, str):
                getattr(connection, piece)()
            else:
                connection.send_media(piece.tobytes())
        connection.send_close_stream()
        listening.join(30)
        assert not listening.is_alive()
    return messages


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-20_000, 20_000, samples, np.int16)


def test_the_client_gets_results_with_the_times_of_words(band_energy: Any, start_server: Any) -> None:
    audio = noise(32_000)
    session = Engine(band_energy.BandEnergy()).open(sample_rate=16_000)
    expected = [event for event in session.push(audio) + session.finish() if event.type == "word"]
    pieces = ["send_keep_alive", *np.split(audio, 10)]
    messages = heard(start_server(), pieces, sample_rate=16_000, interim_results=True, vad_events=True)
    kinds = [message.type for message in messages]
    assert kinds[-1] == "Metadata"
    assert messages[-1].duration == 2.0
    assert messages[-1].sha256 == hashlib.sha256(audio.tobytes()).hexdigest()
    results = [message for message in messages if message.type == "Results"]
    words = [word for one in results if one.is_final for word in one.channel.alternatives[0].words]
    assert [word.punctuated_word for word in words] == [word.text.strip() for word in expected]
    assert [word.end for word in words] == pytest.approx([word.end for word in expected], abs=1e-3)
    assert any(not one.is_final for one in results)
    assert kinds.index("SpeechStarted") < kinds.index("Metadata")


def test_finalize_waits_as_long_as_there_is_progress(band_energy: Any, start_server: Any) -> None:
    class Slow(band_energy.BandEnergy):
        def launch(self, *args: Any) -> Any:
            time.sleep(0.05)
            return super().launch(*args)

    server = start_server(Slow(), limits=Limits(stall_timeout_s=0.4))
    messages = heard(server, [noise(24_000), "send_finalize"], sample_rate=16_000)
    assert [one.type for one in messages if one.type == "Metadata"]
    assert any(one.from_finalize for one in messages if one.type == "Results")


def test_finalize_lets_everything_come_out_and_times_go_on(band_energy: Any, start_server: Any) -> None:
    audio = noise(16_000)
    messages = heard(start_server(), [audio, "send_finalize", audio], sample_rate=16_000)
    finals = [one for one in messages if one.type == "Results" and one.is_final]
    (flushed,) = [one for one in finals if one.from_finalize]
    assert flushed.speech_final
    last = finals[-1]
    assert last.channel.alternatives[0].transcript == flushed.channel.alternatives[0].transcript != ""
    assert last.start == pytest.approx(flushed.start + 1.0, abs=2e-3)
    assert messages[-1].duration == 2.0


def test_channels_are_heard_apart(band_energy: Any, start_server: Any) -> None:
    audio = np.stack([noise(16_000), noise(16_000) // 30], 1)
    server = start_server(capacity=2)
    options = {"sample_rate": 16_000, "channels": 2, "multichannel": True, "vad_events": True}
    pieces = [audio[:5000], "send_finalize", audio[5000:]]
    messages = heard(server, pieces, **options)
    assert messages[-1].channels == 2
    assert messages[-1].duration == 1.0
    finals = [one for one in messages if one.type == "Results" and one.is_final]
    assert {tuple(one.channel_index) for one in finals if one.from_finalize} == {(0, 2), (1, 2)}
    texts = []
    for channel in range(2):
        own = [one for one in finals if one.channel_index == [channel, 2]]
        ends = [word.end for one in own for word in one.channel.alternatives[0].words]
        assert ends == sorted(ends)
        assert ends[-1] > 0.9
        texts.append(" ".join(one.channel.alternatives[0].transcript for one in own))
        (alone, *_) = heard(server, [np.ascontiguousarray(audio[:5000, channel])], sample_rate=16_000)
        assert own[0].channel.alternatives[0].transcript == alone.channel.alternatives[0].transcript
    assert texts[0] != texts[1]
    assert [one.channel for one in messages if one.type == "SpeechStarted"][:2] in ([[0, 2], [1, 2]], [[1, 2], [0, 2]])


def test_the_key_is_checked(band_energy: Any, start_server: Any) -> None:
    server = start_server(token="secret")
    assert heard(server, [noise(1600)], key="secret", sample_rate=16_000)[-1].type == "Metadata"
    with pytest.raises(Exception, match=r"401|403"):
        heard(server, [noise(1600)], key="wrong", sample_rate=16_000)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({}, "encoding"),
        (LINEAR | {"encoding": "flac"}, "flac"),
        (LINEAR | {"sample_rate": "fast"}, "sample_rate"),
        (LINEAR | {"diarize": "perhaps"}, "diarize"),
        (LINEAR | {"redact": "true"}, "redact"),
        (LINEAR | {"interim_results": "perhaps"}, "interim_results"),
    ],
)
def test_what_is_wrong_is_said(query: dict[str, str], why: str) -> None:
    (failure,) = Deepgram().receive_query(query)
    assert isinstance(failure, Fail)
    assert why in failure.message


def test_parameters_become_options() -> None:
    query = LINEAR | {"model": "nova-3", "language": "en-US", "keyterm": "Lovelace", "smart_format": "true"}
    (start,) = Deepgram().receive_query(query)
    assert start == Start(16_000, model="nova-3", options={"phrases": ["Lovelace"], "language": "en"})
    (start,) = Deepgram().receive_query(LINEAR | {"model": "tiny.en", "channels": "2"})
    assert isinstance(start, Start)
    assert (start.model, start.channels) == ("tiny.en", 2)


def test_a_server_that_tells_no_speakers_apart_says_so(band_energy: Any, start_server: Any) -> None:
    options = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16_000, "diarize": "true"}
    with client(start_server()).listen.v1.connect(**options) as connection:
        assert "diarize: this server does not do that" in str(connection.recv())


def test_speakers_and_languages_are_told() -> None:
    deepgram = Deepgram()
    (start,) = deepgram.receive_query(LINEAR | {"diarize": "true", "language": "en-US,es"})
    assert isinstance(start, Start)
    assert start.options == {"speakers": True, "language": "en,es"}
    events = [
        Language(language="es", probability=0.9),
        Word(text=" hola", start=0.5, end=0.9, confidence=0.8, speaker=1),
        Final(text="hola", start=0.5, end=0.9, speaker=1),
        Endpoint(rule="pause", time=1.5),
    ]
    (told,) = [json.loads(text) for event in events for text in deepgram.told(event)]
    (best,) = told["channel"]["alternatives"]
    assert best["words"][0]["speaker"] == 1
    assert best["languages"] == ["es"]


def test_nothing_follows_the_end() -> None:
    deepgram = Deepgram()
    deepgram.receive_query(LINEAR)
    assert deepgram.receive_text('{"type": "Finalize"}') == [Renew()]
    deepgram.receive_text('{"type": "CloseStream"}')
    assert deepgram.receive_text('{"type": "Finalize"}') == []
    (failure,) = deepgram.receive_binary(b"\0\0")
    assert isinstance(failure, Fail)
