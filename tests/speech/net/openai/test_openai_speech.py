"""Text to speech as OpenAI's clients ask for it: every format, while it is made, and what is refused."""

import asyncio
import base64
import io
import json
import math
import socket
import threading
import time
from dataclasses import dataclass

import httpx
import numpy as np
import pytest

from loquent.speech.audio.encoders import FILE_FORMATS
from loquent.speech.audio.files import read_audio, to_pcm16
from loquent.speech.audio.resample import resample
from loquent.speech.net.admission import Admission
from loquent.speech.net.limits import Limits
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import models_of
from loquent.speech.net.openai.speech import Speeches
from loquent.speech.net.openai.speech_body import FIELDS
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.scheduler import Scheduler

TEXT = "Spell these few words, please. Every letter is a tone"


@pytest.fixture
def voice(tones):
    """Tones that know voices and tempo, and can be held up."""

    @dataclass(frozen=True)
    class Options(tones.ToneOptions):
        voice: str = ""
        speed: float = 1.0

    class Voice(tones.Tones):
        def __init__(self):
            self.Options = Options
            self.asked = []
            self.gate = threading.Event()
            self.gate.set()
            self.steps = None  # that are made before the gate is shut

        def start(self, options):
            if options.voice not in ("", "nova", "anna"):
                raise ValueError(f"voice: there is no {options.voice!r}; expected nova, anna")
            self.asked.append(options)
            return super().start(options)

        def launch(self, inputs, state, rows, memos):
            if self.steps is not None:
                self.steps -= 1
                if self.steps < 0:
                    self.gate.clear()
            assert self.gate.wait(30)
            return super().launch(inputs, state, rows, memos)

    return Voice()


@pytest.fixture
def server(start_server, voice, tones, swapped, band_energy):
    plain, swap = Engine(tones.Tones(), 4), Engine(swapped.Swapped(), 4)
    engines = {"hear": Engine(band_energy.BandEnergy()), "say": Engine(voice, 4), "plain": plain}
    return start_server(engines=engines | {"row": {"swap": swap, "say": plain}})


def url(server):
    return f"http://127.0.0.1:{server.port}/v1/audio/speech"


def post(server, **fields):
    return httpx.post(url(server), json={"input": TEXT, "voice": "alloy"} | fields)


def locally(task, text=TEXT, **options):
    session = Engine(task).open(**options)
    return np.concatenate([e.samples for e in session.push(text) + session.finish() if e.type == "speech"])


def wait_until(condition):
    """Poll a condition that has to come true."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not happen within 30 s"
        time.sleep(0.01)


def idle(server):
    return lambda: not any(model.active for model in server.service.models.values())


@pytest.mark.parametrize("format", FILE_FORMATS)
def test_speech_in_every_format_is_what_it_is_locally(server, tones, format):
    answer = post(server, model="plain", response_format=format)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FILE_FORMATS[format].media_type
    assert answer.headers["transfer-encoding"] == "chunked"
    if format == "pcm":
        expected = to_pcm16(resample(locally(tones.Tones()), tones.RATE, 24_000))
        np.testing.assert_allclose(np.frombuffer(answer.content, "<i2"), expected, atol=2)
        return
    expected = locally(tones.Tones())
    audio = read_audio(io.BytesIO(answer.content))
    assert (audio.sample_rate, audio.warnings) == (tones.RATE, ())
    if format in ("wav", "flac"):
        assert np.array_equal(to_pcm16(audio.samples), to_pcm16(expected))
    assert 0 <= len(audio.samples) - len(expected) <= 0.5 * tones.RATE
    assert np.std(audio.samples) == pytest.approx(np.std(expected), rel=0.2)
    wait_until(idle(server))


def test_mp3_from_the_first_model_that_speaks_is_the_default(server, voice):
    for model in ({}, {"model": "tts-1"}, {"model": "gpt-4o-mini-tts"}):
        answer = post(server, **model)
        assert answer.headers["content-type"] == "audio/mpeg"
        assert len(voice.asked) == 1
        voice.asked.clear()


def test_a_row_of_models_speaks(server, tones, swapped):
    spoken = post(server, model="row", response_format="wav").content
    swap = Engine(swapped.Swapped()).open()
    texts = [e.text for e in swap.push(TEXT) + swap.finish() if e.type == "translation"]
    expected = locally(tones.Tones(), "".join(texts))
    assert np.array_equal(to_pcm16(read_audio(io.BytesIO(spoken)).samples), to_pcm16(expected))


def test_events_carry_the_same_file(server, tones):
    whole = post(server, model="plain", response_format="wav").content
    answer = post(server, model="plain", response_format="wav", stream_format="sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == whole
    tokens = math.ceil(20 * len(locally(tones.Tones())) / tones.RATE)
    words = len(TEXT.split())
    usage = {"input_tokens": words, "output_tokens": tokens, "total_tokens": words + tokens}
    assert done == {"type": "speech.audio.done", "usage": usage}


def test_voice_and_speed_are_options_of_the_stream(server, voice):
    for fields, asked in [
        ({"voice": "anna", "speed": 2}, ("anna", 2.0)),
        ({"voice": {"id": "anna"}}, ("anna", 1.0)),
        ({"voice": "nova"}, ("nova", 1.0)),  # OpenAI has a voice of this name, and so has the model
        ({"voice": "alloy", "speed": 0.25}, ("", 0.25)),  # and of this one it has none
        ({"voice": None, "speed": None, "instructions": "Whisper."}, ("", 1.0)),
    ]:
        assert post(server, model="say", **fields).status_code == 200
        (options,) = voice.asked
        assert (options.voice, options.speed) == asked
        voice.asked.clear()
    assert post(server, model="plain", voice="anybody", speed=1.0).status_code == 200  # it has one voice


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "blank"),
        ({"input": " \n"}, "input", "blank"),
        ({"input": None}, "input", "missing"),
        ({"input": 5}, "input", "has to be a text"),
        ({"input": "x" * 4097}, "input", "4096 characters, got 4097"),
        ({"input": "x" * 100_000}, "input", "4096 characters"),
        ({"voice": "bob"}, "voice", "there is no 'bob'; expected nova, anna"),
        ({"voice": {"id": 3}}, "voice", "an object with an 'id'"),
        ({"voice": ["anna"]}, "voice", "has to be a text"),
        ({"response_format": "doc"}, "response_format", "mp3, opus, aac, flac, wav, pcm"),
        ({"speed": 4.5}, "speed", "from 0.25 to 4"),
        ({"speed": "2"}, "speed", "has to be a number, got the text '2'"),
        ({"speed": True}, "speed", "from 0.25 to 4"),
        ({"speed": 10**400}, "speed", "from 0.25 to 4"),
        ({"model": "plain", "speed": 2}, "speed", "one tempo"),
        ({"stream_format": "smoke"}, "stream_format", "audio, sse"),
        ({"instructions": "x" * 5000}, "instructions", "4096 characters"),
        ({"language": "en"}, "language", "unknown field"),
    ],
)
def test_a_wrong_field_is_named(server, fields, param, words):
    answer = post(server, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert idle(server)()


@pytest.mark.parametrize("fields", [{}, {"response_format": "wav"}, {"stream_format": "sse"}])
def test_text_that_cannot_be_spoken_is_an_error_and_no_empty_file(start_server, tones, fields):
    class Mute(tones.Tones):
        def _take(self, chunk, memo):
            memo.ended |= chunk.last

    server = start_server(engines={"say": Engine(Mute(), 1)})
    answer = post(server, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    assert "nothing in it that can be spoken" in answer.json()["error"]["message"]
    assert idle(server)()


def test_text_is_taken_up_to_the_limit(server):
    text = "é" * 4095 + "a"
    assert post(server, input=text, model="plain").status_code == 200
    assert post(server, input="\U0001f600" * 4095 + "a", model="plain").status_code == 200  # 12 bytes each, as JSON


def test_what_is_no_request(server, start_server, band_energy):
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 50_000):
        answer = httpx.post(url(server), content=body)
        assert answer.status_code == 400
        assert "expected a JSON object" in answer.json()["error"]["message"]
    half = httpx.post(url(server), content=b'{"input": "\\ud800"}')
    assert (half.status_code, half.json()["error"]["param"]) == (400, "input")
    half = httpx.post(url(server), content=b'{"input": "a", "\\ud800": 1}')
    assert (half.status_code, half.json()["error"]["param"]) == (400, "?")
    unknown = post(server, model="huge")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")
    assert "this server has say, plain, row" in unknown.json()["error"]["message"]
    assert post(server, model="hear").status_code == 404
    deaf = post(start_server())
    assert (deaf.status_code, deaf.json()["error"]["message"]) == (
        404,
        "this server has no model that speaks",
    )
    models = [one["id"] for one in httpx.get(url(server).replace("audio/speech", "models")).json()["data"]]
    assert models == ["hear", "say", "plain", "row"]


def test_a_body_that_does_not_come_is_not_waited_for(start_server, tones):
    server = start_server(tones.Tones(), limits=Limits(idle_timeout_s=0.3))
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        with client.makefile("rb") as answer:
            status, *_, body = answer.read().splitlines()  # to the end: the server hangs up
    assert b"408" in status
    assert "within 0.3 s" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_the_first_bytes_come_before_the_rest_is_made(server, voice, stream_format):
    voice.steps = 5  # two words, and three letters
    fields = {"input": TEXT, "voice": "nova", "response_format": "wav", "stream_format": stream_format}
    with httpx.stream("POST", url(server), json=fields) as answer:
        parts = answer.iter_raw()
        first = next(parts)
        (session,) = server.service.scheduler.streams
        assert len(first) > 44
        assert not session.done
        voice.steps = None
        voice.gate.set()
        rest = b"".join(parts)
    assert len(rest) > 10 * len(first)


def test_a_voice_stops_while_its_client_does_not_read(tones):
    engine = Engine(tones.Tones(), ahead_s=0.5)
    scheduler = Scheduler([engine])
    limits = Limits()
    admission = Admission(scheduler, limits, Metrics())
    endpoint = Speeches(models_of(engine), admission, limits)
    body = json.dumps({"input": "abcdefghij " * 100, "response_format": "pcm"}).encode()
    scope = {"type": "http", "method": "POST", "headers": []}
    received, sent = [], []

    async def main():
        reads, begun = asyncio.Event(), asyncio.Event()

        async def receive():
            if received:  # the client has nothing to add
                await asyncio.Event().wait()
            received.append(body)
            return {"type": "http.request", "body": body}

        async def send(message):
            if message.get("body"):
                begun.set()
                await reads.wait()
            sent.append(message)

        stepping = asyncio.create_task(scheduler.run())
        answering = asyncio.create_task(endpoint(scope, receive, send))
        await begun.wait()
        (session,) = scheduler.streams
        while session.ready or session.busy:  # until the model rests
            await asyncio.sleep(0.001)
        assert not session.done
        assert session.memo.samples <= 2 * tones.RATE
        reads.set()
        await answering
        stepping.cancel()

    asyncio.run(main())
    scheduler.shut_down()
    admission.shut_down()
    spoken = b"".join(message.get("body", b"") for message in sent)
    assert len(spoken) == 1000 * tones.LETTER * 3 * 2
    assert engine.active == 0


def test_a_client_that_leaves_ends_its_stream(server, voice):
    body = json.dumps({"input": TEXT, "voice": "nova"}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    voice.gate.clear()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head + body)
            wait_until(lambda: server.service.scheduler.streams)
            (session,) = server.service.scheduler.streams
            wait_until(lambda: session.busy)
        wait_until(lambda: not server.service.scheduler.streams)
    finally:
        voice.gate.set()
    wait_until(idle(server))
    assert not session.memo.ended or session.memo.letters  # it was not computed to its end
    assert server.service.speeches.active == 0


def test_a_client_that_leaves_in_the_middle_ends_its_stream(server):
    with httpx.stream("POST", url(server), json={"input": "word " * 800, "voice": "nova"}) as answer:
        next(answer.iter_raw())
    wait_until(idle(server))


def test_a_stream_that_fails_is_an_error_or_is_cut_off(start_server, tones):
    class Broken(tones.Tones):
        """It cannot say z."""

        def start(self, options):
            return super().start(tones.ToneOptions(fail_on="z"))

    server = start_server(Broken())
    first = post(server, input="zero")
    assert first.status_code == 500
    assert first.json()["error"]["type"] == "server_error"
    assert "cannot say z" in first.json()["error"]["message"]
    text = "abcdefghij " * 10 + "zero"
    with pytest.raises(httpx.RemoteProtocolError):
        post(server, input=text, response_format="wav")
    events = post(server, input=text, response_format="wav", stream_format="sse")
    *_, last = [json.loads(line.removeprefix("data: ")) for line in events.text.splitlines() if line]
    assert last["type"] == "error"
    assert "cannot say z" in last["error"]["message"]
    wait_until(idle(server))


def test_no_more_streams_than_fit(start_server, voice):
    server = start_server(voice, capacity=1)
    voice.gate.clear()
    results = []
    thread = threading.Thread(target=lambda: results.append(post(server, voice="nova")))
    thread.start()
    try:
        wait_until(lambda: server.service.scheduler.streams)
        answer = post(server, voice="nova")
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
        assert "all 1 streams are in use" in answer.json()["error"]["message"]
    finally:
        voice.gate.set()
        thread.join()
    assert results[0].status_code == 200


def test_a_stream_that_makes_no_progress_is_given_up(start_server, voice):
    server = start_server(voice, limits=Limits(stall_timeout_s=0.2))
    voice.gate.clear()
    try:
        answer = post(server, voice="nova")
        assert answer.status_code == 503
        assert "nothing more was said for 0.2 s" in answer.json()["error"]["message"]
    finally:
        voice.gate.set()


def test_speech_under_way_is_finished_before_the_server_goes_down(start_server, voice):
    server = start_server(voice)
    voice.gate.clear()
    results = []
    thread = threading.Thread(target=lambda: results.append(post(server, voice="nova", response_format="wav")))
    thread.start()
    wait_until(lambda: server.service.scheduler.streams)
    server.should_exit = True
    wait_until(lambda: server.service.draining)
    voice.gate.set()
    thread.join()
    assert len(read_audio(io.BytesIO(results[0].content)).samples) == len(locally(voice, voice="nova"))


def test_the_description_has_the_fields(server):
    described = httpx.get(f"http://127.0.0.1:{server.port}/openapi.json").json()
    post_ = described["paths"]["/v1/audio/speech"]["post"]
    schema = post_["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"].keys() == FIELDS.keys()
    assert set(schema["properties"]["response_format"]["anyOf"][0]["enum"]) == FILE_FORMATS.keys()
