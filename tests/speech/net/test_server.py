"""The server, over real sockets: whatever some clients do, the others get exactly their events."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from loquent.speech.net.connections.outgoing import COALESCE_FROM, Close, Outgoing
from loquent.speech.net.limits import Limits
from loquent.speech.net.protocol import ServerProtocol
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Partial, Word

START = '{"type": "start"}'
FINISH = '{"type": "finish"}'


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def alone(band_energy, audio, **options):
    session = Engine(band_energy.BandEnergy(), 1).open(**options)
    return unnamed([event.to_dict() for event in session.push(audio) + session.finish()])


def unnamed(messages):
    """Events without the name of their stream, which the server chooses."""
    return [{key: value for key, value in message.items() if key != "stream"} for message in messages]


def url(server):
    return f"ws://127.0.0.1:{server.port}/v1/stream"


def http(server, path):
    return f"http://127.0.0.1:{server.port}{path}"


def rest(websocket):
    """All messages to the end, and the close code."""
    messages = []
    while True:
        try:
            messages.append(json.loads(websocket.recv(timeout=30)))
        except ConnectionClosed as closed:
            return messages, closed.rcvd.code if closed.rcvd else None


def stream(server, audio, packet=1600, **start):
    """A well-behaved client; returns its events."""
    with connect(url(server), compression=None) as websocket:
        websocket.send(json.dumps({"type": "start"} | start))
        for begin in range(0, len(audio), packet):
            websocket.send(audio[begin : begin + packet].tobytes())
        websocket.send(FINISH)
        (ready, *events, done), code = rest(websocket)
    assert ready["type"] == "ready"
    assert done == {"type": "done"}
    assert code == 1000
    return unnamed(events)


def send_for_ever(websocket, message):
    """Send until the server ends it."""
    with contextlib.suppress(ConnectionClosed, OSError):
        while True:
            websocket.send(message)


def wait_until(condition):
    """Poll a condition that has to come true."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "it did not happen within 30 s"
        time.sleep(0.01)


def active(server):
    return httpx.get(http(server, "/health")).json()["models"]["band"]["active"]


def metric(server, name):
    [value] = re.findall(rf"^{re.escape(name)} (.*)$", httpx.get(http(server, "/metrics")).text, re.MULTILINE) or ["0"]
    return float(value)


def refused(server, *messages):
    """Send messages, expect a failure; returns (failure, close code)."""
    with connect(url(server), compression=None) as websocket:
        for message in messages:
            websocket.send(message)
        answers, code = rest(websocket)
    assert answers[-1]["type"] == "failure"
    assert [answer["type"] for answer in answers].count("failure") == 1
    return answers[-1], code


def test_a_stream_over_the_wire_is_what_it_is_locally(band_energy, start_server):
    server = start_server()
    audio = noise(44_100)
    expected = alone(band_energy, audio, sample_rate=44_100, chunk_ms=50)
    for packet in (441, 9999, 200_000):
        assert stream(server, audio, packet, sample_rate=44_100, options={"chunk_ms": 50}) == expected


def test_the_url_can_start_a_stream(band_energy, start_server):
    server = start_server()
    with connect(url(server) + "?sample_rate=8000") as websocket:
        assert json.loads(websocket.recv())["sample_rate"] == 8000
        websocket.send(noise(8000).tobytes())
        websocket.send('{"type": "marker", "id": "m"}')
        websocket.send(FINISH)
        events, _ = rest(websocket)
    assert [event["id"] for event in events if event["type"] == "marker"] == ["m"]
    wait_until(lambda: active(server) == 0)


@pytest.mark.parametrize(
    ("messages", "code", "close_code"),
    [
        (["hello"], "bad_message", 1007),
        ([b"\0\0"], "bad_message", 1007),
        ([START, START], "bad_message", 1007),
        ([START, "x" * 70_000], "too_large", 1009),
        ([START, b"\0" * 1_048_578], "too_large", 1009),
        ([START, b"\0"], "bad_audio", 1007),
        (['{"type": "start", "encoding": "float32"}', b"\0\0\xc0\x7f"], "bad_audio", 1007),
        (['{"type": "start", "options": {"chunk_ms": 5}}'], "bad_options", 1008),
        (['{"type": "start", "options": {"volume": 11}}'], "bad_options", 1008),
        (['{"type": "start", "sample_rate": 44101}'], "bad_options", 1008),
        (['{"type": "start", "model": "huge"}'], "unknown_model", 1008),
        (['{"type": "start", "options": {"fail_at": 1}}', b"\0" * 3200], "internal", 1011),
    ],
)
def test_what_is_wrong_is_said_and_the_slot_freed(start_server, messages, code, close_code):
    server = start_server()
    failure, closed = refused(server, *messages)
    assert (failure["code"], closed) == (code, close_code)
    wait_until(lambda: active(server) == 0)
    assert metric(server, f'loquent_failures_total{{code="{code}"}}') == 1


def test_a_monstrous_message_is_not_even_received(start_server):
    server = start_server()
    with connect(url(server), compression=None) as websocket:
        websocket.send(START)
        send_for_ever(websocket, bytes(2**22))
    wait_until(lambda: active(server) == 0)


def test_ten_reconnecting_clients_among_nuisances(band_energy, start_server):
    """Good streams come and go, several at once, while others send junk, vanish, or never say anything."""
    server = start_server(limits=Limits(handshake_timeout_s=0.3), capacity=24)
    stopping = threading.Event()

    def annoy(seed):
        rng = np.random.default_rng(seed)
        while not stopping.is_set():
            with connect(url(server), compression=None) as websocket:
                kind = rng.integers(4)
                try:
                    if kind == 0:
                        websocket.send("}{")
                    elif kind == 1:  # vanishes without a word
                        websocket.send(START)
                        websocket.send(noise(5000, seed).tobytes())
                        websocket.socket.shutdown(socket.SHUT_RDWR)
                    elif kind == 2:
                        websocket.send('{"type": "start", "channels": 2}')
                        websocket.send(b"\0" * 6)
                    websocket.recv(timeout=5)
                except (ConnectionClosed, OSError):
                    pass

    def behave(index):
        for visit in range(3):
            audio = noise(12_000 + 777 * index, index)
            got = stream(server, audio, 500 * (index + visit + 1), sample_rate=8000, options={"chunk_ms": 60 + index})
            assert got == alone(band_energy, audio, sample_rate=8000, chunk_ms=60 + index)

    with ThreadPoolExecutor(14) as pool:
        nuisances = [pool.submit(annoy, seed) for seed in range(4)]
        try:
            for result in [pool.submit(behave, index) for index in range(10)]:
                result.result()
        finally:
            stopping.set()
        for nuisance in nuisances:
            nuisance.result()
    wait_until(lambda: active(server) == 0)
    assert httpx.get(http(server, "/health")).json()["status"] == "ok"


def test_a_full_server_says_so_until_there_is_room(start_server):
    server = start_server(capacity=1)
    with connect(url(server)) as first:
        first.send(START)
        first.recv()
        failure, code = refused(server, START)
        assert (failure["code"], code) == ("busy", 1013)
    wait_until(lambda: active(server) == 0)
    assert len(stream(server, noise(1600))) == 5


def test_a_vanishing_client_leaves_nothing_behind(start_server):
    server = start_server()
    with connect(url(server)) as websocket:
        websocket.send(START)
        websocket.recv()
        assert active(server) == 1
        websocket.socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: active(server) == 0 and not server.service.connections)


def test_a_slow_reader_is_disconnected_and_others_are_not_held_up(band_energy, start_server):
    server = start_server(limits=Limits(max_queue_bytes=300_000, send_timeout_s=1.0))
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", server.port))
    with connect(url(server), sock=raw, max_queue=1, compression=None, close_timeout=0.1) as lazy:
        lazy.send('{"type": "start", "options": {"padding": 100000, "chunk_ms": 10}}')
        send_for_ever(lazy, bytes(3200))
        audio = noise(16_000)
        assert stream(server, audio) == alone(band_energy, audio)
    assert metric(server, 'loquent_failures_total{code="slow_reader"}') >= 1
    wait_until(lambda: active(server) == 0)


def test_a_client_that_asks_and_does_not_read_the_answers_is_disconnected(start_server):
    server = start_server(limits=Limits(max_queue_bytes=300_000, send_timeout_s=600.0))
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", server.port))
    item = {"type": "message", "id": "long", "role": "user", "content": [{"type": "input_text", "text": "\0" * 4096}]}
    address = f"ws://127.0.0.1:{server.port}/v1/realtime?model=gpt-realtime"
    with connect(address, sock=raw, max_queue=1, compression=None, close_timeout=0.1) as lazy:
        lazy.send(json.dumps({"type": "conversation.item.create", "item": item}))
        for _ in range(5000):
            lazy.send('{"type": "conversation.item.retrieve", "item_id": "long"}')
        wait_until(lambda: failures(server, "slow_reader"))


def failures(server, code):
    return server.service.metrics.failures.labels(code)._value.get()


def test_a_partial_is_not_superseded_by_one_of_another_channel():
    outgoing = Outgoing(ServerProtocol().told)
    for number in range(5 * COALESCE_FROM):
        outgoing.put(Partial(stream="channels-1/0", sequence=number, stable="", unstable=str(number)))
        if not number:
            outgoing.put(Partial(stream="channels-1/1", stable="", unstable="of the other channel"))
    assert any("of the other channel" in asyncio.run(outgoing.get()) for _ in range(3))


def test_partials_are_dropped_for_slow_readers_and_words_never():
    outgoing = Outgoing(ServerProtocol().told)
    for number in range(5 * COALESCE_FROM):
        outgoing.put(Partial(sequence=2 * number, stable=str(number), unstable=""))
        outgoing.put(Word(sequence=2 * number + 1, text=str(number), start=0, end=1, confidence=1))
    outgoing.close(1000, "done")
    waiting = []
    while not isinstance(message := asyncio.run(outgoing.get()), Close):
        waiting.append(json.loads(message))
    words = [message for message in waiting if message["type"] == "word"]
    partials = [message for message in waiting if message["type"] == "partial"]
    assert [int(word["text"]) for word in words] == list(range(5 * COALESCE_FROM))
    assert partials[-1]["stable"] == str(5 * COALESCE_FROM - 1)
    assert len(partials) == 5 * COALESCE_FROM - outgoing.dropped < 4
    assert [message["sequence"] for message in waiting] == sorted(message["sequence"] for message in waiting)
    assert outgoing.size == 0


def test_who_says_nothing_is_disconnected_and_loses_nothing(band_energy, start_server):
    server = start_server(limits=Limits(handshake_timeout_s=0.2, idle_timeout_s=1.0))
    failure, code = refused(server)
    assert (failure["code"], code) == ("handshake_timeout", 1008)
    with connect(url(server)) as websocket:
        websocket.send(START)
        websocket.send(noise(4000).tobytes())
        (_, *events, failure), code = rest(websocket)
    assert (failure["code"], code) == ("idle_timeout", 1008)
    assert unnamed(events) == alone(band_energy, noise(4000))


def test_a_stream_that_gets_too_long_is_ended_and_loses_nothing(band_energy, start_server):
    server = start_server(limits=Limits(max_duration_s=1.0))
    with connect(url(server)) as websocket:
        websocket.send(START)
        websocket.send(noise(16_000).tobytes())
        websocket.send(noise(500).tobytes())
        (_, *events, failure), _ = rest(websocket)
    assert failure["code"] == "too_long"
    assert unnamed(events) == alone(band_energy, np.concatenate([noise(16_000), noise(500)]))


def test_a_server_that_cannot_keep_up_holds_bounded_audio(band_energy, start_server):
    task = band_energy.BandEnergy()
    server = start_server(task, limits=Limits(buffer_s=2.0, stall_timeout_s=0.3))
    task.gate.clear()
    try:
        with connect(url(server), compression=None) as websocket:
            websocket.send(START)
            for _ in range(30):
                websocket.send(bytes(16_000))
            (*_, failure), code = rest(websocket)
        assert (failure["code"], code) == ("overloaded", 1013)
        assert float(re.search(r"([\d.]+) s of audio wait", failure["message"])[1]) <= 2.5
    finally:
        task.gate.set()
    wait_until(lambda: active(server) == 0)


def test_too_many_markers(start_server):
    server = start_server(limits=Limits(max_markers=3))
    marks = [json.dumps({"type": "marker", "id": str(number)}) for number in range(4)]
    failure, _ = refused(server, START, b"\0\0", *marks)
    assert "3 markers wait" in failure["message"]


def test_pages_of_others_cannot_listen(start_server):
    server = start_server(allowed_origins=["https://good.example"])
    own = [f"http://127.0.0.1:{server.port}", "https://good.example"]
    for origin in own:
        with connect(url(server), origin=origin) as websocket:
            websocket.send(START)
            assert json.loads(websocket.recv())["type"] == "ready"
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://["):
        with pytest.raises(InvalidStatus, match="403"), connect(url(server), origin=origin):
            pass
        answer = httpx.post(http(server, "/v1/audio/transcriptions"), headers={"Origin": origin})
        assert answer.status_code == 403
    # A name of theirs that they have pointed here.
    rebound = {"Origin": f"http://evil.example:{server.port}", "Host": f"evil.example:{server.port}"}
    assert httpx.get(http(server, "/v1/models"), headers=rebound).status_code == 403


def test_a_token_keeps_strangers_out(start_server):
    server = start_server(token="sesame")
    bearer = {"Authorization": "Bearer sesame"}
    for start, code in (({"token": "sesame"}, "ready"), ({"token": "x"}, "failure"), ({}, "failure")):
        with connect(url(server)) as websocket:
            websocket.send(json.dumps({"type": "start"} | start))
            answer = json.loads(websocket.recv())
        assert answer["type"] == code
        assert answer.get("code", "unauthorized") == "unauthorized"
    with connect(url(server), additional_headers=bearer) as websocket:
        websocket.send(START)
        assert json.loads(websocket.recv())["type"] == "ready"
    stranger = {"Authorization": "Bearer x"}
    with pytest.raises(InvalidStatus, match="403"), connect(url(server), additional_headers=stranger):
        pass
    assert httpx.get(http(server, "/metrics")).status_code == 401
    assert httpx.get(http(server, "/v1/models"), headers=bearer).status_code == 200
    with pytest.raises(ValueError, match="printable ASCII"):
        start_server(token="sésame")
    assert httpx.get(http(server, "/")).status_code == httpx.get(http(server, "/health")).status_code == 200


def test_metrics_and_models(start_server):
    server = start_server()
    stream(server, noise(16_000))
    text = httpx.get(http(server, "/metrics")).text
    for line in (
        'sessions_total{model="band"} 1.0',
        "sessions_active 0.0",
        "queue_depth 0.0",
        "step_seconds_count 11.0",
    ):
        assert f"loquent_{line}" in text
    assert metric(server, 'loquent_first_result_seconds_count{model="band",task="recognition"}') == 1
    assert metric(server, 'loquent_lag_seconds_count{model="band",task="recognition"}') == 11
    assert httpx.get(http(server, "/v1/models")).json()["data"][0]["id"] == "band"


def test_sigterm_lets_streams_say_what_they_have_heard(band_energy):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(__file__).parents[1] / "band_energy.py"
    with subprocess.Popen([sys.executable, program, str(port)], env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            wait_for_port(process, port)
            with connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None) as websocket:
                websocket.send(START)
                websocket.recv()
                audio = noise(16_000 * 5 + 77)
                websocket.send(audio.tobytes())
                websocket.send('{"type": "marker", "id": "end"}')
                websocket.recv()  # the audio has arrived
                process.send_signal(signal.SIGTERM)
                messages, code = rest(websocket)
            assert code == 1001
            assert messages[-1]["code"] == "shutting_down"
            assert "has heard 5.005 s" in messages[-1]["message"]
            got = [m | {"sequence": 0} for m in unnamed(messages[:-1]) if m["type"] != "marker"]
            assert got == [event | {"sequence": 0} for event in alone(band_energy, audio)[1:]]
            assert process.wait(30) in (0, -signal.SIGTERM)
        finally:
            process.kill()


def wait_for_port(process, port):
    def up():
        assert process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(up)


def test_streams_that_have_been_finished_end_well_during_shutdown(band_energy, start_server):
    task = band_energy.BandEnergy()
    server = start_server(task)
    task.gate.clear()
    with connect(url(server), compression=None) as websocket:
        websocket.send(START)
        websocket.send(noise(40_000).tobytes())
        websocket.send(FINISH)
        wait_until(lambda: any(session.inbox.ended for session in server.service.scheduler.streams))
        server.should_exit = True
        wait_until(lambda: server.service.draining)
        task.gate.set()
        (_, *events, done), code = rest(websocket)
    assert (done["type"], code) == ("done", 1000)
    assert unnamed(events) == alone(band_energy, noise(40_000))


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_positive(value):
    with pytest.raises(ValueError, match="buffer_s has to be positive"):
        Limits(buffer_s=value)
