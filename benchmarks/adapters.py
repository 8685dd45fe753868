"""What it costs that every stream of a batch may have its own adapter.

    python benchmarks/adapters.py [--streams 64] [--adapters 16] [--rank 32]

First, streams with random adapters, all different, share a batch; no speed is printed unless each says what it says
alone. Then three engines take turns, step by step, on the same audio: all streams without an adapter, all with one,
and with as many as asked for. These are copies of one adapter that changes next to nothing, so that all three write the
same text, which is checked too, and the work differs in nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import loquent.speech
from loquent.asr.recognizer import Recognizer
from loquent.asr.whisper.lora import LoraAdapter, LoraFactors
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.session import Session

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--adapters", type=int, default=16)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6, help="of audio that each stream brings")
    parser.add_argument("--chunk-ms", type=int, default=300)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = Recognizer.from_pretrained(options.model)
    if not isinstance(recognizer, WhisperRecognizer):
        parser.error(f"--model is a Whisper, got {options.model}")
    audio = read_audio(Path(loquent.speech.__file__).parent / "assets" / "sample.flac", RATE).samples
    audios = [np.roll(audio, -RATE * i // 3)[: int(options.seconds * RATE)] for i in range(options.streams)]
    names = [f"adapter {i}" for i in range(options.adapters)]
    for seed, name in enumerate(names):
        recognizer.adapters.add(name, adapter(recognizer.model, options.rank, seed, 0.3))
    check(recognizer, audios, names, options.chunk_ms)
    for name in names:
        recognizer.adapters.remove(name)
        recognizer.adapters.add(name, adapter(recognizer.model, options.rank, 0, 1e-9))
    compare(recognizer, audios, names, options)


def adapter(model: Whisper, rank: int, seed: int, size: float) -> LoraAdapter:
    """A random one for every linear layer, ``size`` times as strong as the layer."""
    draw = torch.Generator().manual_seed(seed)
    factors = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            a = torch.randn(rank, layer.in_features, generator=draw) * layer.in_features**-0.5
            b = torch.randn(layer.out_features, rank, generator=draw) * layer.weight.std() * rank**-0.5
            factors[name] = LoraFactors(a, b, size)
    return LoraAdapter(factors)


def check(recognizer: WhisperRecognizer, audios: list[np.ndarray], names: list[str], chunk_ms: int) -> None:
    """Exit unless one stream of each adapter says in the full batch what it says alone."""
    engine, sessions = filled(recognizer, audios, names, chunk_ms)
    while engine.step():
        pass
    together = [words(session) for session in sessions]
    texts = set()
    for index, name in enumerate(tqdm(names, "checking", leave=False, disable=None)):
        alone, (session,) = filled(recognizer, audios[index : index + 1], [name], chunk_ms)
        while alone.step():
            pass
        if words(session) != together[index]:
            sys.exit(f"refused: with {name}, stream {index} says something else in the batch than alone")
        texts.add(str(together[index]))
    print(f"{len(audios)} streams with {len(names)} adapters: each says what it says alone ({len(texts)} texts)")


def compare(
    recognizer: WhisperRecognizer, audios: list[np.ndarray], names: list[str], options: argparse.Namespace
) -> None:
    """Print the times of the three engines."""
    choices: dict[str, list[str]] = {"no adapter": ["none"], "one adapter": names[:1], f"{len(names)} adapters": names}
    best: dict[str, list[float]] = {}
    texts = {}
    for _ in range(options.turns):
        running = {kind: filled(recognizer, audios, chosen, options.chunk_ms) for kind, chosen in choices.items()}
        times: dict[str, list[float]] = {kind: [] for kind in running}
        while any(session.ready for _, sessions in running.values() for session in sessions):
            for kind, (engine, _) in running.items():
                began = time.perf_counter()
                engine.step()
                times[kind].append(time.perf_counter() - began)
        for kind, (_, sessions) in running.items():
            texts[kind] = [words(session) for session in sessions]
            best[kind] = [min(pair) for pair in zip(best.get(kind, times[kind]), times[kind], strict=True)]
    if len({str(text) for text in texts.values()}) > 1:
        sys.exit("refused: the three engines do not write the same text")
    none, one, _ = (sum(seconds) for seconds in best.values())
    print(
        f"{options.model}, rank {options.rank} on all linear layers, {options.chunk_ms} ms, {options.threads} threads"
    )
    print(f"{'':<14} {'ms a step':>10} {'over none':>10} {'over one':>10}")
    for kind, seconds in best.items():
        total = sum(seconds)
        print(f"{kind:<14} {1000 * total / len(seconds):>10.0f} {total / none:>9.2f}x {total / one:>9.2f}x")
    print(f"pools: {recognizer.adapters.nbytes / 1e6:.0f} MB")


def filled(
    recognizer: WhisperRecognizer, audios: list[np.ndarray], names: list[str], chunk_ms: int
) -> tuple[Engine, list[Session]]:
    """An engine whose streams have all their audio, and adapters in turn."""
    task = recognizer.streaming_task(policy="incremental", chunk_ms=chunk_ms, vad=False)
    engine = Engine(task, capacity=len(audios))
    sessions = [engine.open(adapter=names[index % len(names)]) for index in range(len(audios))]
    for session, audio in zip(sessions, audios, strict=True):
        session.feed(audio)
        session.end()
    return engine, sessions


def words(session: Session) -> list[tuple[str, float, float]]:
    """What a stream said, and when."""
    return [(event.text, event.start, event.end) for event in session.drain() if event.type == "word"]


if __name__ == "__main__":
    main()
