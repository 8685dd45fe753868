"""The model that comes with loquent: what it hears in its sample, from a file, as a stream and over a websocket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from loquent.asr.conformer.recognizer import ConformerRecognizer
from loquent.asr.recognizer import Recognizer
from loquent.speech.audio.files import read_audio
from loquent.speech.hub import resolve
from loquent.speech.net.client import connect
from loquent.speech.net.server import Server, create_app
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event

FOLDER = resolve("loquent/commands").path
ORDERS = (FOLDER / "sample.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def recognizer() -> ConformerRecognizer:
    return Recognizer.from_pretrained("loquent/commands", threads=1)


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return read_audio(FOLDER / "sample.flac", 16_000).samples


@pytest.fixture(scope="module")
def url(recognizer: ConformerRecognizer) -> Iterator[str]:
    """A server of the model, in a thread."""
    app = create_app({"loquent/commands": Engine(recognizer.streaming_task(head="ctc"), capacity=4)})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(app, log_level="error")
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def finals(events: list[Event]) -> list[str]:
    return [event.text for event in events if event.type == "final"]


def test_it_is_small_and_says_what_it_is():
    checkpoint = resolve("loquent/commands")
    assert checkpoint.size < 30e6
    assert checkpoint.licence


@pytest.mark.parametrize("chunk_ms", [160, 560])
def test_orders_and_digits_are_heard(recognizer, audio, chunk_ms):
    found = [segment.text for segment in recognizer.transcribe(audio, head="ctc", chunk_ms=chunk_ms).segments]
    assert found == ORDERS
    found = [segment.text for segment in recognizer.transcribe(audio, head="transducer", chunk_ms=chunk_ms).segments]
    assert found == ORDERS


def test_words_come_while_they_are_spoken(recognizer, audio):
    session = recognizer.session(chunk_ms=160, head="ctc")
    words = [event for event in session.push(audio) + session.finish() if event.type == "word"]
    assert "".join(word.text for word in words).split() == " ".join(ORDERS).split()
    # A word is told when the next one begins: within a few chunks, but for those before a pause.
    assert np.median([word.emission_time - word.end for word in words]) < 0.6
    assert all(0 <= word.confidence <= 1 for word in words)


def test_the_server_gives_what_a_session_gives(recognizer, audio, url):
    """Two clients of different latencies, one of which changes it under way, share the engine's steps."""

    async def client(chunk_ms: int, later_ms: int) -> list[Event]:
        async with connect(url, sample_rate=16_000, chunk_ms=chunk_ms) as stream:
            await stream.send(audio[: len(audio) // 2])
            await stream.configure(chunk_ms=later_ms)
            await stream.send(audio[len(audio) // 2 :])
            return await stream.finish()

    async def both() -> list[list[Event]]:
        return await asyncio.gather(client(160, 160), client(560, 160))

    quick, changing = asyncio.run(both())
    session = recognizer.session(chunk_ms=160, head="ctc")
    alone = session.push(audio) + session.finish()
    assert finals(quick) == finals(alone) == ORDERS
    assert finals(changing) == ORDERS
    times = [(e.text, round(e.start, 3), round(e.emission_time, 3)) for e in alone if e.type == "word"]
    assert [(e.text, round(e.start, 3), round(e.emission_time, 3)) for e in quick if e.type == "word"] == times
