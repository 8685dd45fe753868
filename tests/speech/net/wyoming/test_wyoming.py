"""Wyoming's own client, unmodified, against a port of ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

from loquent.speech.audio.files import to_pcm16
from loquent.speech.net.limits import Limits
from loquent.speech.net.wyoming.framing import Framer
from loquent.speech.runtime.engine import Engine

TEXT = "Spell these few words, please. Every letter is a tone"
STOPPED = "synthesize-stopped"


@pytest.fixture
def start(start_server: Any, band_energy: Any, tones: Any) -> Callable[..., tuple[Any, int]]:
    """Function that starts a server of a recogniser and a voice; returns it, and its port of Wyoming."""

    def started(capacity: int = 4, **options: Any) -> tuple[Any, int]:
        engines = {"hear": Engine(band_energy.BandEnergy(), capacity), "say": Engine(tones.Tones(), capacity)}
        bound = socket.create_server(("127.0.0.1", 0))
        server = start_server(engines=engines, wyoming=bound, **options)
        return server, bound.getsockname()[1]

    return started


def talk(port: int, conversation: Callable[[AsyncTcpClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(60), AsyncTcpClient("127.0.0.1", port) as client:
            return await conversation(client)

    return asyncio.run(main())


async def ask(client: AsyncTcpClient, messages: Sequence[Eventable], last: str) -> list[Event]:
    """Send messages, and read until an event of the type ``last``."""
    for message in messages:
        await client.write_event(message.event())
    events: list[Event] = []
    while not events or events[-1].type != last:
        event = await client.read_event()
        assert event is not None, f"closed after {[one.type for one in events]}"
        events.append(event)
    return events


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-20_000, 20_000, samples, np.int16)


def recording(audio: np.ndarray, pieces: int, rate: int = 16_000, channels: int = 1) -> list[Eventable]:
    form: dict[str, int] = {"rate": rate, "width": 2, "channels": channels}
    chunks = [AudioChunk(audio=piece.tobytes(), **form) for piece in np.split(audio, pieces)]
    return [AudioStart(**form), *chunks, AudioStop()]


def samples(events: Sequence[Event]) -> np.ndarray:
    chunks = [AudioChunk.from_event(event) for event in events if event.type == "audio-chunk"]
    return np.concatenate([np.frombuffer(chunk.audio, np.int16) for chunk in chunks])


def test_recordings_are_transcribed_one_after_another(start: Any, band_energy: Any) -> None:
    audio = noise(32_000)
    session = Engine(band_energy.BandEnergy()).open(sample_rate=16_000)
    said = "".join(event.text for event in session.push(audio) + session.finish() if event.type == "word").strip()

    async def conversation(client: AsyncTcpClient) -> None:
        for pieces in (1, 10):
            wanted = Transcribe(language="en", transcript_names=["Ada"])
            events = await ask(client, [wanted, *recording(audio, pieces)], "transcript-stop")
            kinds = [event.type for event in events]
            assert kinds[0] == "transcript-start"
            assert set(kinds[1:-2]) == {"transcript-chunk"}
            chunks = [TranscriptChunk.from_event(event).text for event in events[1:-2]]
            assert "".join(chunks) == Transcript.from_event(events[-2]).text == said

    talk(start()[1], conversation)


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_are_spoken_whole_or_in_pieces(start: Any, tones: Any, streaming: bool) -> None:
    session = Engine(tones.Tones()).open()
    said = [event.samples for event in session.push(TEXT) + session.finish() if event.type == "speech"]
    voice = SynthesizeVoice(name="say")
    messages: list[Eventable] = [Synthesize(TEXT, voice=voice)]
    if streaming:  # as Home Assistant sends it: the whole text, too, for servers that cannot stream
        pieces = [SynthesizeChunk(TEXT[at : at + 7]) for at in range(0, len(TEXT), 7)]
        messages = [SynthesizeStart(voice=voice), *pieces, *messages, SynthesizeStop()]

    async def conversation(client: AsyncTcpClient) -> None:
        for _ in range(2):
            events = await ask(client, messages, STOPPED if streaming else "audio-stop")
            assert AudioStart.from_event(events[0]).rate == 8000
            assert [event.type for event in events].count("audio-stop") == 1
            assert np.array_equal(samples(events), to_pcm16(np.concatenate(said)))

    talk(start()[1], conversation)


def test_what_is_there_is_described_also_while_a_recording_comes(start: Any) -> None:
    async def conversation(client: AsyncTcpClient) -> None:
        begin, *rest = recording(noise(1600), 1)
        (info,) = [
            Info.from_event(event)
            for event in await ask(client, [begin, Describe(), Ping("there?")], "pong")
            if event.type == "info"
        ]
        assert [model.name for program in info.asr for model in program.models] == ["hear"]
        assert [voice.name for program in info.tts for voice in program.voices] == ["say"]
        assert info.asr[0].supports_transcript_streaming
        assert info.tts[0].supports_synthesize_streaming
        events = await ask(client, [*rest, Ping()], "pong")
        assert "transcript" in [event.type for event in events]
        assert Pong.from_event(events[-1]).text is None

    talk(start()[1], conversation)


@pytest.mark.parametrize(
    ("messages", "code", "why"),
    [
        ([Transcribe(name="other"), *recording(noise(160), 1)], "unknown_model", "'other'"),
        ([Synthesize("Hi.", voice=SynthesizeVoice(language="tlh"))], "bad_message", "'tlh'"),
        ([Synthesize("Hi.", voice=SynthesizeVoice(name="say", speaker="Bob"))], "bad_options", "voice"),
        ([SynthesizeStop()], "bad_message", "no request"),
        ([SynthesizeStart(), AudioStop()], "bad_message", "another request"),
        ([AudioStart(16_000, 4, 1)], "bad_message", "width"),
        ([AudioStart(16_000, 2, 1), AudioChunk(8000, 2, 1, b"\0\0")], "bad_message", "format"),
        ([AudioStart(16_000, 2, 1), AudioChunk(16_000, 2, 1, b"\0")], "bad_audio", "whole frames"),
    ],
)
def test_what_is_wrong_is_said_and_ends_the_connection(
    start: Any, messages: list[Eventable], code: str, why: str
) -> None:
    server, port = start()

    async def conversation(client: AsyncTcpClient) -> None:
        error = Error.from_event((await ask(client, messages, "error"))[-1])
        assert error.code == code
        assert why in error.text
        assert await client.read_event() is None

    talk(port, conversation)
    assert server.service.metrics.failures.labels("internal")._value.get() == 0


def test_wyoming_streams_count_among_all_others(start: Any) -> None:
    server, port = start(capacity=1)

    async def conversation(client: AsyncTcpClient) -> None:
        await ask(client, [SynthesizeStart(), Ping()], "pong")
        async with AsyncTcpClient("127.0.0.1", port) as second:
            error = Error.from_event((await ask(second, [Synthesize("Hi.")], "error"))[0])
            assert error.code == "busy"
        events = await ask(client, [SynthesizeChunk("Hi."), SynthesizeStop()], STOPPED)
        assert len(samples(events))

    talk(port, conversation)
    assert server.service.metrics.failures.labels("internal")._value.get() == 0


def test_connections_are_counted_and_bounded(start: Any) -> None:
    server, port = start(limits=Limits(max_connections_per_client=1))

    async def conversation(client: AsyncTcpClient) -> None:
        await ask(client, [Ping()], "pong")
        assert len(server.service.sockets) == 1
        async with AsyncTcpClient("127.0.0.1", port) as second:
            assert "are open" in Error.from_event((await ask(second, [], "error"))[0]).text
            assert await second.read_event() is None

    talk(port, conversation)


@pytest.mark.parametrize("sent", [b"", b'{"type": "audio-chunk", "payload_length": 100}\nhalf'])
def test_who_says_nothing_more_is_hung_up_on(start: Any, sent: bytes) -> None:
    port = start(limits=Limits(idle_timeout_s=0.2))[1]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(sent)
        framer = Framer(1000, 0)
        framer.feed(b"".join(iter(lambda: client.recv(4096), b"")))
    error = framer.take()
    assert error is not None
    assert error.data["code"] == "idle_timeout"


def test_a_client_that_leaves_frees_its_slot(start: Any) -> None:
    server, port = start(capacity=1)

    async def leave(client: AsyncTcpClient) -> None:
        await ask(client, [SynthesizeStart(), SynthesizeChunk("Hello there"), Ping()], "pong")

    async def stay(client: AsyncTcpClient) -> None:
        while server.service.models["say"].active:
            await asyncio.sleep(0.01)
        await ask(client, [Synthesize("Hi.")], "audio-stop")

    talk(port, leave)
    talk(port, stay)


def test_a_server_that_goes_down_lets_a_recording_come_to_its_end(start: Any) -> None:
    server, port = start()

    async def conversation(client: AsyncTcpClient) -> None:
        await ask(client, [*recording(noise(16_000), 2)[:-1], Ping()], "pong")
        server.should_exit = True
        events = await ask(client, [], "error")
        assert Error.from_event(events[-1]).code == "shutting_down"
        assert "transcript-chunk" in [event.type for event in events]

    talk(port, conversation)
