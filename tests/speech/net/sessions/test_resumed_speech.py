"""Streams of text, of speech and of several stages are resumed as those of audio are; interruptions hold."""

import asyncio
import json
import time

import numpy as np
import pytest

from loquent.speech.net.client import connect
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import Output
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline

TEXT = "Spell these few words, please. Every letter is a tone, and there are enough of them. "
EVERY = Limits(session_every_s=0.5)


@pytest.fixture(params=[False, True], ids=["in memory", "on disk"])
def server(request, start_server, band_energy, swapped, tones, tmp_path):
    """A recogniser, a translator, a synthesiser, and the three in a row."""
    stages = {"hear": band_energy.BandEnergy(), "swap": swapped.Swapped(), "say": tones.Tones()}
    engines = {name: Engine(task, 4) for name, task in stages.items()}
    folder = tmp_path / "kept" if request.param else None
    return start_server(engines=engines | {"row": engines}, limits=EVERY, session_folder=folder)


def address(server):
    return f"ws://127.0.0.1:{server.port}"


def plain(events):
    """By stage, as the stages of a server do not wait for each other."""
    stages = {}
    for event in events:
        values = event.to_dict() | {"stream": "", "sample_rate": 0}
        values |= {"samples": event.samples.tolist()} if event.type == "speech" else {}
        stages.setdefault(event.stage, []).append(values)
    return stages


async def taken(stream, count, events):
    """Some more events."""
    async for event in stream:
        events.append(event)
        count -= 1
        if not count:
            return


def test_speech_is_resumed_in_the_middle_of_a_word(server, tones):
    async def main():
        events = []
        async with connect(address(server), model="say", output=Output("float32"), resumable=True) as stream:
            for word in TEXT.split(" "):
                await stream.write(f"{word} ")
            await stream.flush()
            for _ in range(3):
                await taken(stream, 9, events)
                stream._websocket.transport.abort()
            await stream.end()
            events += [event async for event in stream]
            return events, stream.resumed

    events, resumed = asyncio.run(main())
    session = Engine(tones.Tones()).open()
    words = [event for word in TEXT.split(" ") for event in session.push(f"{word} ")]
    assert resumed >= 1
    assert plain(events) == plain([*words, *session.flush(), *session.finish()])


def test_stages_in_a_row_are_resumed(server, band_energy, swapped, tones):
    audio = np.random.default_rng(0).integers(-20_000, 20_000, 16_000 * 3, np.int16)

    async def main():
        events = []
        async with connect(address(server), model="row", output=Output("float32"), resumable=True) as stream:
            for at, packet in enumerate(np.array_split(audio, 10)):
                await stream.send(packet)
                if at in (3, 7):
                    await taken(stream, 20, events)
                    stream._websocket.transport.abort()
            await stream.end()
            events += [event async for event in stream]
            return events, stream.resumed

    events, resumed = asyncio.run(main())
    engines = {
        "hear": Engine(band_energy.BandEnergy()),
        "swap": Engine(swapped.Swapped()),
        "say": Engine(tones.Tones()),
    }
    row = Pipeline.open(engines)
    assert resumed >= 1
    assert plain(events) == plain(row.push(audio) + row.finish())


def test_what_follows_from_an_interruption_is_sent_once_it_is_saved(server):
    """After it the stream says something else than what a client could make it say again."""

    async def main():
        events = []
        async with connect(address(server), model="say", output=Output("float32"), resumable=True) as stream:
            await stream.write(TEXT)
            await taken(stream, 5, events)
            await stream.interrupt(0.1)
            while events[-1].type != "interrupted":
                await taken(stream, 1, events)
            stream._websocket.transport.abort()
            await stream.write("Go on. ")
            await stream.end()
            events += [event async for event in stream]
            return events, stream.resumed

    events, resumed = asyncio.run(main())
    assert resumed == 1
    at = next(at for at, event in enumerate(events) if event.type == "interrupted")
    assert (events[at].heard, events[at].text) == (0.1, "sp")
    assert "".join(event.text for event in events[at + 1 :]) == "goon"
    assert events[at + 1].start == pytest.approx(0.1)


def test_a_disk_that_is_full_costs_no_stream(start_server, tmp_path, caplog, monkeypatch):
    server = start_server(limits=EVERY, session_folder=tmp_path)

    tries = []

    def full(*_):
        tries.append(1)
        raise OSError(28, "No space left on device")

    async def main():
        async with connect(address(server), resumable=True) as stream:
            monkeypatch.setattr(server.service.sessions.folder, "write", full)
            await stream.send(np.zeros(32_000, np.int16))
            await asyncio.sleep(0.5)
            assert 1 <= len(tries) <= 4, "not again before there is as much input again"
            await stream.configure(chunk_ms=50)
            return await stream.finish()

    events = asyncio.run(main())
    assert sum(event.type == "word" for event in events) >= 20
    assert "No space left on device" in caplog.text


def test_messages_are_told_in_the_order_of_their_effects(server):
    """The client is told "saved" for what came before it; markers and ends count as messages."""
    from websockets.sync.client import connect as raw_connect

    with raw_connect(f"{address(server)}/v1/stream", compression=None) as websocket:
        websocket.send(json.dumps({"type": "start", "model": "say", "resumable": True}))
        websocket.recv(timeout=30)
        websocket.send(json.dumps({"type": "text", "text": "one two three "}))
        websocket.send(json.dumps({"type": "marker", "id": "m"}))
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            message = websocket.recv(timeout=30)
            if isinstance(message, str) and json.loads(message)["type"] == "saved":
                break
        assert json.loads(message)["position"] == 14
