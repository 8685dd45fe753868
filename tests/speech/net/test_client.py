"""The client, against a real server."""

import asyncio

import numpy as np
import pytest
from websockets.asyncio.server import serve

from loquent.speech.audio.files import write_audio
from loquent.speech.audio.sources import AudioSource, MicrophoneError, file_source
from loquent.speech.net.client import (
    ConnectionLost,
    ProtocolError,
    ServerBusy,
    ServerShuttingDown,
    StreamError,
    Unauthorized,
    connect,
    transcribe_source,
)
from loquent.speech.runtime.engine import Engine


def noise(samples, channels=1):
    shape = (samples, channels) if channels > 1 else samples
    return np.random.default_rng(0).integers(-20_000, 20_000, shape, np.int16)


def alone(band_energy, audio, **options):
    session = Engine(band_energy.BandEnergy(), 1).open(**options)
    return unnamed(session.push(audio) + session.finish())


def unnamed(events):
    return [event.to_dict() | {"stream": ""} for event in events]


def address(server):
    return f"ws://127.0.0.1:{server.port}"


@pytest.mark.parametrize("encoding", ["pcm16", "float32"])
@pytest.mark.parametrize("kind", ["int16", "float32", "bytes"])
def test_any_form_of_packets(band_energy, start_server, encoding, kind):
    server, audio = start_server(), noise(20_000, channels=2)

    async def main():
        async with connect(address(server), sample_rate=8000, channels=2, encoding=encoding, chunk_ms=50) as stream:
            assert stream.ready["model"] == "band"
            for packet in np.array_split(audio, 7):
                floats = (packet / np.float32(32768)).astype(np.float32)
                wire = floats if encoding == "float32" else packet
                await stream.send({"int16": packet, "float32": floats, "bytes": wire.tobytes()}[kind])
            return await stream.finish()

    events = asyncio.run(main())
    assert unnamed(events) == alone(band_energy, audio, sample_rate=8000, channels=2, chunk_ms=50)


def test_a_packet_longer_than_a_message(band_energy, start_server):
    server, audio = start_server(), noise(16_000 * 60)

    async def main():
        async with connect(address(server), chunk_ms=1000) as stream:
            await stream.send(audio)
            return await stream.finish()

    assert unnamed(asyncio.run(main())) == alone(band_energy, audio, chunk_ms=1000)


def test_a_marker_is_awaited_while_events_are_read(start_server):
    server = start_server()

    async def main():
        async with connect(address(server)) as stream:
            await stream.send(noise(1600))
            echo = await stream.marker("a")
            late = asyncio.create_task(stream.marker("b"))
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="under way"):
                await stream.marker("b")
            await stream.send(noise(1600))
            types = []
            async for event in stream:
                types.append(event.type)
                if types.count("marker") == 2:
                    break
            assert (await late).id == "b"
            return echo, types, [event.type for event in await stream.finish()]

    echo, types, remaining = asyncio.run(main())
    assert echo.emission_time == 0.1
    assert types == ["partial", "word", "marker", "marker"]
    assert remaining[-1] == "final"


def test_options_can_change_under_way(start_server):
    server = start_server()

    async def main(second):
        async with connect(address(server), chunk_ms=100) as stream:
            await stream.send(noise(16 * 200))
            await stream.marker("before")
            await stream.configure(chunk_ms=second)
            await stream.send(noise(16 * 200))
            return [event.unstable for event in await stream.finish() if event.type == "partial"]

    assert asyncio.run(main(200))[:3] == ["1600", "1600", "3200"]
    with pytest.raises(ProtocolError, match="chunk_ms 5"):
        asyncio.run(main(5))


def test_a_source_is_sent_and_its_events_come_back(band_energy, start_server, tmp_path):
    server, audio = start_server(), noise(30_000, channels=2)
    write_audio(tmp_path / "a.wav", audio, 24_000)

    async def main():
        return [event async for event in transcribe_source(address(server), file_source(tmp_path / "a.wav"))]

    assert unnamed(asyncio.run(main())) == alone(band_energy, audio, sample_rate=24_000, channels=2)


def test_a_source_that_breaks_off_is_an_error(start_server):
    server = start_server()

    async def packets():
        yield noise(1600)
        raise MicrophoneError("it was unplugged")

    async def main():
        async with asyncio.timeout(30):
            async for _ in transcribe_source(address(server), AudioSource("microphone", 16_000, 1, packets())):
                pass

    with pytest.raises(MicrophoneError, match="unplugged"):
        asyncio.run(main())


@pytest.mark.parametrize("message", ["[]", "{}", '{"type": "saved"}', '{"type": "word"}', '{"type": []}', "nonsense"])
def test_a_server_that_makes_no_sense_ends_the_stream(message):
    async def answer(websocket):
        await websocket.recv()
        await websocket.send('{"type": "ready"}')
        await websocket.send(message)
        await websocket.wait_closed()

    async def main():
        async with asyncio.timeout(30), serve(answer, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            async with connect(f"ws://{host}:{port}") as stream:
                return [event async for event in stream]

    with pytest.raises(ProtocolError, match="no event"):
        asyncio.run(main())


def failing(error, url, code=None, **options):
    async def main():
        async with connect(url, **options) as stream:
            await stream.send(noise(16_000))
            await stream.finish()

    with pytest.raises(error) as info:
        asyncio.run(main())
    assert isinstance(info.value, StreamError)
    assert code is None or info.value.code == code
    return str(info.value)


def test_errors_have_types(start_server):
    server = start_server(capacity=1)
    assert "chunk_ms 5" in failing(ProtocolError, address(server), "bad_options", chunk_ms=5)
    assert "failed at" in failing(StreamError, address(server), "internal", fail_at=3)
    failing(ProtocolError, address(server), "unknown_model", model="huge")
    failing(ConnectionLost, "ws://127.0.0.1:9", "lost")
    assert "/v1/stream" in failing(Unauthorized, address(server) + "/elsewhere")

    async def two():
        async with connect(address(server)), connect(address(server)):
            pass

    with pytest.raises(ServerBusy, match="all 1 streams"):
        asyncio.run(two())
    failing(Unauthorized, address(start_server(token="x")), "unauthorized")
    failing(Unauthorized, address(start_server(token="x")), token="y")


def test_a_server_that_goes_down_is_told_from_one_that_is_lost(start_server):
    server = start_server()

    async def main():
        async with connect(address(server)) as stream:
            await stream.send(noise(3200))
            await stream.marker("heard")
            server.should_exit = True
            return [event.type async for event in stream]

    with pytest.raises(ServerShuttingDown, match=r"has heard 0\.200 s"):
        asyncio.run(main())


def test_leaving_early_frees_the_slot(start_server):
    server = start_server(capacity=1)

    async def main():
        for _ in range(3):
            while True:
                try:
                    async with connect(address(server)) as stream:
                        await stream.send(noise(3000))
                    break
                except ServerBusy:
                    await asyncio.sleep(0.01)

    asyncio.run(main())
