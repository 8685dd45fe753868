"""Nonsense of every protocol, on a running server: it fails nobody but its sender, and leaves nothing behind."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.tts import Synthesize

from loquent.speech.net.limits import Limits
from loquent.speech.runtime.engine import Engine
from loquent.speech.transcript import Segment

AUDIO = base64.b64encode(bytes(4800)).decode()
TEXT = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Spell this."}]}

# What clients of each protocol say, by the path where they say it.
NATIVE: list[Any] = [
    {"type": "start", "sample_rate": 16_000, "model": "hear", "options": {}, "acknowledge": True},
    {"type": "start", "model": "say", "output": {"encoding": "mulaw", "sample_rate": 8000}, "resumable": True},
    {"type": "start", "sample_rate": 48_000, "channels": 2, "encoding": "opus", "multichannel": True},
    {"type": "resume", "session": "a" * 43, "received": {"": 3}},
    {"type": "acknowledge", "received": {"": 3}},
    {"type": "text", "text": "Spell this. ", "time": 1.5},
    *({"type": kind} for kind in ("flush", "finish", "interrupt")),
    {"type": "marker", "id": "here"},
    {"type": "options", "options": {"pitch": 2}},
    bytes(3200),
]
VOSK: list[Any] = [
    {"config": {"sample_rate": 8000, "words": 1, "phrase_list": ["one", "[unk]"], "max_alternatives": 2}},
    {"eof": 1},
    {"reset": 1},
    bytes(3200),
]
DEEPGRAM: list[Any] = [*({"type": kind} for kind in ("KeepAlive", "Finalize", "CloseStream")), bytes(3200)]
REALTIME: list[Any] = [
    {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["audio"], "audio": {}}},
    {
        "type": "session.update",
        "session": {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "transcription": {"model": "whisper-1", "language": "en"},
                    "turn_detection": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 300},
                }
            },
        },
    },
    {"type": "input_audio_buffer.append", "audio": AUDIO},
    *({"type": f"input_audio_buffer.{kind}"} for kind in ("commit", "clear")),
    {"type": "conversation.item.create", "item": {"id": "one"} | TEXT},
    *({"type": f"conversation.item.{kind}", "item_id": "one"} for kind in ("retrieve", "delete")),
    {"type": "conversation.item.truncate", "item_id": "one", "content_index": 0, "audio_end_ms": 100},
    {"type": "response.create", "response": {"input": [TEXT], "output_modalities": ["audio"], "instructions": "Say"}},
    {"type": "response.cancel"},
    {"type": "output_audio_buffer.clear"},
]
VLLM: list[Any] = [
    {"type": "session.update", "model": "voxtral"},
    {"type": "input_audio_buffer.append", "audio": AUDIO},
    {"type": "input_audio_buffer.commit", "final": True},
]
PATHS: list[tuple[str, list[Any]]] = [
    ("/v1/stream", NATIVE),
    ("/", VOSK),
    ("/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true&utterance_end_ms=1000", DEEPGRAM),
    ("/v1/listen?encoding=linear16&sample_rate=16000&channels=2&multichannel=true", DEEPGRAM),
    ("/v1/realtime?intent=transcription", REALTIME),
    ("/v1/realtime?model=gpt-realtime", REALTIME),
    ("/v1/realtime", VLLM),
]
REQUESTS: list[Event] = [
    Event("describe"),
    Event("transcribe", {"name": "hear", "language": "en"}),
    AudioStart(16_000, 2, 1).event(),
    AudioChunk(16_000, 2, 1, bytes(3200)).event(),
    AudioStop().event(),
    Synthesize("Spell this.").event(),
    Event("synthesize-start", {"voice": {"name": "say"}}),
    Event("synthesize-chunk", {"text": "Spell this. "}),
    Event("synthesize-stop"),
    Event("ping", {"text": "here"}),
]

plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
junk = st.recursive(plain, lambda part: st.lists(part) | st.dictionaries(st.text(max_size=8), part), max_leaves=6)


@st.composite
def spoilt(draw: Callable[..., Any], message: Any) -> Any:
    """A message of which one value, at any depth, is something else, is gone, or has company."""
    message = copy.deepcopy(message)
    at = message
    while isinstance(at, dict) and at:
        key = draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and draw(st.booleans()):
            at = at[key]
            continue
        match draw(st.sampled_from(["other", "gone", "company"])):
            case "other":
                at[key] = draw(junk)
            case "gone":
                del at[key]
            case _:
                at[draw(st.text(max_size=8))] = draw(junk)
        break
    return message


@st.composite
def scripts(draw: Callable[..., Any], messages: list[Any]) -> list[str | bytes]:
    """What a client sends: messages as they are, spoilt ones, cut ones, and nonsense, in any order."""
    sent: list[str | bytes] = []
    for _ in range(draw(st.integers(1, 6))):
        message = draw(st.sampled_from(messages))
        if isinstance(message, bytes):
            sent.append(draw(st.sampled_from([message, message[:-1], b""]) | st.binary(max_size=64)))
            continue
        text = json.dumps(draw(st.just(message) | st.just(message) | spoilt(message)))
        sent.append(draw(st.just(text) | st.just(text) | st.just(text[: len(text) // 2]) | junk.map(json.dumps)))
    return sent


def idle(server: Any) -> bool:
    """Whether nobody has a stream, within some seconds."""
    limit = time.monotonic() + 20
    while server.service.connections or any(engine.active for engine in server.service.scheduler.engines):
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


def told(websocket: Any) -> list[str | bytes]:
    """Everything that a client is told until its connection is closed, or nothing has come for a moment."""
    messages: list[str | bytes] = []
    try:
        while True:
            messages.append(websocket.recv(timeout=0.1))
    except (ConnectionClosed, TimeoutError):
        return messages


def works(server: Any) -> bool:
    """Whether the server recognises as ever."""
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as websocket:
        for message in ('{"type": "start", "model": "hear"}', bytes(32_000), '{"type": "finish"}'):
            websocket.send(message)
        kinds = [json.loads(message)["type"] for message in websocket]
    return kinds.count("word") == 11 and kinds[-1] == "done"


@pytest.fixture
def served(start_server: Any, band_energy: Any, tones: Any) -> Any:
    """A server of a recogniser and a voice, and its port of Wyoming."""
    engines = {"hear": Engine(band_energy.BandEnergy(), 4), "say": Engine(tones.Tones(), 4)}
    bound = socket.create_server(("127.0.0.1", 0))
    # Short, so that nobody waits for who says nothing any more.
    limits = Limits(handshake_timeout_s=0.2, idle_timeout_s=0.2, send_timeout_s=5.0)
    result = SimpleNamespace(text="one", language="en", segments=[Segment(0.0, 0.1, "one")])
    options = {"limits": limits, "transcribe": lambda samples, **options: result}
    return start_server(engines=engines, wyoming=bound, **options), bound.getsockname()[1]


@pytest.mark.parametrize(("path", "messages"), PATHS, ids=[path.partition("&")[0] for path, _ in PATHS])
def test_websockets(path: str, messages: list[Any], served: Any, caplog: pytest.LogCaptureFixture) -> None:
    server, _ = served
    seen: list[str | bytes] = []

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(scripts(messages))
    def said(script: list[str | bytes]) -> None:
        with connect(f"ws://127.0.0.1:{server.port}{path}") as websocket:
            try:
                for message in script:
                    websocket.send(message)
            except ConnectionClosed:
                pass
            seen.extend(told(websocket))
        assert idle(server), script

    said()
    assert works(server)
    assert len(seen) > 20, "clients are told what is wrong"
    assert '"internal"' not in "".join(str(message) for message in seen)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_wyoming(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    server, port = served
    seen: list[bytes] = []

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.lists(st.sampled_from(REQUESTS).flatmap(framed), min_size=1, max_size=6))
    def said(script: list[bytes]) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=0.3) as client, contextlib.suppress(OSError):
            for piece in script:
                client.sendall(piece)
            while piece := client.recv(65_536):
                seen.append(piece)
        assert idle(server), script

    said()
    assert works(server)
    assert b"error" in b"".join(seen)
    assert b'"internal"' not in b"".join(seen)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@st.composite
def framed(draw: Callable[..., Any], event: Event) -> bytes:
    """An event as it travels: as it is, with a header of which a value is something else, or cut."""
    data = json.dumps(event.data or {}).encode()
    header = {"type": event.type, "data_length": len(data), "payload_length": len(event.payload or b"")}
    header = draw(st.just(header) | st.just(header) | spoilt(header))
    data = draw(st.just(data) | spoilt(event.data or {}).map(json.dumps).map(str.encode))
    whole = json.dumps(header).encode() + b"\n" + data + (event.payload or b"")
    return draw(st.just(whole) | st.just(whole) | st.just(whole[: len(whole) // 2]) | st.binary(max_size=64))


def test_http(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What the description of the HTTP endpoints allows is taken, what it does not is refused, and as it says."""
    server, _ = served
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations, modes = [one.ok() for one in schema.get_all_operations()], st.sampled_from(list(GenerationMode))
    asked: Counter[int] = Counter()

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.tuples(st.sampled_from(operations), modes).flatmap(lambda one: one[0].as_strategy(one[1])))
    def answered(case: Any) -> None:
        response = case.call(timeout=30)
        asked[response.status_code] += 1
        # No schema can say what text can be spoken, or what bytes are a recording.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    answered()
    assert asked[200] > 3
    assert asked[400] > 3
    assert works(server)
    assert idle(server)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
