"""What live recognition costs: compute per second of audio by policy and chunk size, and over long streams.

    python benchmarks/streaming_cost.py                        # policies side by side
    python benchmarks/streaming_cost.py --minutes 60           # cost and memory along one long stream

Every cell is CPU time of this process per second of audio, with the best of several turns, policies taking turns. No
figure is printed for a policy whose events depend on how the audio was cut into packets. The long stream is the sample
recording over and over; resident memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from tqdm import tqdm

import loquent.speech
from loquent.asr import Recognizer
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.session import Session

RATE = 16_000
POLICIES = ("local-agreement", "alignatt", "incremental")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--audio", help="recording to stream; the sample that comes with loquent by default")
    parser.add_argument("--seconds", type=float, default=30, help="length of the stream that policies are compared on")
    parser.add_argument("--chunks", type=int, nargs="+", default=[300, 500, 1000], help="chunk sizes in ms")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="follow one stream of this length instead")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = Recognizer.from_pretrained(options.model)
    audio = read_audio(options.audio or Path(loquent.speech.__file__).parent / "assets" / "sample.flac", RATE).samples
    if options.minutes:
        for policy in options.policies:
            follow(recognizer, audio, policy, max(options.chunks), options.minutes)
    else:
        compare(recognizer, np.resize(audio, int(options.seconds * RATE)), options)


def compare(recognizer: Recognizer, audio: np.ndarray, options: argparse.Namespace) -> None:
    """Print one row per policy and chunk size."""
    cells = list(itertools.product(options.chunks, options.policies))
    costs: dict[tuple[int, str], list[float]] = {cell: [] for cell in cells}
    encoder_costs: dict[tuple[int, str], list[float]] = {cell: [] for cell in cells}
    texts: dict[tuple[int, str], set[str]] = {cell: set() for cell in cells}
    for turn, (chunk, policy) in tqdm(list(itertools.product(range(options.turns), cells)), disable=None):
        session = recognizer.session(policy=policy, chunk_ms=chunk, vad=False)
        spent = time_calls(next(session.engine.task.networks.of_streams([0], [session.memo]))[0].encoding, "encode")
        events, began = [], time.process_time()
        for packet in packets(audio, (1600, 7001)[turn % 2]):
            events += session.push(packet)
        events += session.finish()
        costs[chunk, policy].append((time.process_time() - began) / (len(audio) / RATE))
        encoder_costs[chunk, policy].append(sum(spent) / (len(audio) / RATE))
        texts[chunk, policy].add(str([(e.emission_time, e.text) for e in events if e.type == "word"]))

    width, seconds = recognizer.model.config.n_audio_state, len(audio) / RATE
    print(f"{width}-wide model, {options.threads} threads, {seconds:.0f} s of speech")
    print(f"{'':>26} {'ms CPU per s of audio':^28} {'against incremental':^21}")
    print(f"{'chunk':>7}  {'policy':<17} {'encoder':>13} {'in all':>14} {'encoder':>10} {'in all':>10}")
    for chunk, policy in cells:
        if len(texts[chunk, policy]) > 1:
            print(f"{chunk:>4} ms  {policy:<17} refused: the text depends on the packets")
            continue
        row = f"{chunk:>4} ms  {policy:<17}"
        for width, of in ((13, encoder_costs), (14, costs)):
            row += f" {1000 * min(of[chunk, policy]):>{width}.0f}"
        for of in (encoder_costs, costs):
            row += f" {min(of[chunk, policy]) / min(of.get((chunk, 'incremental'), [float('nan')])):>9.1f}x"
        print(row)


def time_calls(owner: object, name: str) -> list[float]:
    """Have the CPU seconds of every call of a method appended to the list returned."""
    method, spent = getattr(owner, name), []

    def timed(*args: object) -> object:
        began = time.process_time()
        result = method(*args)
        spent.append(time.process_time() - began)
        return result

    setattr(owner, name, timed)
    return spent


def follow(recognizer: Recognizer, audio: np.ndarray, policy: str, chunk: int, minutes: float) -> None:
    """Print cost and memory at ten points of one long stream."""
    session = recognizer.session(policy=policy, chunk_ms=chunk)
    process, step = psutil.Process(), minutes * 60 / 12
    print(f"{policy}, {chunk} ms, {session.nbytes / 1e6:.1f} MB of state")
    print(f"{'minute':>7} {'ms CPU per s of audio':>22} {'resident MB':>12} {'state MB':>9} {'words':>7}")
    source = itertools.chain.from_iterable(packets(audio, 4800) for _ in itertools.count())
    words = 0
    for part in range(12):
        began = time.process_time()
        words += sum(event.type == "word" for event in feed(session, source, step))
        cost = 1000 * (time.process_time() - began) / step
        memory = process.memory_info().rss / 1e6
        print(f"{(part + 1) * step / 60:>7.1f} {cost:>22.1f} {memory:>12.1f} {session.nbytes / 1e6:>9.1f} {words:>7}")
        sys.stdout.flush()
    session.finish()


def feed(session: Session, source: Iterator[np.ndarray], seconds: float) -> Iterator[object]:
    """Push that much audio and yield the events."""
    end = session.inbox.seconds + seconds
    with tqdm(total=round(seconds), unit="s", leave=False, disable=None) as bar:
        while session.inbox.seconds < end:
            yield from session.push(next(source))
            bar.update(round(session.inbox.seconds - end + seconds) - bar.n)


def packets(audio: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The audio in packets of ``size`` samples."""
    for start in range(0, len(audio), size):
        yield audio[start : start + size]


if __name__ == "__main__":
    main()
