"""How many live streams one device keeps up with: whole steps of an engine, from samples or text to events.

    python benchmarks/gpu_streams.py [--whisper FOLDER …] [--most 512] [--share 0.9] [NAME …]
    python benchmarks/gpu_streams.py --check

For each number of streams, 1, 2, 4 …, every stream is given one chunk and the engine makes a step, again and again;
printed are the median time of a step and the share of its time that the device would need for such streams; then the
number of streams at which that reaches ``--share``, between the numbers that were tried. Steps run one after the other
here, so what a second launch in flight saves is not counted.

    conformer-114m, conformer-600m   shapes of NVIDIA's streaming FastConformers with a transducer, at chunks of 80,
                                     160, 560 and 1120 ms. The weights are random, and the blank is made likely enough
                                     for texts to be sparse; the time of a step hardly depends on them
    whisper                          checkpoints that are given (such as base and small), on speech
    voice                            loquent/voice, on text

Without a GPU nothing is measured. ``--check`` runs small models of every kind once on the CPU, in the same static mode,
and prints no times: it shows that this program runs.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from loquent.asr.conformer.encoder import ConformerConfig
from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.task import ConformerStreamingTask
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.heads.transducer import TransducerConfig
from loquent.asr.recognizer import Recognizer
from loquent.speech.audio.files import read_audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Failure, Speech
from loquent.tts.synthesizer import Synthesizer

RATE = 16_000
ROUNDS, WARM = 20, 5
SPEECH = Path(__file__).parent.parent / "speech" / "assets" / "sample.flac"
TEXT = "This is a sentence of some length, and another one of the kind follows it, so that there is enough to say. "

SHAPES: dict[str, dict[str, int]] = {
    "conformer-114m": {"n_mels": 80, "dim": 512, "layers": 17, "subsampling_channels": 256},
    "conformer-600m": {"n_mels": 128, "dim": 1024, "layers": 24, "subsampling_channels": 256},
}
TINY = {"n_mels": 40, "dim": 32, "layers": 2, "heads": 4, "subsampling_channels": 8}


class Case(NamedTuple):
    """Something to be measured: what makes its task, and the options of its streams."""

    name: str
    task: Callable[[], Any]
    options: dict[str, Any]


def main() -> None:
    """Measure, or check that this would."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="what the names of cases begin with; all unless given")
    parser.add_argument("--whisper", nargs="*", default=[], help="checkpoints, by name or folder")
    parser.add_argument("--most", type=int, default=512, help="streams at most")
    parser.add_argument("--share", type=float, default=0.9, help="of its time that a device may need")
    parser.add_argument("--check", action="store_true", help="run small models on the CPU, and measure nothing")
    asked = parser.parse_args()
    if asked.check:
        for case in cases("cpu", {"conformer": TINY}, ["tiny.en"]):
            steps(case, 3, 4)
            print(f"{case.name}: runs")
        return
    if not torch.cuda.is_available():
        sys.exit("This measures streams on a GPU, and torch finds none here. Nothing was measured.")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"{'':28} {'streams':>8} {'step':>10} {'share':>7}")
    for case in cases("cuda", SHAPES, asked.whisper):
        if not asked.names or any(case.name.startswith(name) for name in asked.names):
            measure(case, asked.most, asked.share)


def cases(device: str, shapes: dict[str, dict[str, int]], whispers: list[str]) -> Iterator[Case]:
    """What is measured on a device."""
    for name, shape in shapes.items():
        make = functools.cache(functools.partial(conformer_of, shape, device))
        for chunk_ms in (80, 160, 560, 1120):
            yield Case(f"{name} {chunk_ms} ms", make, {"chunk_ms": chunk_ms})
    for name in whispers:
        recognizer = Recognizer.from_pretrained(name, device=device)
        for policy in ("local-agreement", "incremental"):
            yield Case(f"{name} {policy}", functools.partial(recognizer.streaming_task, policy=policy), {})
    yield Case("voice", Synthesizer.from_pretrained("loquent/voice", device=device).streaming_task, {})


def conformer_of(shape: dict[str, int], device: str) -> ConformerStreamingTask:
    """A FastConformer with a transducer and random weights."""
    torch.manual_seed(0)
    tokenizer = SubwordTokenizer.train(TEXT.lower().split(), 40)
    encoder = ConformerConfig(**shape)
    transducer = TransducerConfig(tokenizer.vocab_size, encoder.dim)
    model = ConformerModel(ConformerModelConfig(encoder, tokenizer.vocab_size, ctc=False, transducer=transducer))
    assert model.transducer is not None
    with torch.no_grad():
        model.transducer.joiner.out.bias[-1] += 3  # or the text would never end
    return ConformerStreamingTask(model.eval().to(device), tokenizer)


def measure(case: Case, most: int, share: float) -> None:
    """Print the time of a step for each number of streams, and how many fit."""
    before, streams = (0, 0.0), 1
    while streams <= most:
        times = steps(case, streams, WARM + ROUNDS)[WARM:]
        seconds = statistics.median(time for time, _ in times)
        forward_s = sum(progress for _, progress in times) / len(times) / streams
        needed = seconds / forward_s
        print(f"{case.name:28} {streams:8} {1000 * seconds:7.2f} ms {needed:7.1%}", flush=True)
        if needed > share:
            least, low = before
            fitting = least + (streams - least) * (share - low) / (needed - low)
            print(f"{case.name:28} {int(max(fitting, least)):8} streams need {share:.0%} of its time")
            return
        before, streams = (streams, needed), 2 * streams
    print(f"{case.name:28} {before[0]:8} streams or more")


def steps(case: Case, streams: int, count: int) -> list[tuple[float, float]]:
    """Make steps of all streams; of each, the seconds that it took, and those of audio that it processed or made."""
    engine = Engine(case.task(), streams, ahead_s=float("inf"), static=True)
    sessions = [engine.open(**case.options) for _ in range(streams)]
    audio, made = read_audio(SPEECH, RATE).samples, list[tuple[float, float]]()
    position = dict.fromkeys(sessions, 0)
    while len(made) < count:
        progress_s = 0.0
        for session in sessions:
            while not session.ready:
                if engine.task.takes.kind == "text":
                    session.feed(TEXT)
                    continue
                wanted = engine.task.wants(session.memo) or 0
                session.feed(np.take(audio, range(position[session], position[session] + wanted), mode="wrap"))
                position[session] += wanted
                progress_s += wanted / RATE
        begin = time.perf_counter()
        engine.step()
        seconds = time.perf_counter() - begin  # the step ends with what it read back
        events = [event for session in sessions for event in session.drain()]
        if failure := next((event for event in events if isinstance(event, Failure)), None):
            raise RuntimeError(failure.message)
        progress_s += sum(event.end - event.start for event in events if isinstance(event, Speech))
        made.append((seconds, progress_s))
    return made


if __name__ == "__main__":
    main()
