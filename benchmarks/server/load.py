"""Load on a server: how late are the events of N concurrent streams, and what does the server need for them?

Starts ``loquent serve`` (or takes ``--url`` of a server that runs), and plays recordings to it in N streams that begin
one after the other::

    python benchmarks/server/load.py talk.wav --streams 20 --seconds 60
    python benchmarks/server/load.py talk.wav --streams 4 --seconds 7200 --speed 20 --soak 30

The lag of an event is the time of its receipt minus the time at which the last sample it needed was sent (its
``emission_time`` tells which): what network, queueing and computing cost. The delay of a word is counted from the end
of the word itself: it has the chunk, look-ahead and caution of the model in it too.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from loquent.speech.audio.files import read_audio, to_pcm16
from loquent.speech.net.client import ClientStream, StreamError, connect
from loquent.speech.runtime.events import Word

RATE = 16_000


@dataclass
class Record:
    """What one stream saw."""

    lags_s: list[float] = field(default_factory=list)
    word_delays_s: list[float] = field(default_factory=list)
    first_event_s: float | None = None  # after its first packet
    audio_s: float = 0.0
    error: str | None = None


@dataclass
class Usage:
    """What the server's process used."""

    cpu_s: float = 0.0
    peak_mb: float = 0.0
    samples_mb: list[tuple[float, float]] = field(default_factory=list)  # (seconds of audio of the first stream, MB)


def main() -> None:
    """Run the load and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="recordings; stream i begins with the i-th")
    parser.add_argument("--streams", type=int, nargs="+", default=[20], help="one run for each number")
    parser.add_argument("--seconds", type=float, default=60.0, help="audio per stream")
    parser.add_argument("--speed", type=float, default=1.0, help="1: real time; 0: as fast as the server takes it")
    parser.add_argument("--packet-ms", type=float, default=100.0)
    parser.add_argument("--stagger-s", type=float, default=5.0, help="time over which the streams begin, at --speed 1")
    parser.add_argument("--soak", type=float, default=0.0, metavar="S", help="print the server's memory every S s")
    parser.add_argument("--url", help="of a running server; else one is started")
    parser.add_argument("--serve", default="serve", help="arguments of loquent for the server to start, without --port")
    parser.add_argument("--options", type=json.loads, default={}, help="of the streams, as a JSON object")
    parser.add_argument("--json", type=Path, help="also write the results there")
    args = parser.parse_args()

    recordings = [to_pcm16(read_audio(path, RATE).samples) for path in args.files]
    results = []
    with running_server(args) as (url, process):
        for streams in args.streams:
            results.append(asyncio.run(load(url, process, recordings, streams, args)))
            print_table(results)
    if args.json:
        args.json.write_text(json.dumps({"arguments": {k: str(v) for k, v in vars(args).items()}, "results": results}))


@contextlib.contextmanager
def running_server(args: argparse.Namespace) -> Iterator[tuple[str, psutil.Process | None]]:
    """A server that is ready: its URL and, if it is ours, its process."""
    if args.url:
        yield args.url, None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "loquent.speech", *shlex.split(args.serve), "--port", str(port)]
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        try:
            while True:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with status {process.returncode}: {shlex.join(command)}")
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"ws://127.0.0.1:{port}/v1/stream", psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


async def load(
    url: str, process: psutil.Process | None, recordings: list[np.ndarray], streams: int, args: argparse.Namespace
) -> dict[str, object]:
    """Play all streams to their end; returns the row of the table."""
    records = [Record() for _ in range(streams)]
    usage = Usage()
    begin, cpu = time.monotonic(), cpu_seconds(process)
    gap_s = args.stagger_s / max(args.speed, 1.0) / streams
    with tqdm(total=round(streams * args.seconds), unit="s", desc=f"{streams} streams", file=sys.stderr) as bar:
        watcher = asyncio.create_task(watch(process, usage, records[0], args.soak))
        players = [
            play(url, looped(recordings, index, args), records[index], index * gap_s, args, bar)
            for index in range(streams)
        ]
        await asyncio.gather(*players)
        watcher.cancel()
    wall_s = time.monotonic() - begin
    lags = np.array([lag for record in records for lag in record.lags_s] or [np.nan])
    delays = np.array([delay for record in records for delay in record.word_delays_s] or [np.nan])
    firsts = [record.first_event_s for record in records if record.first_event_s is not None]
    audio_s = sum(record.audio_s for record in records)
    errors = sorted({record.error for record in records if record.error})
    for error in errors:
        tqdm.write(f"failed: {error}", file=sys.stderr)
    return {
        "streams": streams,
        "failed": sum(record.error is not None for record in records),
        "events": int(np.isfinite(lags).sum()),
        "words": len(delays),
        "lag_median_s": float(np.median(lags)),
        "lag_p95_s": float(np.percentile(lags, 95)),
        "lag_p99_s": float(np.percentile(lags, 99)),
        "word_delay_median_s": float(np.median(delays)),
        "word_delay_p95_s": float(np.percentile(delays, 95)),
        "first_event_median_s": float(np.median(firsts)) if firsts else float("nan"),
        "audio_per_wall": audio_s / wall_s,
        "server_cores": (cpu_seconds(process) - cpu) / wall_s,
        "server_peak_mb": usage.peak_mb,
        "memory_mb": usage.samples_mb,
        "errors": errors,
    }


def looped(recordings: list[np.ndarray], index: int, args: argparse.Namespace) -> Iterator[np.ndarray]:
    """Packets of one stream: the recordings over and over, from the index-th on."""
    packet, left = round(args.packet_ms * RATE / 1000), round(args.seconds * RATE)
    while left:
        recording = recordings[index % len(recordings)]
        index += 1
        for start in range(0, len(recording), packet):
            block = recording[start : start + packet][:left]
            left -= len(block)
            yield block
            if not left:
                return


async def play(
    url: str, packets: Iterator[np.ndarray], record: Record, delay_s: float, args: argparse.Namespace, bar: tqdm
) -> None:
    """One stream: send at its pace, and time what comes back."""
    await asyncio.sleep(delay_s)
    ends: list[float] = []  # seconds of audio sent after each packet, and when that was
    times: list[float] = []
    try:
        async with connect(url, sample_rate=RATE, **args.options) as stream:
            listener = asyncio.create_task(listen(stream, record, ends, times))
            begin = time.monotonic()
            for packet in packets:
                record.audio_s += len(packet) / RATE
                if args.speed:  # a packet is there once its last sample has been recorded
                    await asyncio.sleep(max(0.0, begin + record.audio_s / args.speed - time.monotonic()))
                ends.append(record.audio_s)
                times.append(time.monotonic())
                await stream.send(packet)
                bar.update(len(packet) / RATE)
            await stream.end()
            await listener
    except StreamError as error:
        record.error = f"{error.code}: {error}"


async def listen(stream: ClientStream, record: Record, ends: list[float], times: list[float]) -> None:
    """Time every event against the packet that completed what it needed, words also against their end."""

    def sent(position_s: float) -> float:
        return times[min(bisect.bisect_left(ends, position_s - 1e-3), len(times) - 1)]

    async for event in stream:
        now = time.monotonic()
        record.lags_s.append(now - sent(event.emission_time))
        if isinstance(event, Word):
            record.word_delays_s.append(now - sent(event.end))
        if record.first_event_s is None:
            record.first_event_s = now - times[0]


async def watch(process: psutil.Process | None, usage: Usage, first: Record, soak_s: float) -> None:
    """Sample the server's resident memory."""
    if process is None:
        return
    due = 0.0
    while True:
        memory_mb = process.memory_info().rss / 2**20
        usage.peak_mb = max(usage.peak_mb, memory_mb)
        if soak_s and time.monotonic() >= due:
            due = time.monotonic() + soak_s
            usage.samples_mb.append((round(first.audio_s, 1), round(memory_mb, 1)))
            tqdm.write(f"{first.audio_s:9.0f} s of audio  {memory_mb:8.1f} MB resident", file=sys.stderr)
        await asyncio.sleep(0.5)


def cpu_seconds(process: psutil.Process | None) -> float:
    """User and system time of the server so far."""
    if process is None:
        return float("nan")
    times = process.cpu_times()
    return times.user + times.system


COLUMNS = {
    "streams": "d",
    "failed": "d",
    "events": "d",
    "words": "d",
    "lag_median_s": ".3f",
    "lag_p95_s": ".3f",
    "lag_p99_s": ".3f",
    "word_delay_median_s": ".2f",
    "word_delay_p95_s": ".2f",
    "first_event_median_s": ".2f",
    "audio_per_wall": ".2f",
    "server_cores": ".2f",
    "server_peak_mb": ".0f",
}


def print_table(results: list[dict]) -> None:
    """One row per number of streams."""
    print("  ".join(COLUMNS))
    for row in results:
        print("  ".join(f"{row[name]:{style}}".rjust(len(name)) for name, style in COLUMNS.items()), flush=True)


if __name__ == "__main__":
    main()
