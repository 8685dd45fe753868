"""How well voices speak: what a recogniser understands, how near they are to their teacher, and what joins sound like.

    LOQUENT_DATA=… python benchmarks/tts_quality.py --limit 200 --journal quality.jsonl

Every system reads the same sentences, of Tatoeba's and Multi30k's test sets in LOQUENT_DATA (`mt/eval.tar.zst`), or of
`--texts FILE`, a sentence a line. `hibari-tts` is the package itself, sentence by sentence. The others are voices of
loquent with a context, such as `loquent/hibari:words`; each is fed letter by letter as well as whole, and a system
whose samples differ by more than 1e-4 gets no figures.

- *WER*: word error rate of the recogniser on what was said, both texts normalised alike.
- *Length*: duration over that of the first system. *F0*: median difference of the pitch contours, in semitones, and
  *spectrum*: root mean square difference of smoothed log-mel spectra without their means, in dB; both along the
  cheapest path of dynamic time warping.
- *Joins*: the mean jump from a sample to the next, and of F0 from a frame to the next, at the joins of chunks over that
  at the edges of frames beside them; 1 is a join that cannot be told from what is around it.
- *Tail*: level after the last word, in dB below the level of the speech.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchaudio
from text_normalizer import normalize_english
from tqdm import tqdm

from loquent.asr import Recognizer
from loquent.kernels.dtw import dtw
from loquent.recipes.loop.error_rate import word_errors
from loquent.speech.audio.files import Audio
from loquent.speech.runtime.events import Event, Speech, Word
from loquent.tts import Synthesizer

RATE, HOP, MELS = 24_000, 300, 80
SYSTEMS = [
    "hibari-tts",
    "loquent/hibari:words",
    "loquent/hibari:sentence",
    "loquent/voice:words",
    "loquent/voice:sentence",
]
SETS = ("TEST_tatoeba-test-v2021-08-07.en-de.tsv", "multi30k_test2016.en-de.tsv")


@dataclass
class Spoken:
    """What a system made of a sentence: samples at 24 kHz, sample positions of its joins, the end of its last word."""

    samples: np.ndarray
    joins: list[int]
    end_s: float | None = None
    streaming_error: float = 0.0


@dataclass
class Score:
    """One line of the journal."""

    system: str
    text: str
    heard: str
    errors: int
    words: int
    duration_s: float
    f0: float | None = None
    spectrum: float | None = None
    join_samples: float | None = None
    join_f0: float | None = None
    tail_db: float | None = None
    streaming_error: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, help="the first is what others are compared with")
    parser.add_argument("--texts", type=Path, help="sentences, one a line")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--recognizer", default="base")
    parser.add_argument("--journal", type=Path, required=True, help="JSONL; what is in it is not run again")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = sentences(options.texts, options.limit)
    lines = options.journal.read_text().splitlines() if options.journal.exists() else []
    scores = [Score(**json.loads(line)) for line in lines]
    done = {(score.system, score.text) for score in scores}
    recognizer = Recognizer.from_pretrained(options.recognizer)
    systems = {name: system(name) for name in options.systems}
    with open(options.journal, "a") as journal:
        for text in tqdm(texts, desc="sentences"):
            missing = [name for name in systems if (name, text) not in done]
            if not missing:
                continue
            first = systems[options.systems[0]](text)
            for name in missing:
                spoken = first if name == options.systems[0] else systems[name](text)
                scores.append(scored(name, text, spoken, first.samples, recognizer))
                print(json.dumps(asdict(scores[-1])), file=journal, flush=True)
    report(options.systems, [score for score in scores if score.text in set(texts)])


def sentences(file: Path | None, limit: int) -> list[str]:
    """The sentences to read, the same ones for one limit."""
    if file is not None:
        found = file.read_text(encoding="utf-8").splitlines()
    else:
        archive = Path(os.environ["LOQUENT_DATA"]) / "mt" / "eval.tar.zst"
        data = subprocess.run(["zstd", "-dcq", archive], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = [tar.extractfile(name) for name in SETS]
            found = [
                line.split("\t")[0] for member in members if member for line in member.read().decode().splitlines()
            ]
    fit = sorted({text.strip() for text in found if 4 <= len(text.split()) <= 20 and text.isascii()})
    return random.Random(0).sample(fit, min(limit, len(fit)))


def system(name: str) -> Callable[[str], Spoken]:
    """What makes speech of a sentence."""
    if name == "hibari-tts":
        from hibari import Hibari

        teacher = Hibari()
        return lambda text: Spoken(teacher(text, seed=0), [])
    model, _, context = name.partition(":")
    synthesizer = Synthesizer.from_pretrained(model)

    def speak(text: str) -> Spoken:
        events = _streamed(synthesizer, [text], context)
        letters = _streamed(synthesizer, list(text), context)
        speech = [event for event in events if isinstance(event, Speech)]
        samples, streamed = (_samples(some) for some in (events, letters))
        error = float(np.abs(samples - streamed).max()) if samples.shape == streamed.shape else float("inf")
        ends = [event.end for event in events if isinstance(event, Word)]
        joins = np.cumsum([len(event.samples) for event in speech])[:-1].tolist()
        return Spoken(samples, joins, ends[-1] if ends else None, error)

    return speak


def scored(name: str, text: str, spoken: Spoken, reference: np.ndarray, recognizer: Recognizer) -> Score:
    """Compare what was said with its text, and its sound with a reference."""
    heard = recognizer.transcribe(Audio(spoken.samples, RATE), language="en").text
    expected, got = (normalize_english(one).split() for one in (text, heard))
    score = Score(name, text, heard, word_errors(expected, got), len(expected), len(spoken.samples) / RATE)
    score.streaming_error = spoken.streaming_error
    contour = _pitch(spoken.samples)
    if spoken.samples is not reference:
        score.f0, score.spectrum = _distances(spoken.samples, contour, reference)
    if spoken.joins:
        score.join_samples = _jump(
            np.abs(np.diff(spoken.samples))[HOP - 1 :: HOP], [join // HOP - 1 for join in spoken.joins]
        )
        voiced = np.where(contour > 0, np.log2(np.maximum(contour, 1)) * 12, np.nan)
        score.join_f0 = _jump(np.abs(np.diff(voiced)), [join // HOP - 1 for join in spoken.joins])
    if spoken.end_s is not None:
        tail = spoken.samples[round((spoken.end_s + 0.1) * RATE) :]
        if len(tail):
            level = np.sqrt(np.mean(spoken.samples**2))
            score.tail_db = 20 * float(np.log10((np.sqrt(np.mean(tail**2)) + 1e-9) / level))
    return score


def report(names: list[str], scores: list[Score]) -> None:
    """A table; a system that streams something else than it speaks offline has no figures."""
    print(f"{'system':26} {'WER %':>7} {'length':>7} {'F0 st':>6} {'spec dB':>7} {'joins':>12} {'tail dB':>8}  n")
    lengths = {score.text: score.duration_s for score in scores if score.system == names[0]}
    for name in names:
        own = [score for score in scores if score.system == name]
        worst = max((score.streaming_error for score in own), default=0.0)
        if worst > 1e-4:
            print(f"{name:26} streaming differs from offline by {worst:.1e}: no figures")
            continue
        rate = 100 * sum(score.errors for score in own) / max(1, sum(score.words for score in own))
        length = np.mean([score.duration_s / lengths[score.text] for score in own if score.text in lengths])
        cells = [_mean(own, column) for column in ("f0", "spectrum", "join_samples", "join_f0", "tail_db")]
        f0, spectrum, samples, pitch, tail = cells
        print(f"{name:26} {rate:7.2f} {length:7.3f} {f0:>6} {spectrum:>7} {samples:>6}{pitch:>6} {tail:>8}  {len(own)}")
    if len(names) > 1:
        print(f"length, F0 and spectrum beside {names[0]}; joins: jump of samples, of F0", file=sys.stderr)


def _mean(scores: list[Score], column: str) -> str:
    values = [value for score in scores if (value := getattr(score, column)) is not None and np.isfinite(value)]
    return f"{np.mean(values):.2f}" if values else ""


def _streamed(synthesizer: Synthesizer, pieces: list[str], context: str) -> list[Event]:
    session = synthesizer.session(context=context)
    return [event for piece in pieces for event in session.push(piece)] + session.finish()


def _samples(events: list[Event]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(e.samples for e in events if isinstance(e, Speech))])


def _jump(changes: np.ndarray, joins: list[int]) -> float | None:
    """Change at the joins over that at the edges of frames beside them."""
    at, beside = list[float](), list[float]()
    for join in joins:
        near = [changes[i] for i in (join - 2, join - 1, join + 1, join + 2) if 0 <= i < len(changes)]
        if 0 <= join < len(changes) and np.isfinite([changes[join], *near]).all():
            at.append(changes[join])
            beside.append(float(np.mean(near)))
    return float(sum(at) / sum(beside)) if at and sum(beside) > 0 else None


def _pitch(samples: np.ndarray) -> np.ndarray:
    """Pitch in Hz at the frames of the voices, 0 where there is none: the peak of the normalised autocorrelation."""
    window, low, high = 1200, RATE // 400, RATE // 60
    padded = np.pad(samples, (window // 2, window + high))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window + high)[::HOP][: len(samples) // HOP]
    size = 1 << (window + high).bit_length()
    head = np.fft.rfft(frames[:, :window], size)
    product = np.fft.irfft(np.fft.rfft(frames, size) * head.conj(), size)[:, low : high + 1]
    power = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    energy = power[:, low + window : high + window + 1] - power[:, low : high + 1]
    peak = product / np.sqrt(np.maximum(energy * power[:, [window]], 1e-8))
    best = peak.argmax(1)
    return np.where(peak.max(1) > 0.6, RATE / (best + low), 0.0)


def _distances(samples: np.ndarray, contour: np.ndarray, reference: np.ndarray) -> tuple[float | None, float]:
    """Median difference of F0 in semitones, and root mean square difference of smoothed log-mel spectra in dB."""
    one, other = (_cepstra(some) for some in (samples, reference))
    distance = torch.cdist(one, other)
    path = dtw(distance).numpy()
    spectrum = 10 / np.log(10) / np.sqrt(MELS) * float(distance[range(len(path)), path].mean())
    pitch = _pitch(reference)
    mine, theirs = contour[: len(path)], pitch[np.minimum(path, len(pitch) - 1)][: len(contour)]
    both = (mine > 0) & (theirs > 0)
    f0 = float(np.median(np.abs(12 * np.log2(mine[both] / theirs[both])))) if both.any() else None
    return f0, spectrum


def _cepstra(samples: np.ndarray) -> torch.Tensor:
    features = torchaudio.transforms.MFCC(
        RATE, 25, log_mels=True, melkwargs={"n_fft": 1200, "hop_length": HOP, "n_mels": MELS}
    )
    return features(torch.from_numpy(samples.copy())).T[:, 1:].contiguous()


if __name__ == "__main__":
    main()
