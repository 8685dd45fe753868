"""Text in and speech out through a real server: nothing changes on the way but what the encoding changes."""

import asyncio
import json
import time

import numpy as np
import pytest
from websockets.sync.client import connect as connect_sync

from loquent.speech.audio.resample import resample
from loquent.speech.net.client import ProtocolError, ServerBusy, connect
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import Output
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline

TEXT = "Spell these few words, please. Every letter is a tone"


@pytest.fixture
def server(start_server, band_energy, swapped, tones):
    """A recogniser, a translator, a synthesiser, and the three in a row."""
    stages = {"hear": band_energy.BandEnergy(), "swap": swapped.Swapped(), "say": tones.Tones()}
    engines = {name: Engine(task, 4) for name, task in stages.items()}
    return start_server(engines=engines | {"row": engines, "read": {n: engines[n] for n in ("swap", "say")}})


def address(server):
    return f"ws://127.0.0.1:{server.port}"


def spoken(events):
    return np.concatenate([event.samples for event in events if event.type == "speech"])


def unnamed(events):
    values = [event.to_dict() | {"stream": ""} for event in events]
    return [{k: v for k, v in one.items() if k not in ("sample_rate",)} for one in values]


def say(server, pieces, **options):
    async def main():
        async with connect(address(server), **options) as stream:
            for piece in pieces:
                await stream.write(piece)
            return stream.ready, await stream.finish()

    return asyncio.run(main())


def locally(tones, text):
    session = Engine(tones.Tones()).open()
    return session.push(text) + session.finish()


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_speech_over_the_wire_is_what_it_is_locally(server, tones, cut):
    pieces = [TEXT[at : at + cut] for at in range(0, len(TEXT), cut)]
    ready, events = say(server, pieces, model="say", output=Output("float32"))
    assert ready["takes"] == {"kind": "text"}
    assert ready["gives"]["kind"] == "audio"
    assert ready["gives"]["sample_rate"] == 8000
    assert ready["output"] == {"encoding": "float32", "sample_rate": 8000}
    expected = locally(tones, TEXT)
    assert unnamed(events) == unnamed(expected)
    assert np.array_equal(spoken(events), spoken(expected))


@pytest.mark.parametrize(
    ("output", "rate", "tolerance"),
    [
        (Output(), 8000, 1e-4),
        (Output("mulaw"), 8000, 0.05),
        (Output("pcm16", 24_000), 24_000, 1e-3),
        (Output("float32", 11_025), 11_025, 1e-3),
    ],
)
def test_forms_of_speech(server, tones, output, rate, tolerance):
    ready, events = say(server, [TEXT], model="say", output=output)
    assert ready["output"]["sample_rate"] == rate
    expected = resample(spoken(locally(tones, TEXT)), 8000, rate)
    got = spoken(events)
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_opus_loses_nothing(server, tones):
    ready, events = say(server, [TEXT], model="say", output=Output("opus"))
    assert ready["output"] == {"encoding": "opus", "sample_rate": 8000}
    assert all(event.sample_rate == 48_000 for event in events)
    expected = resample(spoken(locally(tones, TEXT)), 8000, 48_000)
    got = spoken(events)
    delay = 312  # 6.5 ms
    assert len(expected) <= len(got) - delay <= len(expected) + 960
    part = slice(24_000, 48_000)
    alike = [np.corrcoef(got[part.start + lag : part.stop + lag], expected[part])[0, 1] for lag in range(624)]
    assert abs(int(np.argmax(alike)) - delay) < 48  # a millisecond
    assert events[-1].text == ""


def test_opus_comes_in_as_packets(server, band_energy):
    tone = np.sin(np.arange(48_000) * 0.05).astype(np.float32)

    async def main(encoding):
        async with connect(address(server), sample_rate=48_000, encoding=encoding, model="hear") as stream:
            assert stream.ready["encoding"] == encoding
            for packet in np.array_split(tone, 30):
                await stream.send(packet)
            return await stream.finish()

    opus, pcm = asyncio.run(main("opus")), asyncio.run(main("pcm16"))
    levels = [int(event.text.split("/")[2]) for event in opus if event.type == "word"]
    expected = [int(event.text.split("/")[2]) for event in pcm if event.type == "word"]
    np.testing.assert_allclose(levels[3:9], expected[3:9], rtol=0.1)


def test_a_row_of_models_is_one_stream(server, band_energy, swapped, tones):
    audio = np.random.default_rng(0).integers(-20_000, 20_000, 40_000, np.int16)
    engines = {
        name: Engine(task)
        for name, task in {"hear": band_energy.BandEnergy(), "swap": swapped.Swapped(), "say": tones.Tones()}.items()
    }
    local = Pipeline.open(engines, capitals=True)
    expected = local.push(audio) + local.finish()

    async def main():
        async with connect(address(server), model="row", capitals=True, output=Output("float32")) as stream:
            for packet in np.array_split(audio, 9):
                await stream.send(packet)
            return await stream.finish()

    events = asyncio.run(main())
    for stage in ("hear", "swap", "say"):
        assert unnamed(e for e in events if e.stage == stage) == unnamed(e for e in expected if e.stage == stage)


def test_words_come_before_the_text_has_ended(server):
    async def main():
        async with connect(address(server), model="say") as stream:
            await stream.write("one two ")
            texts = []
            async for event in stream:
                texts.append(event.text)
                if len(texts) == 3:
                    await stream.flush()
                if len(texts) == 6:
                    break
            return texts, await stream.finish()

    assert asyncio.run(main()) == (["o", "n", "e", "t", "w", "o"], [])


def test_a_generator_stops_while_its_client_does_not_read(start_server, tones):
    engine = Engine(tones.Tones())
    server = start_server(engines={"say": engine}, limits=Limits(speech_ahead_s=0.5, send_timeout_s=60.0))
    with connect_sync(f"ws://127.0.0.1:{server.port}/v1/stream", compression=None, max_queue=1) as websocket:
        start = {"type": "start", "model": "say", "output": {"encoding": "float32", "sample_rate": 192_000}}
        websocket.send(json.dumps(start))
        websocket.send(json.dumps({"type": "text", "text": "abcdefghij " * 200}))
        websocket.send(json.dumps({"type": "finish"}))
        steps, still = -1, 0
        (session,) = waited_for(lambda: server.service.scheduler.streams)
        while still < 10:  # until the model rests
            still = still + 1 if session.memo.samples == steps else 0
            steps = session.memo.samples
            time.sleep(0.05)
        assert session.memo.samples < 2000 * 320
        assert not session.done
        speech, size = 0, 0
        while (message := json.loads(websocket.recv()))["type"] != "done":
            if message["type"] == "speech":
                speech += 1
                size += len(websocket.recv())
        assert size == 2000 * 320 * 4 * 24
        assert speech >= 2000


def waited_for(something):
    while not (found := something()):
        time.sleep(0.01)
    return found


def test_an_interruption_over_the_wire(server):
    async def main():
        async with connect(address(server), model="say") as stream:
            await stream.write("hello world again ")
            heard = []
            async for event in stream:
                heard.append(event)
                if event.text == "d":
                    break
            await stream.interrupt(played_s=0.13)
            await stream.write("new ")
            rest = await stream.finish()
            return heard, rest

    heard, (stopped, *more) = asyncio.run(main())
    assert "".join(event.text for event in heard) == "helloworld"
    assert (stopped.type, stopped.text, stopped.heard) == ("interrupted", "hel", 0.13)
    assert "".join(event.text for event in more) == "new"
    assert more[0].start == 0.13


def test_after_the_last_word_there_is_still_time_to_interrupt(server):
    with connect_sync(f"{address(server)}/v1/stream", compression=None) as websocket:
        for message in (
            {"type": "start", "model": "say"},
            {"type": "text", "text": "abc"},
            {"type": "finish"},
            {"type": "interrupt", "played_s": 0},
        ):
            websocket.send(json.dumps(message))
        types = []
        while not types or types[-1] != "done":
            message = websocket.recv()
            if isinstance(message, str):
                types.append(json.loads(message)["type"])
    assert types[0] == "ready"
    assert types[-1] == "done"
    assert types.count("interrupted") <= 1


def test_positions_are_acknowledged_if_asked_for(server):
    async def main():
        async with connect(address(server), model="hear", sample_rate=8000, acknowledge=True) as stream:
            await stream.send(np.zeros(2000, np.int16))
            events = await stream.finish()
            return events, stream.acknowledged

    events, acknowledged = asyncio.run(main())
    assert acknowledged == 2000
    assert all(event.type != "acknowledged" for event in events)


@pytest.mark.parametrize(
    ("model", "message", "words"),
    [
        ("say", b"\0\0", "this model takes text; send messages of type"),
        ("hear", {"type": "text", "text": "a"}, "this model takes audio; send binary messages"),
        ("hear", {"type": "flush"}, "this model takes audio"),
        ("say", {"type": "text", "text": 5}, "'text' has to be a string"),
        ("say", {"type": "text", "text": "a", "time_s": -1}, "'time_s' has to be a number of seconds"),
        ("say", {"type": "interrupt", "played_s": "now"}, "'played_s' has to be a number"),
    ],
)
def test_what_does_not_fit_a_port_is_refused(server, model, message, words):
    with connect_sync(f"{address(server)}/v1/stream", compression=None) as websocket:
        websocket.send(json.dumps({"type": "start", "model": model}))
        assert json.loads(websocket.recv())["type"] == "ready"
        websocket.send(message if isinstance(message, bytes) else json.dumps(message))
        failure = json.loads(websocket.recv())
    assert failure["type"] == "failure"
    assert words in failure["message"]


def test_a_time_that_goes_back_ends_the_stream(server):
    async def main():
        async with connect(address(server), model="say") as stream:
            await stream.write("a ", 2.0)
            await stream.write("b ", 1.0)
            await stream.finish()

    with pytest.raises(ProtocolError, match="does not go back"):
        asyncio.run(main())


def test_admission_counts_the_machine(start_server, swapped, tones):
    server = start_server(
        engines={"swap": Engine(swapped.Swapped(), 4), "say": Engine(tones.Tones(), 4)}, max_streams=2
    )

    async def main():
        async with connect(address(server), model="swap"), connect(address(server), model="say"):
            with pytest.raises(ServerBusy, match="all 2 streams of this server"):
                async with connect(address(server), model="swap"):
                    pass

    asyncio.run(main())


def test_a_client_of_before_sees_what_it_knows(server):
    """Fields of "ready" that the first clients read, and no message that they would not understand."""
    with connect_sync(f"{address(server)}/v1/stream", compression=None) as websocket:
        websocket.send('{"type": "start", "sample_rate": 8000, "model": "hear"}')
        websocket.send(np.zeros(2000, "<i2").tobytes())
        websocket.send('{"type": "finish"}')
        ready, *events = [json.loads(message) for message in websocket]
    assert {"stream", "model", "sample_rate", "channels", "encoding", "limits"} <= ready.keys()
    assert (ready["sample_rate"], ready["encoding"]) == (8000, "pcm16")
    assert {event["type"] for event in events} == {"partial", "word", "final", "done"}
    assert all("stage" not in event for event in events)
