"""First sound and speed of voices, beside systems that speak whole sentences, all measured in this run.

    python benchmarks/tts_latency.py [--kokoro FOLDER] [--threads N]

Text comes word by word, as from a language model. *First sound* is the computing between the arrival of the third word
and the first samples that are no silence; hibari-tts and Kokoro (`--kokoro`, a folder with `onnx/*.onnx` and
`voices/*.bin`) need the sentence, so theirs is the time from its last word to the speech of it all. *RTF* is CPU time
over the length of the speech. Systems take turns; medians of the sentences, in milliseconds of wall time.

Then `--streams` voices speak at the same time, in one batch.

`--minutes` has one stream speak for so long, and tells the cost and the memory of every fifth of it.

No figure is printed for a voice whose samples depend on how the text arrives.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Speech
from loquent.tts import Synthesizer

SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "She told him that the meeting had been moved to Thursday afternoon.",
    "Nobody expected the old bridge to survive another winter like that.",
    "Please leave your coat and your umbrella at the door before you come in.",
    "A light rain was falling when the last train left the station.",
    "It takes about an hour to walk from the harbour to the castle.",
)
AUDIBLE = 1e-3


@dataclass
class Figures:
    """Of one system."""

    first_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    speech_s: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voices", nargs="+", default=["loquent/hibari"], help="voices of loquent")
    parser.add_argument("--kokoro", type=Path, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    systems: dict[str, Callable[[str], tuple[float, float, float]]] = {}
    for name in options.voices:
        synthesizer = Synthesizer.from_pretrained(name)
        if (error := streaming_error(synthesizer)) > 1e-4:
            print(f"{name}: streaming differs from offline by {error:.1e}; not measured")
            continue
        for context in ("words", "sentence"):
            systems[f"{name}, {context}"] = streaming(synthesizer, context)
    systems["hibari-tts, sentence"] = hibari(options.threads)
    if options.kokoro:
        systems["Kokoro-82M, sentence"] = kokoro(options.kokoro, options.threads)
    figures = {name: Figures() for name in systems}
    for turn in range(options.rounds + 1):  # the first one warms up
        for sentence in SENTENCES:
            for name, speak in systems.items():
                first_s, cpu_s, speech_s = speak(sentence)
                if turn:
                    one = figures[name]
                    one.first_ms.append(1000 * first_s)
                    one.cpu_s, one.speech_s = one.cpu_s + cpu_s, one.speech_s + speech_s
    print(f"{'system':28} {'first sound, ms':>16} {'95 %':>7} {'RTF':>7}")
    for name, one in figures.items():
        late = sorted(one.first_ms)[int(0.95 * (len(one.first_ms) - 1))]
        print(f"{name:28} {statistics.median(one.first_ms):16.1f} {late:7.1f} {one.cpu_s / one.speech_s:7.4f}")
    print()
    for name in options.voices:
        together(name, options.streams)
        if options.minutes:
            at_length(name, 60 * options.minutes)


def streaming(synthesizer: Synthesizer, context: str) -> Callable[[str], tuple[float, float, float]]:
    """Seconds to the first sound, CPU seconds and seconds of speech of a sentence that comes word by word."""

    def speak(sentence: str) -> tuple[float, float, float]:
        session = synthesizer.session(context=context)
        began, first_s, cpu, events = None, None, time.process_time(), list[Event]()
        words = sentence.split(" ")
        for number, word in enumerate(words, start=1):
            if number == (3 if context == "words" else len(words)):
                began = time.perf_counter()
            events += session.push(word + " ")
            if began is not None and first_s is None and _audible(events):
                first_s = time.perf_counter() - began
        events += session.finish()
        if first_s is None:
            raise RuntimeError(f"no sound: {sentence!r}")
        return first_s, time.process_time() - cpu, _length(events)

    return speak


def hibari(threads: int) -> Callable[[str], tuple[float, float, float]]:
    """The package hibari-tts."""
    from hibari import SAMPLE_RATE, Hibari

    model = Hibari(threads=threads)

    def speak(sentence: str) -> tuple[float, float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        samples = model(sentence, seed=0)
        return time.perf_counter() - began, time.process_time() - cpu, len(samples) / SAMPLE_RATE

    return speak


def kokoro(folder: Path, threads: int) -> Callable[[str], tuple[float, float, float]]:
    """Kokoro-82M by onnxruntime, with hibari-tts's phonemes, which are Kokoro's."""
    import onnxruntime
    from hibari import SAMPLE_RATE, Hibari
    from hibari.g2p import G2P

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    path = min(folder.glob("onnx/*.onnx"))
    model = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    styles = np.fromfile(min(folder.glob("voices/*.bin")), np.float32).reshape(-1, 256)
    ids_of, phonemes, tokens = Hibari().ids, G2P(), model.get_inputs()[0].name

    def speak(sentence: str) -> tuple[float, float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        ids = ids_of(phonemes(sentence))
        inputs = {tokens: np.array([ids]), "style": styles[len(ids) - 3][None], "speed": np.ones(1, np.float32)}
        samples = model.run(None, inputs)[0].ravel()
        return time.perf_counter() - began, time.process_time() - cpu, len(samples) / SAMPLE_RATE

    return speak


def together(name: str, streams: int) -> None:
    """Many streams of one voice: is each as far as a listener is?"""
    synthesizer = Synthesizer.from_pretrained(name)
    engine = Engine(synthesizer.streaming_task(), capacity=streams, ahead_s=float("inf"))
    sessions = [engine.open(seed=number) for number in range(streams)]
    for number, session in enumerate(sessions):
        session.feed(" ".join(SENTENCES[number % 3 :]) + " ")
        session.end()
    began, cpu, heard = time.perf_counter(), time.process_time(), [0.0] * streams
    while engine.step():
        for number, session in enumerate(sessions):
            heard[number] += _length(session.drain())
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    shortest = min(heard)
    print(
        f"{name}: {streams} streams at a time, {torch.get_num_threads()} threads: {sum(heard):.0f} s of speech, each "
        f"at {shortest / wall:.1f} times its tempo; RTF {cpu / sum(heard):.4f}"
    )


def at_length(name: str, seconds: float) -> None:
    """One stream that does not end."""
    session = Synthesizer.from_pretrained(name).session()
    memory, spoken, parts, turn = psutil.Process().memory_info, 0.0, 5, 0
    for part in range(1, parts + 1):
        began, cpu = spoken, time.process_time()
        while spoken < seconds * part / parts:
            spoken += _length(session.push(SENTENCES[turn % len(SENTENCES)] + " "))
            turn += 1
        rtf, saved = (time.process_time() - cpu) / (spoken - began), len(session.snapshot())
        print(
            f"{name}: {spoken / 60:5.1f} min: RTF {rtf:.4f}, {memory().rss / 1e6:.0f} MB, snapshot {saved / 1e3:.0f} kB"
        )


def streaming_error(synthesizer: Synthesizer) -> float:
    """The largest difference between a text that comes letter by letter and one that comes whole."""
    text = " ".join(SENTENCES[:2])
    whole, session = synthesizer.synthesize(text).samples, synthesizer.session()
    events = [event for letter in text for event in session.push(letter)] + session.finish()
    streamed = np.concatenate([event.samples for event in events if isinstance(event, Speech)])
    return float(np.abs(whole - streamed).max()) if whole.shape == streamed.shape else float("inf")


def _audible(events: list[Event]) -> bool:
    return any(isinstance(event, Speech) and np.abs(event.samples).max(initial=0) > AUDIBLE for event in events)


def _length(events: list[Event]) -> float:
    return sum(event.end - event.start for event in events if isinstance(event, Speech))


if __name__ == "__main__":
    main()
