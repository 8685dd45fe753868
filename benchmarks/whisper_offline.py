"""Offline transcription next to faster-whisper: word error rate, time and memory with the same weights and options.

    LOQUENT_DATA=… python benchmarks/whisper_offline.py --model tiny.en --limit 20

LOQUENT_DATA holds `speech/*.zip`, each with a `manifest.jsonl` (path, duration, text, language, split, text_source).
Every engine runs in a process of its own; the processes take turns on the same few recordings, so that whatever else
the machine does meets all of them alike. No ratio of times is printed when ours is worse by more than GATE.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import os
import resource
import sys
import time
import zipfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from text_normalizer import normalize_english, normalize_other

T = TypeVar("T")
GATE = 0.3  # points of word error rate
ENGINES = ("loquent-int8", "loquent-float32", "faster-whisper-int8", "faster-whisper-float32")


@dataclass(frozen=True)
class Utterance:
    """A recording of the evaluation split, and what is said in it."""

    set: str
    path: str
    text: str
    language: str
    duration: float


@dataclass
class Tally:
    """What one engine did on some recordings."""

    edits: int = 0
    words: int = 0
    audio_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __iadd__(self, other: Tally) -> Tally:
        self.edits, self.words = self.edits + other.edits, self.words + other.words
        self.audio_s, self.wall_s = self.audio_s + other.audio_s, self.wall_s + other.wall_s
        self.cpu_s += other.cpu_s
        return self

    @property
    def wer(self) -> float:
        """Word error rate in per cent."""
        return 100 * self.edits / max(self.words, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default="tiny.en", help="name or folder of CTranslate2 weights (both engines read them)"
    )
    parser.add_argument("--engines", nargs="+", default=["loquent-int8", "faster-whisper-int8"], choices=ENGINES)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--greedy-only", action="store_true", help="no temperature fallback")
    parser.add_argument("--without-timestamps", action="store_true")
    parser.add_argument("--sets", nargs="+", help="names of zip files without the ending; all by default")
    parser.add_argument("--limit", type=int, help="recordings of each set, chosen by the hash of their paths")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of all turns, the first; every beginning is a fair sample of all sets"
    )
    parser.add_argument(
        "--turn", type=int, default=16, help="recordings that an engine transcribes before the next one's turn"
    )
    parser.add_argument("--batch", type=int, default=8, help="windows that loquent decodes at once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--journal", type=Path, help="keep every turn in this JSONL file, and start from what an earlier run left there"
    )
    options = parser.parse_args()

    data = Path(os.environ.get("LOQUENT_DATA", "../shared/data"))
    sets = read_sets(data / "speech", options.sets, options.limit, english_only=options.model.endswith(".en"))
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    for name in options.engines:
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, vars(options), str(data), theirs), daemon=True)
        process.start()
        mine.recv()  # loaded and warm
        workers[name] = process, mine

    journal = Journal(options)
    turns = in_turns(sets, options.turn)
    turns = turns[: math.ceil(options.share * len(turns))]
    for turn in tqdm(turns, unit="turn", file=sys.stderr):
        for name, (_, pipe) in workers.items():
            if (name, turn[0].path) not in journal:
                pipe.send(turn)
                journal.add(name, turn, *pipe.recv())
    for name, (process, pipe) in workers.items():
        pipe.send(None)
        journal.add_peak(name, pipe.recv())
        process.join()
    report(turns, journal, options)


def in_turns(sets: dict[str, list[T]], size: int) -> list[list[T]]:
    """Turns of recordings of one set each, in an order in which every beginning is a fair sample of all sets."""
    turns = [
        ((at + size / 2) / len(utterances), utterances[at : at + size])
        for utterances in sets.values()
        for at in range(0, len(utterances), size)
    ]
    return [turn for _, turn in sorted(turns, key=lambda pair: pair[0])]


class Journal:
    """Results by engine and turn, and their file. A run that was stopped goes on where it was, if its options agree."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.file: Path | None = options.journal
        self.turns: dict[tuple[str, str], dict[str, Any]] = {}
        self.peaks: dict[str, float] = {}
        asked = {
            name: value for name, value in vars(options).items() if name not in ("journal", "limit", "share", "engines")
        }
        if self.file and self.file.exists():
            header, *lines = (json.loads(line) for line in self.file.read_text().splitlines())
            if header != asked:
                raise SystemExit(f"{self.file} is of other options, {header}; name another file")
            for line in lines:
                self._take(line)
        elif self.file:
            self.file.write_text(json.dumps(asked) + "\n")

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self.turns

    def add(self, engine: str, turn: list[Utterance], texts: list[str], wall_s: float, cpu_s: float) -> None:
        self._keep({"engine": engine, "first": turn[0].path, "texts": texts, "wall_s": wall_s, "cpu_s": cpu_s})

    def add_peak(self, engine: str, mebibytes: float) -> None:
        self._keep({"engine": engine, "peak": mebibytes})

    def _keep(self, line: dict[str, Any]) -> None:
        self._take(line)
        if self.file:
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _take(self, line: dict[str, Any]) -> None:
        engine = line["engine"]
        if "peak" in line:
            self.peaks[engine] = max(line["peak"], self.peaks.get(engine, 0.0))
        else:
            self.turns[engine, line["first"]] = line


def read_sets(
    folder: Path, names: list[str] | None, limit: int | None, english_only: bool
) -> dict[str, list[Utterance]]:
    """The evaluation split by set: rows with human text, at most ``limit`` of each set."""
    sets = {}
    for file in sorted(folder.glob("*.zip")):
        if names and file.stem not in names:
            continue
        with zipfile.ZipFile(file) as archive:
            rows = [json.loads(line) for line in archive.read("manifest.jsonl").decode().splitlines()]
        rows = [
            row
            for row in rows
            if row["split"] == "eval"
            and row.get("text_source") != "whisper-base"
            and (row["language"] == "en" or not english_only)
        ]
        rows.sort(key=lambda row: hashlib.sha256(row["path"].encode()).digest())
        if rows:
            sets[file.stem] = [
                Utterance(file.stem, row["path"], row["text"], row["language"], row["duration"]) for row in rows[:limit]
            ]
    if not sets:
        raise SystemExit(f"no evaluation data in {folder}; set LOQUENT_DATA")
    return sets


def score(utterances: list[Utterance], texts: list[str]) -> Tally:
    """Edits and words over some recordings, after normalisation."""
    import jiwer

    tally = Tally()
    for one, text in zip(utterances, texts, strict=True):
        normalize = normalize_english if one.language == "en" else normalize_other
        reference, hypothesis = normalize(one.text), normalize(text)
        tally.audio_s += one.duration
        if not reference:
            continue
        measured = jiwer.process_words(reference, hypothesis)
        tally.edits += measured.substitutions + measured.deletions + measured.insertions
        tally.words += len(reference.split())
    return tally


def serve(name: str, options: dict[str, Any], data: str, pipe: Connection) -> None:
    """One engine in its own process: lists of utterances in, their texts with wall and CPU seconds out."""
    import numpy as np
    import soundfile

    archives: dict[str, zipfile.ZipFile] = {}

    def read(one: Utterance) -> np.ndarray:
        if one.set not in archives:
            archives[one.set] = zipfile.ZipFile(Path(data) / "speech" / f"{one.set}.zip")
        samples, rate = soundfile.read(io.BytesIO(archives[one.set].read(one.path)), dtype="float32")
        if rate != 16000 or samples.ndim != 1:
            raise ValueError(f"expected 16 kHz mono, got {rate} Hz {samples.shape} in {one.set}/{one.path}")
        return samples

    transcribe = (loquent_engine if name.startswith("loquent") else faster_whisper_engine)(name, options)
    transcribe([np.zeros(16000, np.float32)], ["en"])
    pipe.send("ready")
    while (utterances := pipe.recv()) is not None:
        recordings = [read(one) for one in utterances]
        wall, cpu = time.perf_counter(), cpu_seconds()
        texts = transcribe(recordings, [one.language for one in utterances])
        pipe.send((texts, time.perf_counter() - wall, cpu_seconds() - cpu))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def loquent_engine(name: str, options: dict[str, Any]) -> Any:
    from loquent.asr.recognizer import Recognizer

    recognizer = Recognizer.from_pretrained(
        options["model"], device="cpu", compute_type=name.rpartition("-")[2], threads=options["threads"]
    )
    recognizer.batch = options["batch"]
    extra = {"temperatures": (0.0,)} if options["greedy_only"] else {}

    def transcribe(recordings: list[Any], languages: list[str]) -> list[str]:
        texts: dict[int, str] = {}
        for language in sorted(set(languages)):
            mine = [at for at, one in enumerate(languages) if one == language]
            found = recognizer.transcribe_files(
                [recordings[at] for at in mine],
                language=language,
                beam_size=options["beam"],
                without_timestamps=options["without_timestamps"],
                **extra,
            )
            texts.update({at: transcript.text for at, transcript in zip(mine, found, strict=True)})
        return [texts[at] for at in range(len(recordings))]

    return transcribe


def faster_whisper_engine(name: str, options: dict[str, Any]) -> Any:
    from faster_whisper import WhisperModel

    from loquent.speech.hub import resolve

    model = WhisperModel(
        str(resolve(options["model"]).path),
        device="cpu",
        compute_type=name.rpartition("-")[2],
        cpu_threads=options["threads"],
    )
    extra = {"temperature": 0.0} if options["greedy_only"] else {}

    def transcribe(recordings: list[Any], languages: list[str]) -> list[str]:
        texts = []
        for samples, language in zip(recordings, languages, strict=True):
            segments, _ = model.transcribe(
                samples,
                language=language,
                beam_size=options["beam"],
                without_timestamps=options["without_timestamps"],
                **extra,
            )
            texts.append("".join(segment.text for segment in segments))
        return texts

    return transcribe


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(turns: list[list[Utterance]], journal: Journal, options: argparse.Namespace) -> None:
    names, peaks = options.engines, journal.peaks
    results: dict[str, dict[str, Tally]] = {name: {} for name in names}
    totals = {name: Tally() for name in names}
    for turn in turns:
        for name in names:
            found = journal.turns[name, turn[0].path]
            tally = score(turn, found["texts"])
            tally.wall_s, tally.cpu_s = found["wall_s"], found["cpu_s"]
            of_set = results[name].setdefault(turn[0].set, Tally())
            of_set += tally
            totals[name] += tally
    print(f"{options.model}, beam {options.beam}, {options.threads} threads; word error rate in per cent")
    print(f"{'set':26}{'hours':>7}" + "".join(f"{name:>24}" for name in names))
    for set_name in sorted(results[names[0]]):
        rows = [results[name][set_name] for name in names]
        print(f"{set_name:26}{rows[0].audio_s / 3600:7.3f}" + "".join(f"{row.wer:24.2f}" for row in rows))
    print(f"{'all':26}{totals[names[0]].audio_s / 3600:7.3f}" + "".join(f"{totals[name].wer:24.2f}" for name in names))
    print(f"\n{'engine':26}{'wall s':>10}{'CPU s':>10}{'real-time factor':>18}{'peak MiB':>10}")
    for name in names:
        row = totals[name]
        print(f"{name:26}{row.wall_s:10.1f}{row.cpu_s:10.1f}{row.wall_s / row.audio_s:18.4f}{peaks[name]:10.0f}")
    for mine in (name for name in names if name.startswith("loquent")):
        for theirs in (name for name in names if name.startswith("faster")):
            difference = totals[mine].wer - totals[theirs].wer
            print(f"\n{mine} against {theirs}: word error rate {difference:+.2f} points", end="")
            if difference > GATE:
                print(f", more than {GATE}: no ratios")
                continue
            print(
                f", wall time x{totals[mine].wall_s / totals[theirs].wall_s:.2f}, "
                f"CPU time x{totals[mine].cpu_s / totals[theirs].cpu_s:.2f}, "
                f"peak memory x{peaks[mine] / peaks[theirs]:.2f}"
            )


if __name__ == "__main__":
    main()
