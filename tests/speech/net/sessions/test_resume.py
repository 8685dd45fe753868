"""Streams that outlive their connection, and their process: nothing is lost, nothing comes twice."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.sync.client import connect as raw_connect
from websockets.uri import parse_uri

from loquent.speech.net import client
from loquent.speech.net.client import ProtocolError, connect
from loquent.speech.net.limits import Limits
from loquent.speech.net.sessions.connection import ResumableConnection
from loquent.speech.runtime.channels import channel_of
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Word

START = {"type": "start", "resumable": True}
EVERY = Limits(session_every_s=0.3)


def noise(samples, seed=0):
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples, np.int16)


def unnamed(events):
    return [event if isinstance(event, dict) else event.to_dict() for event in events]


def alone(band_energy, audio, **options):
    session = Engine(band_energy.BandEnergy(), 1).open(**options)
    return [event.to_dict() | {"stream": ""} for event in session.push(audio) + session.finish()]


def address(server):
    return f"ws://127.0.0.1:{server.port}/v1/stream"


class Wire:
    """A client of the protocol, message by message."""

    def __init__(self, url, **first):
        self.websocket = raw_connect(url, compression=None).__enter__()
        self.websocket.send(json.dumps(first))
        self.ready = json.loads(self.websocket.recv(timeout=30))

    def send(self, message):
        self.websocket.send(message.tobytes() if isinstance(message, np.ndarray) else json.dumps(message))

    def until(self, wanted):
        """Messages up to one of a type."""
        messages = []
        while not messages or messages[-1]["type"] != wanted:
            messages.append(json.loads(self.websocket.recv(timeout=30)))
        return messages

    def rest(self):
        messages = []
        while True:
            try:
                messages.append(json.loads(self.websocket.recv(timeout=30)))
            except ConnectionClosed:
                return messages

    def lose(self):
        """The connection breaks without a word."""
        self.websocket.socket.shutdown(socket.SHUT_RDWR)


class Deaf:
    """A client that reads nothing after "ready", not even that the server closes."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.protocol = ClientProtocol(parse_uri(address(server)))
        self.protocol.send_request(self.protocol.connect())
        self._flush()
        while self.protocol.state is State.CONNECTING:
            self.protocol.receive_data(self.socket.recv(65_536))
        self.protocol.events_received()
        self.send(START)
        while not (frames := self.protocol.events_received()):
            self.protocol.receive_data(self.socket.recv(65_536))
        self.ready = json.loads(frames[0].data)

    def send(self, message):
        if isinstance(message, dict):
            self.protocol.send_text(json.dumps(message).encode())
        else:
            self.protocol.send_binary(message.tobytes())
        self._flush()

    def _flush(self):
        self.socket.sendall(b"".join(self.protocol.data_to_send()))


def events_of(messages):
    others = ("ready", "saved", "done", "acknowledged", "failure")
    return [message | {"stream": ""} for message in messages if message["type"] not in others]


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("confirmed", [False, True])
def test_a_dropped_connection_is_resumed(band_energy, start_server, tmp_path, on_disk, confirmed):
    server = start_server(limits=EVERY, session_folder=tmp_path / "kept" if on_disk else None)
    audio = noise(16_000 * 2 + 77)
    first = Wire(address(server), **START)
    first.send(audio[:20_000])
    got = events_of(first.until("saved"))
    if confirmed:
        first.send({"type": "acknowledge", "received": len(got)})
    first.lose()
    again = Wire(address(server), type="resume", session=first.ready["session"], received=len(got))
    resumed = again.ready["resumed"]
    assert resumed == {"position": 20_000, "messages": 0, "finished": False}
    assert again.ready["session"] == first.ready["session"]
    again.send(audio[resumed["position"] :])
    again.send({"type": "finish"})
    got += events_of(again.rest())
    assert got == alone(band_energy, audio)


def test_what_the_client_has_not_seen_comes_again(band_energy, start_server):
    server, audio = start_server(limits=EVERY), noise(16_000)
    deaf = Deaf(server)
    deaf.send(audio)
    deaf.send({"type": "marker", "id": "m"})
    deaf.send({"type": "finish"})
    while not server.service.sessions.waiting:  # the stream is over, and its client knows nothing of it
        time.sleep(0.01)
    again = Wire(address(server), type="resume", session=deaf.ready["session"], received=7)
    assert again.ready["resumed"] == {"position": 16_000, "messages": 2, "finished": True}
    messages = again.rest()
    assert messages[-1] == {"type": "done"}
    got = events_of(messages)
    expected = alone(band_energy, audio)
    assert [event["sequence"] for event in got] == list(range(7, len(expected) + 1))
    plain = [event | {"sequence": 0} for event in got if event["type"] != "marker"]
    assert plain == [event | {"sequence": 0} for event in expected[7:]]


def test_a_session_moves_while_its_old_connection_is_still_open(band_energy, start_server):
    """A client that has changed networks comes back before the server knows that it was gone."""
    server, audio = start_server(limits=EVERY, capacity=1), noise(32_000)
    first = Wire(address(server), **START)
    first.send(audio[:16_000])
    got = events_of(first.until("saved"))
    again = Wire(address(server), type="resume", session=first.ready["session"], received=len(got))
    failure = first.rest()[-1]
    assert failure["code"] == "moved"
    again.send(audio[again.ready["resumed"]["position"] :])
    again.send({"type": "finish"})
    assert got + events_of(again.rest()) == alone(band_energy, audio)


def refused(url, **first):
    wire = Wire(url, **first)
    assert wire.ready["type"] == "failure"
    return wire.ready["code"]


def test_a_session_belongs_to_its_key_and_its_token(start_server):
    from loquent.speech.net.operation.keys import Key, digest_of

    keys = [Key(name, digest_of(f"the key of {name}")) for name in ("ann", "ben")]
    server = start_server(keys=keys)
    first = Wire(address(server), token="the key of ann", **START)
    session = first.ready["session"]
    assert len(session) >= 43  # 256 bits
    for wrong in (
        {"session": session, "token": "the key of ben"},
        {"session": session[:-1] + ("A" if session[-1] != "A" else "B"), "token": "the key of ann"},
    ):
        assert refused(address(server), type="resume", **wrong) == "unknown_session"
    assert refused(address(server), type="resume", session=session, token="the key of") == "unauthorized"
    first.send({"type": "marker", "id": "still here"})
    assert first.until("marker")
    first.lose()
    assert Wire(address(server), type="resume", session=session, token="the key of ann").ready["type"] == "ready"


def test_what_waits_is_bounded(start_server):
    limits = Limits(max_kept_sessions=2)
    server = start_server(limits=limits)
    sessions = []
    for _ in range(3):
        wire = Wire(address(server), **START)
        sessions.append(wire.ready["session"])
        wire.lose()
        while server.service.connections:
            time.sleep(0.01)
    assert server.service.sessions.waiting == 2
    assert refused(address(server), type="resume", session=sessions[0]) == "unknown_session"
    assert Wire(address(server), type="resume", session=sessions[2]).ready["type"] == "ready"


def test_a_client_that_closes_leaves_nothing(start_server):
    server = start_server()
    wire = Wire(address(server), **START)
    wire.websocket.close()
    while server.service.connections:
        time.sleep(0.01)
    assert server.service.sessions.waiting == 0
    assert refused(address(server), type="resume", session=wire.ready["session"]) == "unknown_session"


def test_a_client_that_confirms_nothing_is_told(start_server):
    server = start_server(limits=Limits(max_unconfirmed_bytes=20_000))
    wire = Wire(address(server), **START)
    wire.send(noise(16_000 * 10))
    assert wire.rest()[-1]["code"] == "slow_reader"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "start", "resumable": "yes"},
        {"type": "start", "resumable": True, "encoding": "opus"},
        {"type": "resume"},
        {"type": "resume", "session": "x", "received": -1},
        {"type": "resume", "session": "x", "received": {str(at): 1 for at in range(99)}},
        {"type": "resume", "session": "x", "received": {"x" * 129: 1}},
        {"type": "acknowledge", "received": 1},
    ],
)
def test_messages_that_make_no_sense(start_server, message):
    assert refused(address(start_server()), **message) == "bad_message"


def test_channels_that_say_unequally_much_are_resumed(band_energy, start_server):
    server, loud = start_server(limits=EVERY), noise(16_000 * 2)
    audio = np.stack([loud, loud // np.int16(2) * (np.arange(len(loud)) >= 16_000)], 1).astype(np.int16)

    async def main():
        how = {"sample_rate": 16_000, "channels": 2, "multichannel": True, "resumable": True}
        async with connect(address(server), **how) as stream:
            for at, packet in enumerate(np.array_split(audio, 20)):
                await stream.send(packet)
                if at == 9:
                    await stream.marker("m")
                    stream._websocket.transport.abort()
            return await stream.finish(), stream.resumed

    events, resumed = asyncio.run(asyncio.wait_for(main(), 60))
    assert resumed == 1
    words = [event for event in events if isinstance(event, Word)]
    for channel in range(2):
        expected = [event["text"] for event in alone(band_energy, audio[:, channel]) if event["type"] == "word"]
        assert [word.text for word in words if channel_of(word) == channel] == expected


def test_the_client_resumes_by_itself(band_energy, start_server):
    server, audio = start_server(limits=EVERY), noise(16_000 * 3)

    async def main():
        async with connect(address(server), resumable=True, chunk_ms=50) as stream:
            for at, packet in enumerate(np.array_split(audio, 30)):
                await stream.send(packet)
                if at % 10 == 4:
                    await asyncio.sleep(0.02)
                    stream._websocket.transport.abort()
                if at == 20:
                    late = asyncio.create_task(stream.marker("m"))
            events = await stream.finish()
            assert (await late).id == "m"
            return events, stream.resumed

    events, resumed = asyncio.run(main())
    assert resumed >= 1
    plain = [event for event in unnamed(events) if event["type"] != "marker"]
    expected = alone(band_energy, audio, chunk_ms=50)
    assert [event | {"stream": "", "sequence": 0} for event in plain] == [one | {"sequence": 0} for one in expected]
    assert [event["sequence"] for event in unnamed(events)] == list(range(len(events)))


def test_what_is_sent_while_the_client_resumes_keeps_its_place(band_energy, start_server, monkeypatch):
    """It goes after what is sent again, and once."""
    server, audio = start_server(limits=EVERY), noise(16_000 * 3)
    packets, answer = iter(np.array_split(audio, 6)), client._answer

    async def main():
        async with connect(address(server), resumable=True) as stream:

            async def slow(websocket, message):
                await stream.send(next(packets))
                ready = await answer(websocket, message)
                await stream.send(next(packets))
                return ready

            monkeypatch.setattr(client, "_answer", slow)
            await stream.send(next(packets))
            stream._websocket.transport.abort()
            while not stream.resumed:
                assert not stream._ended
                await asyncio.sleep(0.01)
            for packet in packets:
                await stream.send(packet)
            return await stream.finish()

    events = [event | {"stream": ""} for event in unnamed(asyncio.run(main()))]
    assert events == alone(band_energy, audio)


def test_the_client_gives_up_on_a_session_that_is_gone(start_server):
    server = start_server(limits=Limits(session_keep_s=1e-9))

    async def main():
        async with connect(address(server), resumable=True) as stream:
            stream._websocket.transport.abort()
            await stream.finish()

    with pytest.raises(ProtocolError, match="no such session"):
        asyncio.run(main())


class Process:
    """A server in a process of its own, with a folder for sessions."""

    def __init__(self, folder, port=None):
        program = Path(__file__).parents[2] / "band_energy.py"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = port or probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, program, str(self.port), str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"}
        )

    def wait(self):
        while True:
            assert self.process.poll() is None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait(30)


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        process.process.kill()
        process.process.wait()


def test_a_stream_outlives_its_process(band_energy, tmp_path, processes):
    """Killed in the middle of a sentence; the same events come as if nothing had happened."""
    folder = tmp_path / "kept"
    processes.append(Process(folder).wait())
    port, audio = processes[0].port, noise(16_000 * 4 + 123)

    async def main():
        async with connect(f"ws://127.0.0.1:{port}", resumable=True) as stream:
            for at in range(41):
                await stream.send(audio[1600 * at : 1600 * (at + 1)])
                if at == 25:
                    await stream.marker("heard")
                    await asyncio.to_thread(processes[0].kill)
                    files = list(folder.glob("*.session"))
                    assert [file.stat().st_mode & 0o777 for file in files] == [0o600]
                    processes.append(Process(folder, port))
            return [event async for event in _finished(stream)], stream.resumed

    events, resumed = asyncio.run(main())
    assert resumed == 1
    assert [event.sequence for event in events] == list(range(len(events)))
    plain = [event.to_dict() | {"stream": "", "sequence": 0} for event in events if event.type != "marker"]
    assert plain == [event | {"sequence": 0} for event in alone(band_energy, audio)]
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_a_server_that_goes_down_keeps_its_streams_for_the_next_one(band_energy, start_server, tmp_path):
    old, audio = start_server(limits=EVERY, session_folder=tmp_path), noise(32_000)
    first, plain = Wire(address(old), **START), Wire(address(old), type="start")
    first.send(audio[:10_050])
    first.send({"type": "marker", "id": "m"})
    got = events_of(first.until("word"))
    old.should_exit = True
    messages = first.rest()
    assert messages[-1]["code"] == "restarting"
    assert plain.rest()[-1]["code"] == "shutting_down"
    got += events_of(messages)
    new = start_server(limits=EVERY, session_folder=tmp_path)
    again = Wire(address(new), type="resume", session=first.ready["session"], received=len(got))
    assert again.ready["resumed"]["position"] == 10_050
    again.send(audio[again.ready["resumed"]["position"] :])
    again.send({"type": "finish"})
    got += events_of(again.rest())
    expected = alone(band_energy, audio)
    assert [event | {"sequence": 0} for event in got if event["type"] != "marker"] == [
        event | {"sequence": 0} for event in expected
    ]


def test_a_server_that_goes_down_while_a_session_is_resumed_keeps_it(band_energy, start_server, tmp_path, monkeypatch):
    server, audio = start_server(limits=EVERY, session_folder=tmp_path), noise(32_000)
    first = Wire(address(server), **START)
    first.send(audio[:16_000])
    got = events_of(first.until("saved"))
    first.lose()
    resume, restore = {"type": "resume", "session": first.ready["session"]}, ResumableConnection._restore

    async def interrupted(connection, record):
        monkeypatch.undo()
        connection.conclude("shutting_down", "the server is shutting down")
        return await restore(connection, record)

    monkeypatch.setattr(ResumableConnection, "_restore", interrupted)
    assert Wire(address(server), **resume, received=len(got)).ready["code"] == "restarting"
    again = Wire(address(server), **resume, received=len(got))
    assert again.ready["resumed"]["position"] == 16_000
    again.send(audio[16_000:])
    again.send({"type": "finish"})
    assert got + events_of(again.rest()) == alone(band_energy, audio)


def test_a_model_that_goes_while_a_session_of_it_is_resumed_takes_it_along(start_server, monkeypatch):
    """Its streams end first, and this is one of them."""
    server, restore = start_server(limits=EVERY), ResumableConnection._restore
    first = Wire(address(server), **START)
    first.lose()
    while not server.service.sessions.waiting:
        pass

    async def unloaded(connection, record):
        restored = await restore(connection, record)
        del server.service.models[record.model]
        return restored

    monkeypatch.setattr(ResumableConnection, "_restore", unloaded)
    again = Wire(address(server), type="resume", session=first.ready["session"])
    assert again.ready["type"] == "ready"


async def _finished(stream):
    await stream.end()
    async for event in stream:
        yield event


def test_a_stream_moves_between_two_processes(band_energy, tmp_path, processes):
    """The old process still has it, and thinks that its client is there: it can neither save it nor go on with it."""
    folder, audio = tmp_path / "kept", noise(16_000 * 3)
    processes += [Process(folder), Process(folder)]
    one, two = (f"ws://127.0.0.1:{process.wait().port}/v1/stream" for process in processes)
    first = Wire(one, **START)
    first.send(audio[:16_000])
    got = events_of(first.until("saved"))
    again = Wire(two, type="resume", session=first.ready["session"], received=len(got))
    assert again.ready["resumed"]["position"] == 16_000
    again.send(audio[16_000:32_000])
    got += events_of(again.until("saved"))
    first.send(audio[16_000:32_000])
    assert first.rest()[-1]["code"] == "moved"
    back = Wire(one, type="resume", session=first.ready["session"], received=len(got))
    back.send(audio[back.ready["resumed"]["position"] :])
    back.send({"type": "finish"})
    assert got + events_of(back.rest()) == alone(band_energy, audio)


def test_of_two_who_resume_at_once_one_goes_on(band_energy, start_server):
    """Whoever is late gets it, and nothing is lost on the way."""
    server, audio = start_server(limits=EVERY), noise(32_000)
    first = Wire(address(server), **START)
    first.send(audio[:16_000])
    got = events_of(first.until("saved"))
    first.lose()
    resume = {"type": "resume", "session": first.ready["session"], "received": len(got)}
    with ThreadPoolExecutor(4) as pool:
        wires = list(pool.map(lambda _: Wire(address(server), **resume), range(4)))
    again = Wire(address(server), **resume)
    assert {wire.ready["type"] for wire in wires} <= {"ready", "failure"}
    assert again.ready["resumed"]["position"] == 16_000
    again.send(audio[16_000:])
    again.send({"type": "finish"})
    assert got + events_of(again.rest()) == alone(band_energy, audio)
