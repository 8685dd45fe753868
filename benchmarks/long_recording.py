"""One long recording at a time beside faster-whisper: word error rate, time and CPU time, unbatched and batched.

    LOQUENT_DATA=… python benchmarks/long_recording.py --model tiny.en --minutes 10

A recording is the utterances of one set (see `whisper_offline.py`), one after the other, with pauses of 0.4 s.
Unbatched, a window knows the text before it. Batched, voice activity detection cuts the recording, and windows
without prompts, timestamps and further attempts share a batch: `vad_filter` and `condition_on_previous_text=False`
here, `BatchedInferencePipeline` there.
Every engine runs in a process of its own, and the processes take turns. No ratio of times is printed for a recording
on which ours is worse by more than GATE.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import sys
import time
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from whisper_offline import GATE, Tally, Utterance, cpu_seconds, score

RATE = 16_000
PAUSE_S = 0.4
SETS = ("lj_text_selfrecorded", "speechocean762", "game_drascula_en")  # a reader; learners; actors, who interject
ENGINES = ("loquent", "faster-whisper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en", help="name or folder of CTranslate2 weights")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of a recording, if its set has as much")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="1 stands for unbatched")
    parser.add_argument("--compute-type", default="int8", choices=["int8", "float32"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    folder = Path(os.environ.get("LOQUENT_DATA", "../shared/data")) / "speech"
    recordings = {name: joined(folder / f"{name}.zip", 60 * options.minutes) for name in options.sets}
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    for engine in ENGINES:
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(engine, vars(options), theirs), daemon=True)
        process.start()
        mine.recv()  # loaded and warm
        workers[engine] = process, mine

    print(f"{options.model}, {options.compute_type}, beam {options.beam}, threads {options.threads}")
    titles = ("min", "batch", "WER %", "theirs", "CPU s", "theirs", "ratio", "time")
    print(f"{'recording':22}" + "".join(f"{title:>8}" for title in titles))
    for name, (samples, utterance) in recordings.items():
        for batch in options.batch:
            tallies = []
            for _, pipe in workers.values():
                pipe.send((samples, batch))
                text, wall_s, cpu_s = pipe.recv()
                tally = score([utterance], [text])
                tally.wall_s, tally.cpu_s = wall_s, cpu_s
                tallies.append(tally)
            print(row(name, batch, *tallies), flush=True)
    for process, pipe in workers.values():
        pipe.send(None)
        process.join()


def row(name: str, batch: int, ours: Tally, theirs: Tally) -> str:
    ratios = f"{ours.cpu_s / theirs.cpu_s:8.2f}{ours.wall_s / theirs.wall_s:8.2f}"
    if ours.wer - theirs.wer > GATE:
        ratios = f"  more than {GATE} points worse: no ratios"
    return (
        f"{name:22}{ours.audio_s / 60:8.1f}{batch:8}{ours.wer:8.2f}{theirs.wer:8.2f}"
        f"{ours.cpu_s:8.1f}{theirs.cpu_s:8.1f}{ratios}"
    )


def joined(file: Path, longest_s: float) -> tuple[np.ndarray, Utterance]:
    """The first English utterances of a set with human text, up to a length in seconds, as one recording."""
    import soundfile

    parts: list[np.ndarray] = []
    texts, length = [], 0
    with zipfile.ZipFile(file) as archive:
        rows = [json.loads(line) for line in archive.read("manifest.jsonl").decode().splitlines()]
        for one in sorted(rows, key=lambda one: str(one["path"])):
            if one["language"] != "en" or one.get("text_source") == "whisper-base":
                continue
            samples, rate = soundfile.read(io.BytesIO(archive.read(one["path"])), dtype="float32")
            if rate != RATE or samples.ndim != 1:
                raise ValueError(f"expected 16 kHz mono, got {rate} Hz {samples.shape} in {file.name}/{one['path']}")
            length += len(samples) + round(PAUSE_S * RATE)
            if length > longest_s * RATE:
                break
            parts += [samples, np.zeros(round(PAUSE_S * RATE), np.float32)]
            texts.append(one["text"])
    if not parts:
        raise SystemExit(f"no English utterances with human text in {file}")
    recording = np.concatenate(parts)
    return recording, Utterance(file.stem, "", " ".join(texts), "en", len(recording) / RATE)


def serve(engine: str, options: dict[str, Any], pipe: Connection) -> None:
    """One engine in its own process: recordings and batch sizes in, texts with wall and CPU seconds out."""
    transcribe = (loquent_engine if engine == "loquent" else faster_whisper_engine)(options)
    for batch in options["batch"]:
        transcribe(np.zeros(RATE, np.float32), batch)
    pipe.send("ready")
    while (work := pipe.recv()) is not None:
        wall, cpu = time.perf_counter(), cpu_seconds()
        text = transcribe(*work)
        pipe.send((text, time.perf_counter() - wall, cpu_seconds() - cpu))


def loquent_engine(options: dict[str, Any]) -> Any:
    from loquent.asr.recognizer import Recognizer

    recognizer = Recognizer.from_pretrained(
        options["model"], device="cpu", compute_type=options["compute_type"], threads=options["threads"]
    )

    def transcribe(samples: np.ndarray, batch: int) -> str:
        recognizer.batch = batch
        together = {
            "vad_filter": True,
            "condition_on_previous_text": False,
            "without_timestamps": True,
            "temperatures": (0.0,),
        }
        extra = together if batch > 1 else {}
        return recognizer.transcribe(samples, language="en", beam_size=options["beam"], **extra).text

    return transcribe


def faster_whisper_engine(options: dict[str, Any]) -> Any:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    from loquent.speech.hub import resolve

    path = str(resolve(options["model"]).path)
    model = WhisperModel(path, device="cpu", compute_type=options["compute_type"], cpu_threads=options["threads"])
    together = BatchedInferencePipeline(model)

    def transcribe(samples: np.ndarray, batch: int) -> str:
        asked = {"language": "en", "beam_size": options["beam"]}
        segments, _ = (
            together.transcribe(samples, batch_size=batch, **asked) if batch > 1 else model.transcribe(samples, **asked)
        )
        return "".join(segment.text for segment in segments)

    return transcribe


if __name__ == "__main__":
    main()
