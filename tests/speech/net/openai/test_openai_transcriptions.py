"""Files sent to be transcribed, over real sockets: every format of answer, and no client that holds the server up."""

import asyncio
import io
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import soundfile

from loquent.speech.audio.files import write_audio
from loquent.speech.net.admission import Admission
from loquent.speech.net.limits import Limits
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import models_of
from loquent.speech.net.openai.transcriptions import Transcriptions
from loquent.speech.net.recordings import Recordings
from loquent.speech.net.server import create_app
from loquent.speech.net.uploads import Refused
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Word
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.transcript import Segment, WordTiming


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def wait_until(condition):
    """Poll a condition that has to come true."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not happen within 30 s"
        time.sleep(0.01)


def transcribe(audio, progress, language="en", word_timestamps=False):
    """An offline recogniser of lengths: one word per second."""
    if language not in ("en", "de"):
        raise ValueError(f"unknown language {language!r}")
    words = tuple(WordTiming(f" w{n}", float(n), n + 1.0) for n in range(len(audio) // 16_000))
    text = "".join(word.text for word in words)
    segments = [Segment(0.0, float(len(words)), text, words if word_timestamps else ())]
    return SimpleNamespace(text=text, language=language, segments=segments)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "two.wav"
    write_audio(path, noise(96_000), 48_000)
    return path.read_bytes()


def url(server):
    return f"http://127.0.0.1:{server.port}/v1/audio/transcriptions"


def post(server, content, **fields):
    return httpx.post(url(server), files={"file": ("a.wav", content)}, data=fields)


def test_openai_transcription(start_server, recording):
    server = start_server(transcribe=transcribe)
    assert post(server, recording, model="whisper-1").json() == {
        "text": "w0 w1",
        "usage": {"type": "duration", "seconds": 2.0},
    }
    assert post(server, recording, response_format="text").text == "w0 w1\n"
    assert "00:00:00,000 --> 00:00:02,000" in post(server, recording, response_format="srt").text
    assert post(server, recording, response_format="vtt").text.startswith("WEBVTT")
    fields = {"response_format": "verbose_json", "language": "de", "timestamp_granularities[]": "word"}
    full = post(server, recording, **fields).json()
    assert (full["language"], full["duration"], full["segments"][0]["end"]) == ("de", 2.0, 2.0)
    assert full["words"][1] == {"word": "w1", "start": 1.0, "end": 2.0}


def test_openai_transcription_as_a_stream(band_energy, start_server, recording):
    server = start_server()
    answer = post(server, recording, stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    *deltas, done = events
    assert "".join(event["delta"] for event in deltas).strip() == done["text"]
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) == 21
    wait_until(lambda: server.service.models["band"].active == 0)


def test_a_model_that_goes_while_a_file_is_read_is_no_model(band_energy, start_server, recording, monkeypatch):
    """Nobody steps its engine any more."""
    server = start_server(engines={name: Engine(band_energy.BandEnergy(), 1) for name in ("stays", "goes")})
    read = server.service.recordings.samples

    async def unloaded(job, receive):
        samples = await read(job, receive)
        del server.service.models["goes"]
        return samples

    monkeypatch.setattr(server.service.recordings, "samples", unloaded)
    answer = post(server, recording, stream="true", model="goes")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")


def test_what_is_wrong_with_an_upload_is_said(start_server, recording):
    server = start_server(transcribe=transcribe, limits=Limits(max_upload_bytes=200_000, max_upload_s=3.0))
    cases = [
        (post(server, b"no audio at all"), 400, "file"),
        (post(server, recording, response_format="pdf"), 400, "response_format: 'pdf' is unknown"),
        (post(server, recording, language="xx"), 400, "unknown language 'xx'"),
        (post(server, recording, model="huge"), 404, "this server has band"),
        (post(server, recording + bytes(200_000)), 413, "200000 bytes"),
        (httpx.post(url(server), data={"x": "y"}), 400, "'file'"),
        (httpx.post(url(server), content=b"junk"), 400, "'file'"),
    ]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(8000 * 4, np.int16), 8000, format="FLAC")
    cases.append((post(server, buffer.getvalue()), 413, "longer than the 3 s"))
    odd = io.BytesIO()
    soundfile.write(odd, np.zeros(8000, np.int16), 44_101, format="WAV")
    cases.append((post(server, odd.getvalue()), 400, "cannot be resampled"))
    for answer, status, words in cases:
        assert answer.status_code == status, answer.text
        assert words in answer.json()["error"]["message"]
    offline = start_server()
    assert post(offline, recording).status_code == 404
    assert "no offline recogniser" in post(offline, recording).json()["error"]["message"]


def test_an_upload_that_stalls_frees_its_place(start_server, recording):
    server = start_server(transcribe=transcribe, limits=Limits(max_uploads=1, idle_timeout_s=0.3))
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        client.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
        with client.makefile("rb") as answer:
            status, *_, body = answer.read().splitlines()  # to the end: the server hangs up
    assert b"408" in status
    assert "0.3 s without any bytes" in json.loads(body)["error"]["message"]
    assert post(server, recording).status_code == 200


def test_an_answer_that_is_not_read_frees_its_place(band_energy, recording):
    engine = Engine(band_energy.BandEnergy())
    limits = Limits(max_uploads=1, send_timeout_s=0.05)
    admission = Admission(Scheduler([engine]), limits, Metrics())
    recordings = Recordings(transcribe, limits)
    endpoint = Transcriptions(models_of({"band": engine}), admission, recordings)
    request = httpx.Request("POST", "http://localhost/", files={"file": recording})
    scope = {"type": "http", "method": "POST", "app": None}
    scope["headers"] = [(name.lower(), value) for name, value in request.headers.raw]
    sent, received = [], []

    async def receive():
        if len(received) > len(sent):  # the client has nothing to add
            await asyncio.Event().wait()
        received.append(request.read())
        return {"type": "http.request", "body": received[-1]}

    async def send(message):
        sent.append(message)
        await asyncio.Event().wait()

    async def twice():
        await endpoint(scope, receive, send)
        await endpoint(scope, receive, send)

    asyncio.run(twice())
    recordings.shut_down()
    assert [message["status"] for message in sent] == [200, 200]


def test_an_upload_is_fed_to_a_stream_as_it_goes_on(band_energy, start_server, tmp_path):
    audio = noise(30 * 16_000)
    write_audio(tmp_path / "long.wav", audio, 16_000)
    content = (tmp_path / "long.wav").read_bytes()
    task = band_energy.BandEnergy()
    server = start_server(task, limits=Limits(buffer_s=2.0, max_uploads=1))
    scheduler = server.service.scheduler
    task.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        try:
            answer = pool.submit(post, server, content, stream="true")
            wait_until(lambda: any(session.busy for session in scheduler.streams))
            (session,) = scheduler.streams
            assert session.inbox.seconds <= 3.0
            assert post(server, content).status_code == 429
        finally:
            task.gate.set()
        *_, done = [json.loads(line.removeprefix("data: ")) for line in answer.result().text.splitlines() if line]
    alone = Engine(band_energy.BandEnergy()).open()
    words = [event.text for event in alone.push(audio) + alone.finish() if isinstance(event, Word)]
    assert done["text"] == "".join(words).strip()
    assert session.inbox.seconds == 30.0


def test_a_buffer_shorter_than_a_step_stops_no_stream(start_server, recording):
    server = start_server(limits=Limits(buffer_s=0.001))
    assert "transcript.text.done" in post(server, recording, stream="true").text


def test_shutdown_ends_a_transcription_between_windows(start_server, recording):
    begun, ended = threading.Event(), threading.Event()

    def endless(audio, progress):
        begun.set()
        try:
            while True:
                progress(0, 1.0, None)
                time.sleep(0.01)
        finally:
            ended.set()

    server = start_server(transcribe=endless)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, server, recording)
        assert begun.wait(20)
        server.should_exit = True
        assert ended.wait(20)
        answer.exception()


def test_what_a_client_that_has_gone_asked_for_is_not_computed(start_server, recording):
    begun, ended = threading.Semaphore(0), threading.Semaphore(0)
    endless = threading.Event()
    endless.set()

    def slow(audio, progress):
        begun.release()
        try:
            while endless.is_set():
                progress(0, 1.0, None)
                time.sleep(0.01)
        finally:
            ended.release()
        return transcribe(audio, progress)

    server = start_server(transcribe=slow, limits=Limits(max_uploads=2))
    uploads = server.service.recordings.uploads
    request = httpx.Request("POST", url(server), files={"file": recording})
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nContent-Type: {request.headers['content-type']}\r\n"
    data = (
        f"{head}Host: localhost\r\nContent-Length: {request.headers['content-length']}\r\n\r\n".encode()
        + request.read()
    )
    clients = []
    for held in (1, 2):
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        clients[-1].sendall(data)
        wait_until(lambda held=held: uploads.held == held)
    assert begun.acquire(timeout=20)
    assert post(server, recording).status_code == 429
    clients[1].close()  # its turn has not come
    wait_until(lambda: uploads.held == 1)
    clients[0].close()  # under way
    assert ended.acquire(timeout=20)
    wait_until(lambda: uploads.held == 0)
    endless.clear()
    assert post(server, recording).status_code == 200
    assert begun.acquire(timeout=20)
    assert not begun.acquire(timeout=0.05)


class Slow:
    """Tells a segment, and goes on until it is stopped."""

    def __init__(self):
        self.begun, self.ended = threading.Event(), threading.Event()

    def transcribe(self, audio, *, progress, on_segment=None, temperatures=()):
        self.begun.set()
        try:
            if on_segment is not None:
                on_segment(Segment(0.0, 1.0, " one"))
            while True:
                progress(0, 1.0, None)
                time.sleep(0.01)
        finally:
            self.ended.set()


@pytest.mark.parametrize("tells", [True, False])
def test_what_streams_do_not_know_comes_by_segments(start_server, recording, tells):
    def transcribe(audio, *, progress, temperatures, **besides):
        segments = [Segment(0.0, 1.0, " one,"), Segment(1.0, 2.0, " two")]
        if tells:
            besides["on_segment"](segments[0])
        return SimpleNamespace(text=" one, two", language="en", segments=segments)

    def silent(audio, *, progress, temperatures):
        return transcribe(audio, progress=progress, temperatures=temperatures)

    server = start_server(transcribe=transcribe if tells else silent)
    lines = post(server, recording, stream="true", temperature="0.5").text.splitlines()
    *deltas, done = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert [event["delta"] for event in deltas] == [" one,", " two"]
    assert done == {"type": "transcript.text.done", "text": "one, two"}


def test_a_client_that_leaves_a_stream_of_segments_ends_the_work(start_server, recording):
    slow = Slow()
    server = start_server(transcribe=slow.transcribe)
    fields = {"stream": "true", "temperature": "0.5"}
    with httpx.stream("POST", url(server), files={"file": ("a.wav", recording)}, data=fields) as answer:
        lines = answer.iter_lines()  # whose end would close the connection
        line = next(filter(None, lines))
        assert json.loads(line.removeprefix("data: ")) == {"type": "transcript.text.delta", "delta": " one"}
        assert not slow.ended.is_set()
    assert slow.ended.wait(20)
    wait_until(lambda: server.service.recordings.uploads.held == 0)


def test_a_client_that_leaves_before_the_first_segment_ends_the_work(start_server, recording):
    first, second = Slow(), Slow()
    turns = iter((first, second))

    def transcribe(audio, *, progress, on_segment=None, temperatures=()):
        return next(turns).transcribe(audio, progress=progress)

    server = start_server(transcribe=transcribe)
    request = httpx.Request(
        "POST", url(server), files={"file": recording}, data={"stream": "true", "temperature": "0.5"}
    )
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nContent-Type: {request.headers['content-type']}\r\n"
    head += f"Host: localhost\r\nContent-Length: {request.headers['content-length']}\r\n\r\n"
    clients = []
    for held in (1, 2):
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        clients[-1].sendall(head.encode() + request.read())
        wait_until(lambda held=held: server.service.recordings.uploads.held == held)
    assert first.begun.wait(20)
    clients[1].close()  # its turn has not come
    wait_until(lambda: server.service.recordings.uploads.held == 1)
    clients[0].close()  # under way
    assert first.ended.wait(20)
    wait_until(lambda: server.service.recordings.uploads.held == 0)
    assert not second.begun.is_set()


def test_shutdown_ends_a_stream_of_segments_with_an_error(start_server, recording):
    slow = Slow()
    server = start_server(transcribe=slow.transcribe)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, server, recording, stream="true", temperature="0.5")
        assert slow.begun.wait(20)
        server.service.recordings.shut_down()
        *_, last = [json.loads(line.removeprefix("data: ")) for line in answer.result().text.splitlines() if line]
    assert (last["type"], last["code"]) == ("error", "shutting_down")


def test_uploads_that_stall_hold_up_no_others(start_server, recording):
    server = start_server(transcribe=transcribe, limits=Limits(max_uploads=1, max_receiving=3))
    uploads = server.service.recordings.uploads
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    for client in clients:
        client.sendall(head)
    wait_until(lambda: len(uploads._receiving) == 3)
    assert post(server, recording).status_code == 429  # too early to call them slow
    for upload in uploads._receiving:
        upload._begin -= 60.0
    assert post(server, recording).status_code == 200
    closed = [client for client in clients if b"408" in _until_closed(client)]
    assert len(closed) == 1
    for client in clients:
        client.close()


def _until_closed(client):
    client.settimeout(1.0)
    try:
        return b"".join(iter(lambda: client.recv(4096), b""))
    except TimeoutError:
        return b""


def test_a_recording_under_way_is_waited_for_before_the_server_goes_down(band_energy):
    service = create_app(Engine(band_energy.BandEnergy()), transcribe=transcribe).state.service
    uploads = service.recordings.uploads

    async def main():
        with uploads.place():
            draining = asyncio.create_task(service.drain(30))
            await asyncio.sleep(0.1)
            assert not draining.done()
            with pytest.raises(Refused, match="shutting down"), uploads.place():
                pass
        await draining

    asyncio.run(main())
