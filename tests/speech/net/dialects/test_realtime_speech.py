"""OpenAI's own client, unmodified and strict, in sessions that speak."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from openai import OpenAI
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_websocket

from loquent.speech.audio.files import to_pcm16
from loquent.speech.audio.resample import resample
from loquent.speech.net.dialects.realtime import Realtime
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import Interrupt, Output, Say, Speak, Start
from loquent.speech.runtime.engine import Engine
from loquent.speech.tasks import load_task

TEXT = "Spell these few words, please."
LONG = " ".join(["Streams of speech go on and on."] * 20)
ORDER = [
    *("response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"),
    *("response.output_audio_transcript.delta", "response.output_audio.delta"),
    *("response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done"),
    *("conversation.item.done", "response.output_item.done", "response.done"),
]


@pytest.fixture
def connect(start_server: Any, band_energy: Any, tones: Any) -> Iterator[Callable[..., Any]]:
    """Function that opens a session with a server of a recogniser and a voice, which holds back what is not read."""
    servers: list[Any] = []
    with contextlib.ExitStack() as opened:

        def connected(voice: Any = None, limits: Limits | None = None) -> Any:
            engines = {"hear": Engine(band_energy.BandEnergy(), 4), "say": Engine(voice or tones.Tones(), 1)}
            server = start_server(engines=engines, limits=limits)
            servers.append(server)
            url = f"http://127.0.0.1:{server.port}/v1"
            client = OpenAI(api_key="any", base_url=url, _strict_response_validation=True)
            connection = opened.enter_context(client.realtime.connect(model="gpt-realtime"))
            assert connection.recv().session.type == "realtime"
            return connection

        connected.servers = servers  # type: ignore[attr-defined]
        yield connected


@pytest.fixture(scope="module")
def voice() -> Any:
    return load_task("synthesizer").from_pretrained("loquent/voice").streaming_task()


def until(connection: Any, kind: str) -> list[Any]:
    events = []
    while not events or events[-1].type != kind:
        events.append(connection.recv())
        assert events[-1].type == kind or events[-1].type != "error", events[-1]
    return events


def add(connection: Any, text: str, role: Any = "user") -> Any:
    kind: Any = "output_text" if role == "assistant" else "input_text"
    content: Any = [{"type": kind, "text": text}]
    connection.conversation.item.create(item={"type": "message", "role": role, "content": content})
    added, done = connection.recv(), connection.recv()
    assert [added.type, done.type] == ["conversation.item.added", "conversation.item.done"]
    return done.item


def audio(events: list[Any]) -> np.ndarray:
    deltas = [base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"]
    return np.frombuffer(b"".join(deltas), np.int16)


def transcript(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_audio_transcript.delta")


def test_the_text_of_the_last_item_is_spoken(connect: Any, tones: Any) -> None:
    connection = connect()
    session = Engine(tones.Tones()).open()
    said = [event.samples for event in session.push(TEXT) + session.finish() if event.type == "speech"]
    expected = to_pcm16(resample(np.concatenate(said), 8000, 24_000))
    add(connection, "This is context.", "system")
    add(connection, TEXT, "assistant")
    connection.response.create(response={"metadata": {"turn": "1"}})
    events = until(connection, "response.done")
    assert [event.type for event in events if event.type not in ORDER] == []
    assert list(dict.fromkeys(event.type for event in events)) == ORDER
    assert transcript(events) == TEXT
    assert np.abs(audio(events).astype(int) - expected).max() <= 40
    response = events[-1].response
    assert (response.status, response.metadata) == ("completed", {"turn": "1"})
    (item,) = response.output
    assert (item.status, item.content[0].transcript) == ("completed", TEXT)
    connection.conversation.item.retrieve(item_id=item.id)
    assert connection.recv().item.content[0].transcript == TEXT


def test_input_and_instructions_are_spoken_where_no_item_waits(connect: Any) -> None:
    connection = connect()
    add(connection, "Waiting.")
    message: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Given."}]}
    asked: list[Any] = [{"input": [message]}, {}, {"instructions": "Instructed."}]
    for response, said in zip(asked, ["Given.", "Waiting.", "Instructed."], strict=True):
        connection.response.create(response=response)
        assert transcript(until(connection, "response.done")) == said
    connection.response.create()
    assert "nothing to speak" in connection.recv().error.message


def test_one_voice_speaks_after_another_and_hears_meanwhile(connect: Any, tones: Any) -> None:
    held = threading.Event()

    class Held(tones.Tones):  # type: ignore[name-defined,misc]
        def launch(self, *args: Any) -> Any:
            assert held.wait(30)
            return super().launch(*args)

    connection = connect(Held())
    add(connection, LONG)
    connection.response.create()
    connection.response.create(response={"instructions": "Me too."})
    assert until(connection, "error")[-1].error.code == "conversation_already_has_active_response"
    noise = np.random.default_rng(0).integers(-20_000, 20_000, 24_000, np.int16)
    connection.input_audio_buffer.append(audio=base64.b64encode(noise.tobytes()).decode())
    connection.input_audio_buffer.commit()
    held.set()
    events = until(connection, "response.done")
    while "conversation.item.input_audio_transcription.completed" not in {event.type for event in events}:
        events.append(connection.recv())
    assert transcript(events) == LONG


def test_a_cancelled_response_tells_what_was_sent_and_the_next_one_begins(connect: Any) -> None:
    connection = connect(limits=Limits(speech_ahead_s=0.5))
    connection.response.cancel()
    assert connection.recv().error.code == "response_cancel_not_active"
    add(connection, LONG * 6)
    connection.response.create()
    events = until(connection, "response.output_audio.delta")
    connection.response.cancel()
    events += until(connection, "response.done")
    response = events[-1].response
    assert response.status == response.status_details.type == "cancelled"
    assert response.status_details.reason == "client_cancelled"
    assert len(transcript(events)) < len(LONG * 6)
    assert response.output[0].status == "incomplete"
    connection.response.create(response={"instructions": TEXT})
    assert transcript(until(connection, "response.done")) == TEXT


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_truncated_item_has_the_words_that_were_heard(connect: Any, voice: Any, cancelled: bool) -> None:
    connection = connect(voice)
    said = "Turn on the lights in the kitchen, please, and tell me about the weather."
    add(connection, said * (40 if cancelled else 1))  # too much to be said before it is cancelled
    connection.response.create()
    if cancelled:
        until(connection, "response.output_audio.delta")
        events = []
        while len(audio(events)) < 24_000:
            events += until(connection, "response.output_audio.delta")
        connection.response.cancel()
    done = until(connection, "response.done")[-1].response
    heard: list[str] = []
    for end_ms in (900, 500, 0):
        connection.conversation.item.truncate(item_id=done.output[0].id, content_index=0, audio_end_ms=end_ms)
        assert connection.recv().audio_end_ms == end_ms
        connection.conversation.item.retrieve(item_id=done.output[0].id)
        heard.append(connection.recv().item.content[0].transcript)
    assert heard[-1] == ""
    assert 0 < len(heard[1]) < len(heard[0]) < len(said)
    assert said.startswith(heard[0])
    assert heard[0].startswith(heard[1])
    connection.conversation.item.truncate(item_id=done.output[0].id, content_index=0, audio_end_ms=60_000)
    assert "audio_end_ms" in connection.recv().error.message


def test_truncation_of_a_response_under_way_ends_it(connect: Any) -> None:
    connection = connect(limits=Limits(speech_ahead_s=0.5))
    add(connection, LONG * 6)
    connection.response.create()
    begin = until(connection, "response.output_audio.delta")
    while len(audio(begin)) < 12_000:
        begin += until(connection, "response.output_audio.delta")
    connection.conversation.item.truncate(item_id=begin[-1].item_id, content_index=0, audio_end_ms=400)
    events = until(connection, "response.done")
    assert "conversation.item.truncated" in {event.type for event in events}
    assert events[-1].response.status == "cancelled"
    assert events[-1].response.output[0].content[0].transcript == "Streams of s"


def test_a_voice_that_breaks_down_fails_its_response_alone(connect: Any, tones: Any) -> None:
    class Breaking(tones.Tones):  # type: ignore[name-defined,misc]
        def start(self, options: Any) -> Any:
            return super().start(tones.ToneOptions(fail_on="x"))

    connection = connect(Breaking())
    add(connection, "Fax")
    connection.response.create()
    response = until(connection, "response.done")[-1].response
    assert response.status == "failed"
    assert "cannot say x" in response.status_details.error.message
    connection.response.create(response={"instructions": TEXT})
    assert until(connection, "response.done")[-1].response.status == "completed"


def test_what_the_voice_cannot_do_is_said_and_the_session_stays(connect: Any) -> None:
    connection = connect()
    connection.session.update(session={"type": "realtime", "audio": {"output": {"voice": "Bob"}}})
    assert connection.recv().session.audio.output.voice == "Bob"
    add(connection, TEXT)
    connection.response.create()
    error = connection.recv().error
    assert error.type == "invalid_request_error"
    assert "voice" in error.message
    connection.session.update(session={"type": "realtime", "audio": {"output": {"voice": "marin"}}})
    assert connection.recv().session.audio.output.voice == "marin"
    connection.response.create()  # the item waits still
    assert until(connection, "response.done")[-1].response.output[0].content[0].transcript == TEXT


def test_a_server_that_goes_down_lets_a_response_come_to_its_end(connect: Any) -> None:
    connection = connect(limits=Limits(speech_ahead_s=0.5))
    add(connection, LONG)
    connection.response.create()
    begin = until(connection, "response.output_audio.delta")
    connect.servers[0].should_exit = True
    rest = until(connection, "response.done")
    assert transcript(begin + rest) == LONG
    assert connection.recv().error.code == "shutting_down"


def test_a_voice_is_no_recogniser(connect: Any) -> None:
    connection = connect()
    heard: Any = {"transcription": {"model": "say"}}
    connection.session.update(session={"type": "realtime", "audio": {"input": heard}})
    connection.recv()
    connection.input_audio_buffer.append(audio=base64.b64encode(b"\0\0").decode())
    error = connection.recv().error
    assert error.code == "unknown_model"
    assert "speaks" in error.message


def said(realtime: Realtime, **message: Any) -> Any:
    return realtime.receive_text(json.dumps(message))


def opened() -> Realtime:
    realtime = Realtime()
    realtime.receive_query({"model": "loquent/voice"})
    return realtime


def test_settings_of_the_output_become_those_of_the_speech() -> None:
    realtime = opened()
    output = {"format": {"type": "audio/pcmu"}, "voice": {"id": "anna"}, "speed": 1.5}
    (updated,) = said(realtime, type="session.update", session={"type": "realtime", "audio": {"output": output}})
    assert updated.message["session"]["audio"]["output"] == output | {"voice": "anna"}
    asked = {"instructions": "Hi.", "audio": {"output": {"voice": "ben"}}}
    (action,) = said(realtime, type="response.create", response=asked)
    options = {"voice": "ben", "speed": 1.5}
    assert action == Speak(Start(model="loquent/voice", options=options, output=Output("mulaw", 8000)), "Hi.")
    assert said(realtime, type="response.cancel") == [Interrupt()]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"type": "conversation.item.create", "item": {"type": "function_call_output"}}, "message"),
        ({"type": "conversation.item.create", "item": {"type": "message", "role": "me", "content": []}}, "role"),
        ({"type": "conversation.item.create", "item": {"type": "message", "role": ["user"], "content": []}}, "role"),
        ({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [3]}}, "text"),
        ({"type": "conversation.item.truncate", "item_id": "other", "audio_end_ms": 0}, "no item"),
        ({"type": "conversation.item.delete"}, "no item"),
        ({"type": "response.create", "response": {"output_modalities": ["text"]}}, "audio"),
        ({"type": "response.create", "response": {"instructions": "x" * 5000}}, "4096"),
        ({"type": "response.create", "response": {"instructions": "x", "metadata": {"a": 1}}}, "metadata"),
        ({"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "function"}]}}, "tools"),
        ({"type": "session.update", "session": {"audio": {"output": {"speed": 9}}}}, "speed"),
        ({"type": "session.update", "session": {"audio": {"output": {"format": {"type": "audio/pcma"}}}}}, "format"),
        ({"type": "session.update", "session": {"audio": {"output": {"format": {"type": {}}}}}}, "format"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(message: dict[str, Any], why: str) -> None:
    realtime = opened()
    before = realtime.session
    (say,) = said(realtime, **message)
    assert isinstance(say, Say)
    assert why in say.message["error"]["message"]
    assert realtime.session == before


def test_a_conversation_keeps_its_newest_items() -> None:
    realtime = opened()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}
    for number in range(101):
        said(realtime, type="conversation.item.create", item=item | {"id": str(number)})
    assert "error" in said(realtime, type="conversation.item.retrieve", item_id="0")[0].message
    assert said(realtime, type="conversation.item.retrieve", item_id="1")[0].message["item"]["id"] == "1"


@pytest.mark.parametrize("path", ["v1/realtime?model=gpt-realtime", "v1/realtime", "v1/listen?encoding=linear16", ""])
def test_nobody_holds_a_connection_without_a_key(start_server: Any, path: str) -> None:
    server = start_server(token="secret")
    with pytest.raises(InvalidStatus) as refused, connect_websocket(f"ws://127.0.0.1:{server.port}/{path}"):
        pass
    assert refused.value.response.status_code == 403
