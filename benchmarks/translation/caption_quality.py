"""What live captions in another language give: quality, delay and stability over recordings, and over a long talk.

    LOQUENT_DATA=… python benchmarks/translation/caption_quality.py en es --translator loquent/en-es
    LOQUENT_DATA=… python benchmarks/translation/caption_quality.py es en --systems base:policy=alignatt
    LOQUENT_DATA=… python benchmarks/translation/caption_quality.py en es --talk 10    # clips in a row, ten minutes

The speech is that of LOQUENT_DATA, with the translations that come with it: telephone prompts, and lines of games.
It comes in packets of 100 ms. A system is a recogniser with its options; `transcript` is what the data says, a word at
the time at which it ends, if each letter takes as long as the others. Without a translator the recogniser translates.

BLEU and chrF do not tell upper from lower case. Delays are in seconds. For those with "_CA" the CPU time of this
process counts, as if audio came in real time: what is too slow falls behind more and more. *CPU* is seconds of it for
each second of speech. Of a talk, the last table tells the CPU time of each minute, and how late packets were done.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from tqdm import tqdm

from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance, read_manifest
from loquent.speech.runtime.events import Event
from loquent.speech.runtime.stream import Stream
from loquent.speech.text.words import Text
from loquent.translate.score import Instance, Recorder, Segment, score, score_streams, table
from loquent.translate.spoken.interpretation import TRANSLATE
from loquent.translate.spoken.interpreter import Interpreter
from loquent.translate.translator import Translator

SETS = {"en": ("asterisk_prompts", "game_bass_en", "game_drascula_en"), "es": ("asterisk_prompts", "game_drascula_es")}
SYSTEMS = ["transcript", "tiny.en:policy=incremental", "tiny.en:policy=local-agreement", "tiny.en:policy=alignatt"]
PACKET_S = 0.1
PAUSE_S = 0.3, 1.0  # between the clips of a talk
SHOWN = ("BLEU", "chrF", "start", "LAAL", "StreamLAAL", "LAAL_CA", "StreamLAAL_CA", "NE", "empty", "CPU")


class Clip(NamedTuple):
    """A recording with its text and its translation."""

    samples: np.ndarray
    text: str
    translation: str

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class Run(NamedTuple):
    """What a system made of a recording; for each packet, the CPU seconds, and how late it was done."""

    instance: Instance
    cpu_s: list[float]
    behind_s: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", choices=SETS)
    parser.add_argument("target")
    parser.add_argument("--translator", help="model between the two languages; without one, the recogniser translates")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="of the translator's streams")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="of recordings")
    parser.add_argument("--limit", type=int, default=40, help="recordings of each set, chosen at random, always alike")
    parser.add_argument("--talk", type=float, metavar="MINUTES", help="recordings of all sets in a row")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    opened = {name: opener(name, options) for name in options.systems}
    sets = {name: clips(name, options) for name in options.sets or SETS[options.source]}
    if options.talk is not None:
        whole_talk(opened, list(itertools.chain(*sets.values())), options.talk)
        return
    for name, chosen in sets.items():
        figures, duration_s = {}, sum(clip.duration_s for clip in chosen)
        for system, start in opened.items():
            runs = [run(start(), clip) for clip in tqdm(chosen, f"{name} {system}")]
            figures[system] = score([one.instance for one in runs]) | cost(runs, duration_s)
        print(f"\n{name}: {len(chosen)} recordings, {duration_s / 60:.1f} minutes")
        print(table({system: shown(values) for system, values in figures.items()}, "s"), flush=True)


def clips(name: str, options: argparse.Namespace) -> list[Clip]:
    """Recordings of one to fifteen seconds that are not for training."""
    rows = read_manifest(Path(os.environ["LOQUENT_DATA"]) / "speech" / f"{name}.zip", split="eval")
    spoken = {(row.extra.get("prompt"), row.language): row.text for row in rows}

    def translation(row: Utterance) -> str | None:
        other: str | None = row.extra.get("translations", {}).get(options.target)
        return other or spoken.get((row.extra.get("prompt") or "", options.target))

    fit = [
        (row, text)
        for row in rows
        if row.language == options.source and 1.0 <= row.duration <= 15.0 and (text := translation(row)) is not None
    ]
    random.Random(1).shuffle(fit)
    return [Clip(row.samples(), row.text, text) for row, text in fit[: options.limit]]


def opener(system: str, options: argparse.Namespace) -> Callable[[], Stream]:
    """Opens streams of a system."""
    name, _, rest = system.partition(":")
    if name == "transcript":
        translator = Translator.from_pretrained(options.translator, threads=options.threads)
        return lambda: translator.session(**options.options)
    given = [part.split("=") for part in rest.split(",") if part]
    streaming = {key: json.loads(value) if value[:1].isdigit() else value for key, value in given}
    source = None if options.translator else options.source
    interpreter = Interpreter.from_pretrained(
        name, options.translator, source=source, threads=options.threads, streaming=streaming
    )
    return lambda: interpreter.session(sample_rate=SAMPLE_RATE, **options.options)


def run(stream: Stream, clip: Clip) -> Run:
    """Let a recording come in packets, as if live."""
    recorder = Recorder("s", stage=TRANSLATE if stream.takes.kind == "audio" else "")
    cpu_s, behind_s, now = list[float](), list[float](), 0.0
    for arrival, events_of in packets(stream, clip):
        begin = time.process_time()
        events = events_of()
        computed = time.process_time() - begin
        recorder.take(events, at=arrival, computed=computed)
        now = max(now, arrival) + computed
        cpu_s.append(computed)
        behind_s.append(now - arrival)
    instance = recorder.instance(clip.duration_s, clip.translation.lower(), clip.text)
    return Run(dataclasses.replace(instance, prediction=instance.prediction.lower()), cpu_s, behind_s)


def packets(stream: Stream, clip: Clip) -> Iterator[tuple[float, Callable[[], list[Event]]]]:
    """When each packet is there, and what gives it to the stream."""
    size = round(PACKET_S * SAMPLE_RATE)
    if stream.takes.kind == "audio":
        for begin in range(0, len(clip.samples), size):
            packet = clip.samples[begin : begin + size]
            yield (begin + len(packet)) / SAMPLE_RATE, lambda packet=packet: stream.push(packet)
    else:
        letters, said, count = len(clip.text.replace(" ", "")), clip.text.split(), 0
        for word in said:
            count += len(word)
            end_s = clip.duration_s * count / letters
            yield end_s, lambda word=word, end_s=end_s: stream.push(Text(f"{word} ", end_s))
    yield clip.duration_s, stream.finish


def whole_talk(opened: dict[str, Callable[[], Stream]], chosen: list[Clip], minutes: float) -> None:
    """All systems on one talk of so many minutes."""
    rng, parts, segments, texts, size = random.Random(0), list[np.ndarray](), list[Segment](), list[str](), 0
    rng.shuffle(chosen)
    for clip in itertools.cycle(chosen):
        if size >= minutes * 60 * SAMPLE_RATE:
            break
        segments.append(Segment(clip.translation.lower(), size / SAMPLE_RATE, clip.duration_s))
        texts.append(clip.text)
        parts += [clip.samples, np.zeros(round(rng.uniform(*PAUSE_S) * SAMPLE_RATE), np.float32)]
        size += len(parts[-2]) + len(parts[-1])
    talk = Clip(np.concatenate(parts), " ".join(texts), " ".join(segment.text for segment in segments))
    figures, times = {}, dict[str, list[str]]()
    for system, start in opened.items():
        if system == "transcript":
            continue  # its times are those of the words within a clip
        resident = psutil.Process().memory_info().rss
        done = run(start(), talk)
        grown = psutil.Process().memory_info().rss - resident
        figures[system] = score_streams([(done.instance, segments)]) | cost([done], talk.duration_s)
        per_minute = round(60 / PACKET_S)
        times[system] = [
            f"{sum(done.cpu_s[at : at + per_minute]):.1f} s, {max(done.behind_s[at : at + per_minute]):.2f} s"
            for at in range(0, len(done.cpu_s), per_minute)
        ]
        times[system].append(f"memory grew by {grown / 2**20:.0f} MB")
    print(f"\na talk of {talk.duration_s / 60:.1f} minutes, {len(segments)} recordings")
    print(table({system: shown(values) for system, values in figures.items()}, "s"))
    print("\nCPU time of each minute, and the most that a packet was done after it came:")
    for system, cells in times.items():
        print(f"{system}: {'; '.join(cells)}")


def cost(runs: list[Run], duration_s: float) -> dict[str, float]:
    """CPU seconds for each second of speech, and seconds to the first word."""
    first = [one.instance.delays[0] for one in runs if one.instance.delays]
    figures = {"CPU": sum(sum(one.cpu_s) for one in runs) / duration_s}
    return figures | ({"start": sum(first) / len(first)} if len(runs) > 1 and first else {})


def shown(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in SHOWN if name in values}


if __name__ == "__main__":
    main()
