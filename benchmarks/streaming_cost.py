"""What live recognition costs: compute per second of audio by policy and chunk size, and over long streams.

    python benchmarks/streaming_cost.py                        # policies side by side
    python benchmarks/streaming_cost.py --minutes 60           # cost and memory along one long stream
    python benchmarks/streaming_cost.py --streams 1 8 20 40    # streams in one batch, the adapter merged and beside

Every cell is CPU time of this process per second of audio, with the best of several turns, policies taking turns. No
figure is printed for a policy whose events depend on how the audio was cut into packets. The long stream is the sample
recording over and over; resident memory is that of the whole process.

Streams in a batch hear the same recording, each from another place on. An adapter that is merged into int8 weights and
the same one beside float32 weights take turns, on one thread and on all. No figure is printed where the first stream's
text depends on how many others there are, or where the two write different texts, but for one word in twenty.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from tqdm import tqdm

import loquent.speech
from loquent.asr import Recognizer
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.recipes.loop.error_rate import word_errors
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.engine import Engine
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
    parser.add_argument("--streams", type=int, nargs="+", help="compare so many streams in a batch instead")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = Recognizer.from_pretrained(options.model)
    audio = read_audio(options.audio or Path(loquent.speech.__file__).parent / "assets" / "sample.flac", RATE).samples
    if options.streams:
        share(recognizer, np.resize(audio, int(options.seconds * RATE)), options)
    elif options.minutes:
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


def share(recognizer: Recognizer, audio: np.ndarray, options: argparse.Namespace) -> None:
    """Print one row per number of threads and streams."""
    assert isinstance(recognizer, WhisperRecognizer)
    chunk, cells = options.chunks[0], list(itertools.product(sorted({1, options.threads}), options.streams))
    recognizer.streaming_task()  # puts the default adapter into the bank
    bank = recognizer.adapters
    default, bank.default = bank.default, None  # a task made now has nothing to merge
    assert default is not None
    tasks = {"beside": recognizer.streaming_task(policy="incremental", chunk_ms=chunk, vad=False)}
    bank.default = default
    tasks["merged"] = recognizer.streaming_task(policy="incremental", chunk_ms=chunk, vad=False)
    runs: dict[tuple[str, tuple[int, int]], list[Batch]] = {}
    for _, cell, (name, task) in tqdm(
        list(itertools.product(range(options.turns), cells, tasks.items())), disable=None
    ):
        torch.set_num_threads(cell[0])
        runs.setdefault((name, cell), []).append(batch_of(task, default, audio, cell[1], chunk))

    print(f"{options.model}, {chunk} ms, {len(audio) / RATE:.0f} s of speech in every stream")
    print(f"{'':>16} {'ms CPU per s of audio':^23} {'':>7} {'95% of steps within':^23}")
    print(f"{'threads':>7} {'streams':>8} {'beside':>11} {'merged':>11} {'':>7} {'beside':>11} {'merged':>11}")
    texts = {name: runs[name, cells[0]][0].text for name in tasks}
    for cell in cells:
        row, bests = f"{cell[0]:>7} {cell[1]:>8}", {}
        for name in tasks:
            mine = runs[name, cell]
            off = max(word_errors(text, one.text) for one in mine for text in texts.values())
            if off * 20 > len(texts[name]):
                print(f"{row} refused: {off} words of {name} differ")
                break
            bests[name] = min(one.cost_ms for one in mine), min(one.step_s for one in mine)
        else:
            (before, before_s), (now, now_s) = bests["beside"], bests["merged"]
            print(f"{row} {before:>11.0f} {now:>11.0f} {before / now:>6.1f}x {before_s:>9.2f} s {now_s:>9.2f} s")


class Batch(NamedTuple):
    """What a run of many streams took, and what the first one wrote."""

    cost_ms: float
    step_s: float
    text: list[str]


def batch_of(task: Any, adapter: str, audio: np.ndarray, streams: int, chunk: int) -> Batch:
    """Run streams in step, a chunk at a time."""
    engine = Engine(task, streams)
    sessions = [engine.open(adapter=adapter) for _ in range(streams)]
    heard = [np.roll(audio, 3701 * number) for number in range(streams)]
    steps_s, began = list[float](), time.process_time()
    for start in range(0, len(audio), chunk * RATE // 1000):
        for session, one in zip(sessions, heard, strict=True):
            session.feed(one[start : start + chunk * RATE // 1000])
        step = time.perf_counter()
        while engine.step():
            pass
        steps_s.append(time.perf_counter() - step)
    for session in sessions:
        session.end()
    while engine.step():
        pass
    cost_ms = 1000 * (time.process_time() - began) / (streams * len(audio) / RATE)
    words = [event.text.strip() for event in sessions[0].drain() if event.type == "word"]
    return Batch(cost_ms, float(np.percentile(steps_s, 95)), words)


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
