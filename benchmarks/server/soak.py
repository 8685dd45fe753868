"""A server under a mixture of everything for a long time: does its memory stay flat, and its answers the same?

Starts ``loquent serve`` with a recogniser, a translator and a voice. Clients then recognise, interpret, speak, upload
recordings, ask for speech over HTTP, and hang up in the middle, over and over::

    python benchmarks/server/soak.py speech/assets/sample.flac --minutes 30

Every minute it prints the server's resident memory and how much was done. A client whose result is not that of the
first time ends the run with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import psutil
from load import RATE, running_server

from loquent.speech.audio.files import read_audio, to_pcm16
from loquent.speech.net.client import ClientStream, ServerBusy, connect
from loquent.speech.runtime.events import Event, Final, Speech, Translation

PACKET = RATE // 10
TEXT = "The train leaves from platform four at a quarter past nine. Please mind the gap."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a recording of speech")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=1, help="of each kind")
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="how often memory is printed")
    parser.add_argument("--to", default="es", metavar="LANGUAGE", help="that is interpreted into")
    parser.add_argument("--serve", default="serve --translate --threads 1", help="arguments of loquent, without --port")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    args = parser.parse_args()

    with running_server(args) as (url, process):
        assert process is not None
        asyncio.run(Soak(url, process, args).run())


class Refused(Exception):
    """The server has no room at this time."""


class Soak:
    """The clients, what they have done, and the memory that it took."""

    def __init__(self, url: str, process: psutil.Process, args: argparse.Namespace) -> None:
        self.url, self.process, self.args = url, process, args
        self.http = url.replace("ws://", "http://").removesuffix("/v1/stream")
        self.samples, self.whole = to_pcm16(read_audio(args.file, RATE).samples), args.file.read_bytes()
        self.done = Counter[str]()
        self.first: dict[str, object] = {}
        self.memory_mb: list[float] = []

    async def run(self) -> None:
        """All clients until the time is up."""
        kinds = (self.recognise, self.interpret, self.speak, self.upload, self.ask_for_speech, self.hang_up)
        clients = [self.again(kind) for kind in kinds for _ in range(self.args.clients)]
        async with httpx.AsyncClient(base_url=self.http, timeout=120) as self.client:
            models = (await self.client.get("/v1/models")).json()["data"]
            self.voice = next(model["id"] for model in models if model["id"] in ("loquent/hibari", "loquent/voice"))
            watching = asyncio.create_task(self.watch())
            try:
                async with asyncio.timeout(60 * self.args.minutes), asyncio.TaskGroup() as group:
                    for client in clients:
                        group.create_task(client)
            except TimeoutError:
                pass
            watching.cancel()
        half = self.memory_mb[len(self.memory_mb) // 2 :]
        hours = self.args.every * (len(half) - 1) / 3600
        slope = float(np.polyfit(np.linspace(0, hours, len(half)), half, 1)[0]) if len(half) > 2 else float("nan")
        print(f"second half: {slope:+.1f} MB an hour, from {half[0]:.0f} to {half[-1]:.0f} MB")

    async def again(self, kind: Callable[[], Awaitable[object]]) -> None:
        """One kind of client, over and over; what it gets is what it got first."""
        while True:
            try:
                result = await kind()
            except Refused:
                self.done["refused"] += 1
                await asyncio.sleep(5)
                continue
            if self.first.setdefault(kind.__name__, result) != result:
                raise SystemExit(f"{kind.__name__}: got {result!r}, and the first time {self.first[kind.__name__]!r}")
            self.done[kind.__name__] += 1

    async def recognise(self) -> str:
        """A stream in real time."""
        async with self.stream(sample_rate=RATE) as stream:
            reading = self.events(stream)
            await self.play(stream)
            await stream.end()
            return "".join(event.text for event in await reading if isinstance(event, Final))

    async def interpret(self) -> str:
        """A stream in real time, in a second language."""
        async with self.stream(sample_rate=RATE, translate_to=self.args.to) as stream:
            reading = self.events(stream)
            await self.play(stream)
            await stream.end()
            return "".join(event.text for event in await reading if isinstance(event, Translation))

    async def speak(self) -> int:
        """Text, word by word; the number of samples that came back."""
        async with self.stream(model=self.voice) as stream:
            reading = self.events(stream)
            for word in TEXT.split():
                await stream.write(word + " ")
            await stream.end()
            return sum(len(event.samples) for event in await reading if isinstance(event, Speech))

    async def upload(self) -> str:
        """A recording over HTTP."""
        return (
            await self.post("/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": self.whole})
        ).text

    async def ask_for_speech(self) -> int:
        """Speech over HTTP."""
        body = {"model": self.voice, "voice": "alloy", "input": TEXT, "response_format": "pcm"}
        return len((await self.post("/v1/audio/speech", json=body)).content)

    async def hang_up(self) -> None:
        """A client that vanishes in the middle of a word."""
        async with self.stream(sample_rate=RATE) as stream:
            await self.play(stream, seconds=1.7)

    @contextlib.asynccontextmanager
    async def stream(self, **options) -> AsyncIterator[ClientStream]:
        """A stream, if the server is not busy."""
        try:
            async with connect(self.url, **options) as stream:
                yield stream
        except ServerBusy as error:
            raise Refused from error

    async def play(self, stream: ClientStream, seconds: float = np.inf) -> None:
        """The recording in real time."""
        begin = time.monotonic()
        for end in itertools.takewhile(lambda end: end < seconds * RATE, range(0, len(self.samples), PACKET)):
            await asyncio.sleep(max(0.0, begin + end / RATE - time.monotonic()))
            await stream.send(self.samples[end : end + PACKET])

    def events(self, stream: ClientStream) -> asyncio.Task[list[Event]]:
        """Reads all that a stream says; whoever sends meets the same error."""

        async def read() -> list[Event]:
            return [event async for event in stream]

        reading = asyncio.create_task(read())
        reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return reading

    async def post(self, path: str, **body) -> httpx.Response:
        """A request that has to succeed."""
        response = await self.client.post(path, **body)
        if response.status_code in (429, 503):
            raise Refused
        if response.is_error:
            raise SystemExit(f"{path}: {response.status_code} {response.text}")
        return response

    async def watch(self) -> None:
        """Print memory and counts."""
        begin = time.monotonic()
        while True:
            self.memory_mb.append(self.process.memory_info().rss / 2**20)
            did = ", ".join(f"{count} {name}" for name, count in sorted(self.done.items()))
            print(f"{(time.monotonic() - begin) / 60:5.1f} min {self.memory_mb[-1]:7.0f} MB  {did}", flush=True)
            await asyncio.sleep(self.args.every)


if __name__ == "__main__":
    sys.exit(main())
