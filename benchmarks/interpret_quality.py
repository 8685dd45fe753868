"""What speech-to-speech translation gives: how late the voice is over a long talk, and whether it can be understood.

    LOQUENT_DATA=… python benchmarks/interpret_quality.py --minutes 10 --journal heard.jsonl

The talk is made of the Spanish prompts in LOQUENT_DATA (`speech/asterisk_prompts.zip`) in a random order, with pauses
of 0.3 to 1 s. Whisper translates it into English live; what it commits goes into the journal, and is not made again.
With `--model prompts` the translation is that of the data, which tells what the voice alone does: its words are spread
over the prompt, and committed at the full second, a second later.
Each voice then speaks that text, as in a pipeline. A system is a voice with a context, such as `loquent/voice:words`.

- *start*, *end*: seconds from the beginning of a sentence in the source to that of its speech, and from end to end;
  the mean, and the most, of each minute.
- *gap*: silences in the speech that are within a sentence, and last more than 0.1 s, per sentence.
- *WER*: word error rate of a recogniser on the speech, of the text that was spoken, both normalised alike.
- *chrF*: of the translation, of the whole talk, against the same prompts in English.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sacrebleu.metrics.chrf import CHRF
from text_normalizer import normalize_english
from tqdm import tqdm

from loquent.asr import Recognizer
from loquent.recipes.data.manifest import SAMPLE_RATE, read_manifest
from loquent.recipes.loop.error_rate import word_errors
from loquent.speech.audio.files import Audio, write_audio
from loquent.speech.runtime.events import Event, Final, Translation
from loquent.speech.runtime.link import hand_on
from loquent.speech.transcript import Segment
from loquent.translate.spoken.interpretation import SPEAK, TRANSLATE, Interpretation, interpretation_of
from loquent.translate.spoken.interpreter import Interpreter
from loquent.tts import Synthesizer

SYSTEMS = ["loquent/hibari:words", "loquent/hibari:sentence"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="base", help="Whisper that translates, or prompts")
    parser.add_argument("--recognizer", default="tiny.en", help="that listens to the speech")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--policy", default="alignatt", choices=["alignatt", "local-agreement"])
    parser.add_argument("--chunk-ms", type=int, default=1000, help="of the policy")
    parser.add_argument("--most-lag-s", type=float, default=4.0)
    parser.add_argument("--hold-s", type=float, default=1.0)
    parser.add_argument("--journal", type=Path, required=True, help="JSONL of what Whisper committed")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the talk and the speech here")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    talk, prompts = spanish_talk(options.minutes)
    if not options.journal.exists():
        streaming = {"policy": options.policy, "chunk_ms": options.chunk_ms}
        made = committed(prompts) if options.model == "prompts" else translated(talk, options.model, streaming)
        options.journal.write_text("".join(f"{json.dumps(event.to_dict())}\n" for event in made))
    events = [Event.from_dict(json.loads(line)) for line in options.journal.read_text().splitlines()]
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        write_audio(options.output / "talk.wav", talk.samples, talk.sample_rate)
    text = interpretation_of(events, None).text
    chrf = CHRF().corpus_score([text], [[" ".join(prompt.text for prompt in prompts)]]).score
    print(f"{talk.duration_s / 60:.1f} minutes, {len(text.split())} words of translation, chrF {chrf:.1f}")
    recognizer = Recognizer.from_pretrained(options.recognizer)
    for name in options.systems:
        begin = time.process_time()
        made = spoken(events, name, {"most_lag_s": options.most_lag_s, "hold_s": options.hold_s})
        compute_s = time.process_time() - begin
        if options.output is not None and made.audio is not None:
            file = options.output / f"{name.replace('/', '-').replace(':', '-')}.wav"
            write_audio(file, made.audio.samples, made.audio.sample_rate)
        report(name, made, recognizer, compute_s)


def spanish_talk(minutes: float) -> tuple[Audio, list[Segment]]:
    """Prompts in a row, the same ones for one length, and when each is said, with its text in English."""
    rows = read_manifest(Path(os.environ["LOQUENT_DATA"]) / "speech" / "asterisk_prompts.zip")
    english = {row.extra["prompt"]: row.text for row in rows if row.language == "en"}
    fit = [row for row in rows if row.language == "es" and row.extra["prompt"] in english and row.duration >= 1.0]
    rng = random.Random(0)
    rng.shuffle(fit)
    parts, prompts, size = list[np.ndarray](), list[Segment](), 0
    for row in itertools.cycle(fit):
        if size >= minutes * 60 * SAMPLE_RATE:
            break
        samples, pause = row.samples(), round(rng.uniform(0.3, 1.0) * SAMPLE_RATE)
        end = size + len(samples)
        prompts.append(Segment(size / SAMPLE_RATE, end / SAMPLE_RATE, english[row.extra["prompt"]]))
        parts += [samples, np.zeros(pause, np.float32)]
        size = end + pause
    return Audio(np.concatenate(parts), SAMPLE_RATE), prompts


def committed(prompts: list[Segment]) -> list[Event]:
    """The prompts' own translations."""
    events = list[Event]()
    for prompt in prompts:
        words = prompt.text.split()
        ends = np.linspace(prompt.start, prompt.end, len(words) + 1).tolist()[1:]
        for word, end in zip(words, ends, strict=True):
            time_s = math.ceil(end) + 1.0
            events.append(Translation(text=f" {word}", span=(0, 0), emission_time=time_s))
        events.append(Final(text=prompt.text, start=prompt.start, end=prompt.end, emission_time=time_s))
    return [replace(event, stage=TRANSLATE) for event in events]


def translated(talk: Audio, model: str, streaming: dict[str, object]) -> list[Event]:
    """What is committed of a talk while it is heard."""
    stream = Interpreter.from_pretrained(model, source="es", streaming=streaming).session()
    packets = np.array_split(talk.samples, int(talk.duration_s))
    events = [event for packet in tqdm(packets, unit="s") for event in stream.push(packet)] + stream.finish()
    return [event for event in events if isinstance(event, Translation | Final)]


def spoken(events: list[Event], name: str, following: dict[str, float]) -> Interpretation:
    """A translation as a voice speaks it."""
    voice, _, context = name.partition(":")
    session = Synthesizer.from_pretrained(voice).session(context=context, follow=True, **following)
    session.stage = SPEAK
    said = list[Event]()
    for event in tqdm(events, desc=name):
        hand_on([event], session)
        said += session.run()
    return interpretation_of(events + said + session.finish(), session.gives.sample_rate)


def report(name: str, made: Interpretation, recognizer: Recognizer, compute_s: float) -> None:
    """A table of minutes, and what was understood."""
    assert made.audio is not None
    print(f"\n{name}: {made.audio.duration_s:.1f} s, {compute_s / made.audio.duration_s:.3f} s of compute per second")
    print(f"{'minute':>6} {'start':>6} {'most':>6} {'end':>6} {'most':>6} {'n':>4}")
    heard = [segment for segment in made.segments if segment.spoken is not None]
    for minute, some in itertools.groupby(heard, lambda segment: int(segment.start // 60)):
        own = list(some)
        starts, ends = ([one.spoken[at] - (one.start, one.end)[at] for one in own if one.spoken] for at in (0, 1))
        figures = (np.mean(starts), max(starts), np.mean(ends), max(ends))
        print(f"{minute:6} {' '.join(f'{figure:6.2f}' for figure in figures)} {len(own):4}")
    expected, got = (
        normalize_english(text).split() for text in (made.text, recognizer.transcribe(made.audio, language="en").text)
    )
    print(f"gaps {gaps(made):.2f} a sentence; WER {100 * word_errors(expected, got) / len(expected):.1f} %")


def gaps(made: Interpretation) -> float:
    """Stretches without a sound within a sentence, of more than 0.1 s, per sentence."""
    assert made.audio is not None
    rate, count, sentences = made.audio.sample_rate, 0, 0
    for segment in made.segments:
        if segment.spoken is not None:
            sentences += 1
            first, last = (round(time_s * rate) for time_s in segment.spoken)
            sounding = np.flatnonzero(made.audio.samples[first:last])
            count += int((np.diff(sounding) > 0.1 * rate).sum())
    return count / max(sentences, 1)


if __name__ == "__main__":
    main()
