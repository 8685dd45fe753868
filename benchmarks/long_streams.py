"""Long streams: is a word lost or doubled where one window of Whisper hands over to the next, and what does noise say?

    LOQUENT_DATA=… python benchmarks/long_streams.py speech --minutes 10
    LOQUENT_DATA=… python benchmarks/long_streams.py noise --minutes 60

*speech*: recordings of the evaluation split one after the other without a pause, as one stream without voice activity
detection, so that nothing but a full window ends a segment. The text is compared with that of the same recordings in
streams of their own, whose windows never fill, and with the offline transcript of each. Words within five seconds of a
hand-over count apart: there the error must not be higher than elsewhere.

*noise*: silence, hiss, tones and chords, and the recordings of `noise/*.zip`, with voice activity detection as users
have it, and without. Of the recordings only those that no adapter was trained with. Whatever is written is a
hallucination.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from text_normalizer import normalize_english
from tqdm import tqdm

from loquent.asr import Recognizer
from loquent.asr.emission.edit_distance import align_sequences
from loquent.recipes.data.augment import colored_noise
from loquent.recipes.data.manifest import Utterance, read_manifest, select
from loquent.recipes.whisper.evaluation import streamed
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Word

RATE = 16_000
NEAR_S = 5.0  # how far a hand-over reaches: the audio that two windows share
KEPT_BACK = "*/5-*"  # as in recipes/configs/causal_tiny_en.yaml
SETS = ("ljspeech_mini", "misc_en", "speechocean762")


@dataclass(frozen=True)
class Heard:
    """A word and when it was said, in seconds of the stream."""

    text: str
    time_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speech", "noise"))
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--policy", default="incremental")
    parser.add_argument("--chunk-ms", type=int, default=300)
    parser.add_argument("--block-ms", type=int, help="see StreamingOptions")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = Recognizer.from_pretrained(options.model)
    data = Path(os.environ.get("LOQUENT_DATA", "../shared/data"))
    if options.what == "speech":
        speech(recognizer, data, options)
    else:
        for vad in (True, False):
            noise(recognizer, data, options, vad)


def _task(recognizer: Recognizer, options: argparse.Namespace, vad: bool) -> Any:
    asked = {"policy": options.policy, "chunk_ms": options.chunk_ms, "block_ms": options.block_ms}
    return recognizer.streaming_task(**asked, vad=vad, language="en")


def speech(recognizer: Recognizer, data: Path, options: argparse.Namespace) -> None:
    """Compare one long stream with its parts."""
    rows = _rows(data / "speech", 60 * options.minutes)
    clips = [row.samples() for row in rows]
    starts = np.cumsum([0, *(len(clip) / RATE for clip in clips)])
    task = _task(recognizer, options, vad=False)
    session = Engine(task).open()
    events: list[Event] = []
    for clip in tqdm(clips, desc="stream", file=sys.stderr):
        events += session.push(clip)
    events += session.finish()
    long = _words(events)
    handovers = [event.end for event in events if event.type == "final"][:-1]

    parts: list[Heard] = []
    for number, found in sorted(streamed(task, rows)):
        parts += [Heard(word.text, starts[number] + word.time_s) for word in _words(found)]
    offline: list[Heard] = []
    for number, transcript in enumerate(recognizer.transcribe_files(clips, beam_size=1, language="en")):
        words = normalize_english(transcript.text).split()  # spread evenly: enough to tell what is near a hand-over
        duration = len(clips[number]) / RATE
        offline += [Heard(word, starts[number] + duration * (at + 0.5) / len(words)) for at, word in enumerate(words)]
    print(f"{starts[-1] / 60:.1f} minutes, {len(handovers)} hand-overs, {len(long)} words; {options.chunk_ms} ms")
    print(f"{'words in 100':40}{'lost':>8}{'added':>8}{'other':>8}")
    for name, reference in (("streams of their own", parts), ("offline", offline)):
        for place, near in (("near a hand-over", True), ("elsewhere", False)):
            counts, total = _differences(long, reference, handovers, near)
            print(f"{f'against {name}, {place} ({total})':40}" + "".join(f"{100 * n / total:8.1f}" for n in counts))
    said = {time for words in (parts, offline) for _, time in _doubled(words)}
    doubled = [
        (word, round(time))
        for word, time in _doubled(long)
        if any(abs(time - one) <= NEAR_S for one in handovers) and not any(abs(time - one) <= NEAR_S for one in said)
    ]
    print(f"said twice in a row near a hand-over, and there only: {doubled or 'nothing'}")


def _doubled(words: list[Heard]) -> list[tuple[str, float]]:
    return [(b.text, b.time_s) for a, b in itertools.pairwise(words) if a.text == b.text]


def noise(recognizer: Recognizer, data: Path, options: argparse.Namespace, vad: bool) -> None:
    """Count the words that sounds without speech give."""
    task = _task(recognizer, options, vad)
    session = Engine(task).open()
    heard_s, words = dict[str, float](), dict[str, list[str]]()
    progress = tqdm(total=round(60 * options.minutes), unit="s", file=sys.stderr)
    for kind, sound in _sounds(data / "noise", 60 * options.minutes):
        found = session.push(sound)
        heard_s[kind] = heard_s.get(kind, 0.0) + len(sound) / RATE
        words.setdefault(kind, []).extend(event.text for event in found if isinstance(event, Word))
        progress.update(round(len(sound) / RATE))
    words[kind] += [event.text for event in session.finish() if isinstance(event, Word)]
    progress.close()
    total = sum(map(len, words.values()))
    minutes = sum(heard_s.values()) / 60
    print(f"{'with' if vad else 'without'} voice activity detection: {total} words in {minutes:.0f} minutes", end="")
    print(f", {10 * total / minutes:.2f} in ten minutes")
    for kind, seconds in heard_s.items():
        print(f"  {kind:12}{seconds / 60:6.1f} min{len(words[kind]):6} words  {' '.join(words[kind])[:60]}")


def _rows(folder: Path, seconds: float) -> list[Utterance]:
    rows, total = list[Utterance](), 0.0
    for name in SETS:
        for row in select(read_manifest(folder / f"{name}.zip", split="eval", language="en"), human_text=True):
            if 2.0 <= row.duration <= 20.0 and total < seconds:
                rows.append(row)
                total += row.duration
    return rows


def _words(events: list[Event]) -> list[Heard]:
    return [
        Heard(word, event.end)
        for event in events
        if isinstance(event, Word)
        for word in normalize_english(event.text).split()
    ]


def _near(word: Heard, handovers: list[float]) -> bool:
    return any(abs(word.time_s - time) <= NEAR_S for time in handovers)


def _differences(
    found: list[Heard], reference: list[Heard], handovers: list[float], near: bool
) -> tuple[tuple[int, int, int], int]:
    """Words of the reference that are lost, words added, words that read differently; and how many there are."""
    lost = added = other = 0
    for i, j in align_sequences([word.text for word in found], [word.text for word in reference]):
        word = found[i] if j is None else reference[j]  # type: ignore[index]
        if _near(word, handovers) != near:
            continue
        lost += i is None
        added += j is None
        other += i is not None and j is not None and found[i].text != reference[j].text
    return (lost, added, other), max(sum(_near(word, handovers) == near for word in reference), 1)


def _sounds(folder: Path, seconds: float) -> Iterator[tuple[str, np.ndarray]]:
    """Stretches of ten seconds, in turn: silence, hiss, tones and chords, recordings."""
    rng = np.random.default_rng(0)
    recordings = [_decoded(file, name) for file in sorted(folder.glob("*.zip")) for name in _members(file)]
    time_s = np.arange(10 * RATE) / RATE
    for number in range(int(seconds / 10)):
        kind = ("silence", "hiss", "music", "recordings", "recordings")[number % 5]
        if kind == "silence":
            sound: Any = np.zeros(len(time_s))
        elif kind == "hiss":
            sound = colored_noise(len(time_s), rng.uniform(0, 2), rng) * 10 ** rng.uniform(-3, -1)
        elif kind == "music":  # a chord a second, with overtones and decay
            sound = np.zeros(len(time_s))
            for beat in range(10):
                root = 55 * 2 ** (rng.integers(0, 36) / 12)
                shape = np.exp(-3 * np.clip(time_s - beat, 0, None)) * (time_s >= beat)
                for ratio in (1, 1.26, 1.498):
                    for overtone in range(1, 5):
                        sound += shape * np.sin(2 * np.pi * root * ratio * overtone * time_s) / overtone
            sound *= 0.05
        else:
            sound = np.concatenate([recordings[int(rng.integers(len(recordings)))] for _ in range(2)])
        yield kind, np.asarray(sound, np.float32)


def _members(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return [name for name in archive.namelist() if fnmatch(name, KEPT_BACK)]


def _decoded(file: Path, name: str) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        return read_audio(io.BytesIO(archive.read(name)), RATE).samples[: 5 * RATE]


if __name__ == "__main__":
    main()
