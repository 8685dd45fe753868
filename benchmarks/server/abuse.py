"""What other clients notice while some flood a server, leave connections half open, or ask for more than fits.

The server runs a model whose step takes a known time for each stream, so that what fits is known too::

    python benchmarks/server/abuse.py flood       # 9 s of 192 kHz audio, then messages of two bytes
    python benchmarks/server/abuse.py half-open   # 1000 requests that never end
    python benchmarks/server/abuse.py overload    # twice the streams that fit, one after the other or at once

While that goes on, one more client streams audio, and another asks for /health; the table tells how they fared, beside
how they fare on a server that is left in peace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import numpy as np
import torch

from loquent.speech.net.client import StreamError, connect
from loquent.speech.net.limits import Limits
from loquent.speech.nn.state import State
from loquent.speech.runtime.events import Event, Word
from loquent.speech.runtime.task import Port, Turn

RATE, CHUNK_S = 16_000, 0.2


@dataclass
class Heard(State):
    """How many steps a stream has made."""

    steps: torch.Tensor  # (S,) int64


@dataclass(frozen=True)
class NoOptions:
    """A stream of this model has none."""


@dataclass
class NoMemo:
    """Nothing is remembered."""

    def to_dict(self) -> dict[str, Any]:
        """Nothing."""
        return asdict(self)


class Known:
    """A word for every 0.2 s, at a known cost.

    Args:
        per_stream_s: time of a step for each stream in it, in seconds.
    """

    takes, gives = Port("audio", RATE), Port("text")
    fingerprint = "known cost"
    Options = NoOptions

    def __init__(self, per_stream_s: float) -> None:
        self.per_stream_s = per_stream_s

    def initial_state(self, slots: int) -> Heard:
        """No steps yet."""
        return Heard(torch.zeros(slots, dtype=torch.long))

    def start(self, options: NoOptions) -> NoMemo:
        """Nothing to choose."""
        return NoMemo()

    def restore(self, values: dict[str, Any]) -> NoMemo:
        """Nothing to restore."""
        return NoMemo()

    def configure(self, memo: NoMemo, options: NoOptions) -> None:
        """Nothing to change."""

    def wants(self, memo: NoMemo) -> int:
        """Samples of a chunk."""
        return round(CHUNK_S * RATE)

    def launch(self, inputs: Any, state: Heard, rows: torch.Tensor, memos: list[NoMemo]) -> Any:
        """Take the time."""
        time.sleep(self.per_stream_s * len(memos))
        state.steps[rows] += 1
        return state.steps[rows].tolist(), inputs.last.tolist()

    def read(self, pending: Any) -> list[Turn]:
        """A word for each stream."""
        return [
            Turn([Word(text=" x", start=0.0, end=step * CHUNK_S, confidence=1.0)], last)
            for step, last in zip(*pending, strict=True)
        ]

    def interrupt(self, memo: NoMemo, played_s: float | None = None) -> list[Event]:
        """It does not speak."""
        return []

    def end(self, memo: NoMemo) -> None:
        """Nothing to tidy up."""


def serve(port: int, per_stream_s: float, limits: Limits) -> None:
    """Run a server in this process."""
    from loquent.speech.net import server
    from loquent.speech.runtime.engine import Engine

    app = server.create_app({"known": Engine(Known(per_stream_s), capacity=128)}, limits)
    server.serve(app, port=port, log_level="error")


@contextlib.contextmanager
def running(per_stream_s: float, limits: Limits) -> Iterator[int]:
    """A server in another process: its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(port, per_stream_s, limits))
    process.start()
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.join()


async def play(port: int, seconds: float, lags: list[float]) -> str:
    """Stream in real time; returns how it ended."""
    listener = None
    try:
        async with connect(f"ws://127.0.0.1:{port}", sample_rate=RATE) as stream:
            listener = asyncio.create_task(listen(stream, begin := time.monotonic(), lags))
            for number in range(1, round(seconds * 10) + 1):
                await asyncio.sleep(max(0.0, begin + number / 10 - time.monotonic()))
                await stream.send(np.zeros(RATE // 10, np.int16))
            await stream.end()
            await listener
            return "done"
    except StreamError as error:
        return error.code
    finally:
        if listener is not None:
            await asyncio.gather(listener, return_exceptions=True)


async def listen(stream: AsyncIterator[Event], begin: float, lags: list[float]) -> None:
    """Time events against the moment at which their audio had been sent."""
    lags += [time.monotonic() - begin - event.emission_time async for event in stream]


async def ask(port: int, stop: asyncio.Event, answers: list[float]) -> None:
    """Ask for /health again and again."""
    async with httpx.AsyncClient() as client:
        while not stop.is_set():
            begin = time.monotonic()
            (await client.get(f"http://127.0.0.1:{port}/health", timeout=60)).raise_for_status()
            answers.append(time.monotonic() - begin)
            await asyncio.sleep(0.02)


async def flood(port: int, stop: asyncio.Event) -> str:
    """A long backlog, then tiny messages as fast as the server takes them."""
    sent = 0
    async with connect(f"ws://127.0.0.1:{port}", sample_rate=192_000) as stream:
        await stream.send(np.zeros(9 * 192_000, np.int16))
        while not stop.is_set():
            await stream.send(b"\0\0")
            sent += 1
            if sent % 50 == 0:
                await asyncio.sleep(0)
    return f"{sent} messages of two bytes"


async def half_open(port: int, stop: asyncio.Event) -> str:
    """A thousand requests that never end."""
    opened = []
    for _ in range(1000):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        opened.append((reader, writer))
    begin = time.monotonic()
    await asyncio.gather(*(reader.read() for reader, _ in opened))
    for _, writer in opened:
        writer.close()
    return f"1000 connections, all closed by the server {time.monotonic() - begin:.1f} s later"


async def peace(port: int, stop: asyncio.Event) -> str:
    """Nothing."""
    return ""


async def bystanders(port: int, abuse: Any, seconds: float) -> dict[str, Any]:
    """How a stream and /health fare during an abuse."""
    stop, lags, answers = asyncio.Event(), [], []
    asking, abusing = asyncio.create_task(ask(port, stop, answers)), asyncio.create_task(abuse(port, stop))
    ended = await play(port, seconds, lags)
    stop.set()
    said = await abusing
    await asking
    return {
        "stream": ended,
        "lag_median_s": statistics.median(lags),
        "lag_max_s": max(lags),
        "health_median_s": statistics.median(answers),
        "health_max_s": max(answers),
        "abuse": said,
    }


async def overload(port: int, streams: int, gap_s: float, seconds: float) -> dict[str, Any]:
    """More streams than fit: how those fare that are let in."""
    lags: list[list[float]] = [[] for _ in range(streams)]

    async def one(number: int) -> str:
        await asyncio.sleep(number * gap_s)
        return await play(port, seconds, lags[number])

    ends = await asyncio.gather(*map(one, range(streams)))
    inside = [lags[number] for number, end in enumerate(ends) if end == "done"]
    return {
        "asked": streams,
        **{end: ends.count(end) for end in sorted(set(ends))},
        "lag_median_s": statistics.median(lag for some in inside for lag in some),
        "lag_p95_s": float(np.percentile([lag for some in inside for lag in some], 95)),
        "lag_at_end_s": statistics.median(some[-1] for some in inside),
    }


def main() -> None:
    """Run one abuse, and print how others fared."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("abuse", choices=("flood", "half-open", "overload"))
    parser.add_argument("--seconds", type=float, default=12.0, help="of the stream that looks on")
    args = parser.parse_args()
    if args.abuse == "overload":
        fitting = 10
        for name, limits in (("admission off", Limits(max_load=1e9, max_lag_s=1e9)), ("admission on", Limits())):
            for order, gap_s in (("one after the other", 0.5), ("at once", 0.0)):
                with running(CHUNK_S / fitting, limits) as port:
                    print(name, order, asyncio.run(overload(port, 2 * fitting, gap_s, 2.5 * args.seconds)), flush=True)
        return
    limits = Limits(max_connections=5000, max_connections_per_client=None, head_timeout_s=5.0)
    for abuse in (peace, {"flood": flood, "half-open": half_open}[args.abuse]):
        with running(0.001, limits) as port:
            print(abuse.__name__, asyncio.run(bystanders(port, abuse, args.seconds)), flush=True)


if __name__ == "__main__":
    main()
