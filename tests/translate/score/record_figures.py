"""Writes `foreign_figures.json`: the figures of SimulEval, OmniSTEval and simulstream that ours are compared with.

The tests read the file, so they need none of the three. To write it again, in an environment of its own:

    pip install simuleval==1.1.4 omnisteval==0.1.10 "setuptools<81"
    pip install --no-deps simulstream==1.0.0
    python tests/translate/score/record_figures.py
"""

from __future__ import annotations

import json
import random
import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Imported by name: they are no dependencies of the project.
_alignment, _data, _scoring = (import_module(f"omnisteval.{name}") for name in ("alignment", "data", "scoring"))
Word, Instance, fix_emission_ca = _alignment.Word, _data.Instance, _data.fix_emission_ca
LAALScorer, YAALScorer = _scoring.LAALScorer, _scoring.YAALScorer
resegment = import_module("omnisteval.resegment").resegment
_instance = import_module("simuleval.evaluator.instance")
LogInstance, TextToTextInstance = _instance.LogInstance, _instance.TextToTextInstance
LATENCY_SCORERS_DICT = import_module("simuleval.evaluator.scorers.latency_scorer").LATENCY_SCORERS_DICT
LogReader = import_module("simulstream.metrics.readers").LogReader
NormalizedErasure = import_module("simulstream.metrics.stats").NormalizedErasure

NAMES = ("AL", "LAAL", "AP", "DAL", "ATD", "StartOffset", "EndOffset")
VOCABULARY = (
    "we are going to the house on hill , because it was raining all day . they said nothing ; is that so ?".split()
)


def simuleval_figures(instance: Any, computation_aware: bool = False) -> dict[str, float]:
    return {name: LATENCY_SCORERS_DICT[name](computation_aware)({0: instance}) for name in NAMES}


def speech(chance: random.Random) -> dict[str, Any]:
    """A line as SimulEval writes it: chunks of 320 ms, and time for computing that adds up."""
    length = chance.randint(2_000, 9_000)
    words, references = chance.randint(1, 14), chance.randint(1, 14)
    delays = sorted(min(length, 320 * chance.randint(1, length // 320 + 1)) for _ in range(words))
    elapsed, spent, last = [], 0.0, None
    for delay in delays:
        if delay != last:
            spent += chance.uniform(10, 900)
        last = delay
        elapsed.append(delay + spent)
    return {
        "index": 0,
        "prediction": " ".join(chance.choices(VOCABULARY, k=words)),
        "delays": delays,
        "elapsed": elapsed,
        "prediction_length": words,
        "reference": " ".join(chance.choices(VOCABULARY, k=references)),
        "source": ["a.wav", "samplerate: 16000 Hz"],
        "source_length": length,
    }


def text(chance: random.Random) -> dict[str, Any]:
    length, words, references = (chance.randint(1, 12) for _ in range(3))
    return {
        "index": 0,
        "prediction": " ".join(chance.choices(VOCABULARY, k=words)),
        "delays": sorted(chance.randint(1, length) for _ in range(words)),
        "elapsed": [0] * words,
        "prediction_length": words,
        "reference": " ".join(chance.choices(VOCABULARY, k=references)),
        "source": " ".join(chance.choices(VOCABULARY, k=length)),
        "source_length": length,
    }


def of_speech(line: dict[str, Any]) -> dict[str, Any]:
    instance = LogInstance(json.dumps(line))
    mine = Instance.from_dict({**line, "emission_cu": line["delays"], "emission_ca": line["elapsed"]})
    words = [Word("", emission_cu=cu, emission_ca=ca) for cu, ca in zip(line["delays"], line["elapsed"], strict=True)]
    return {
        "line": line,
        "plain": simuleval_figures(instance) | {"YAAL": YAALScorer().compute(mine)},
        "aware": simuleval_figures(instance, computation_aware=True) | {"YAAL": YAALScorer(True).compute(mine)},
        "corrected": [word.emission_ca for word in fix_emission_ca(words)],
    }


def of_text(line: dict[str, Any]) -> dict[str, Any]:
    """From the class that SimulEval uses while it runs: that of its logs takes text for speech in ATD."""
    instance = TextToTextInstance(0, None, None)
    instance.latency_unit = "word"
    instance.source, instance.reference = line["source"].split(), line["reference"]
    instance.delays, instance.elapsed = line["delays"], line["elapsed"]
    return {"line": line, "plain": simuleval_figures(instance)}


def long_stream(chance: random.Random) -> dict[str, Any]:
    """A recording of several segments, and a translation with words left out, put in and changed."""
    segments, hypothesis, now = [], [], 0.0
    for _ in range(6):
        words = chance.choices(VOCABULARY, k=chance.randint(1, 9))
        duration = round(300.0 * len(words) + chance.uniform(0, 900), 3)
        segments.append({"text": " ".join(words), "start": now, "duration": duration})
        for at, word in enumerate(words):
            time = round(now + 300.0 * (at + 1) + chance.uniform(200, 4000), 3)
            hypothesis += [(word, time)] * (chance.random() > 0.2)
            hypothesis += [(chance.choice(VOCABULARY), time)] * (chance.random() < 0.3)
        now = round(now + duration + chance.uniform(0, 500), 3)
    last = segments[-1]["start"] + segments[-1]["duration"]
    delays = sorted(min(time, last) for _, time in hypothesis)
    elapsed = [round(delay + chance.uniform(0, 700), 3) for delay in delays]
    reference = [Word(word, seq_id=at) for at, segment in enumerate(segments) for word in segment["text"].split()]
    written = [
        Word(word, emission_cu=delay, emission_ca=later)
        for (word, _), delay, later in zip(hypothesis, delays, elapsed, strict=True)
    ]
    where = [
        {"offset": one["start"], "duration": one["duration"], "time_to_recording_end": last - one["start"]}
        for one in segments
    ]
    parts, _ = resegment([reference], [written], where, [segment["text"] for segment in segments])
    return {
        "segments": segments,
        "prediction": " ".join(word for word, _ in hypothesis),
        "delays": delays,
        "elapsed": elapsed,
        "source_length": last,
        "parts": [part.prediction for part in parts],
        "StreamLAAL": LAALScorer()(parts),
        "StreamLAAL_CA": LAALScorer(True)(parts),
        "LongYAAL": YAALScorer(is_longform=True)(parts),
        "LongYAAL_CA": YAALScorer(True, is_longform=True)(parts),
    }


def retranslation(chance: random.Random) -> dict[str, Any]:
    """A log of simulstream with SentencePiece's pieces, whose last ones are replaced now and then."""
    lines: list[dict[str, Any]] = [{"id": 0, "metadata": {"wav_name": "talk.wav"}}]
    tokens: list[str] = []
    for step in range(1, 13):
        deleted = tokens[len(tokens) - chance.randint(0, min(3, len(tokens))) :]
        generated = chance.choices(["▁we", "▁go", "ing", "▁to", "s", "▁house"], k=chance.randint(0, 3))
        generated = ["▁we"] * (step == 1) + generated
        tokens = tokens[: len(tokens) - len(deleted)] + generated
        lines.append(
            {
                "id": 0,
                "total_audio_processed": step * 1.0,
                "computation_time": round(chance.uniform(0.1, 0.9), 3),
                "generated_tokens": generated,
                "deleted_tokens": deleted,
            }
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        reader = LogReader(SimpleNamespace(detokenizer_type="simuleval", latency_unit="spm"), str(file))
    said = reader.final_outputs_and_latencies()["talk"]
    return {
        "lines": lines,
        "prediction": said.final_text,
        "delays": said.ideal_delays,
        "elapsed": said.computational_aware_delays,
        "NE": NormalizedErasure().compute(reader),
    }


if __name__ == "__main__":
    figures = {
        "speech": [of_speech(speech(random.Random(seed))) for seed in range(12)],
        "text": [of_text(text(random.Random(seed))) for seed in range(12)],
        "long": [long_stream(random.Random(seed)) for seed in range(6)],
        "retranslation": [retranslation(random.Random(seed)) for seed in range(4)],
    }
    file = Path(__file__).with_name("foreign_figures.json")
    lists = {name: ",\n  ".join(map(json.dumps, cases)) for name, cases in figures.items()}
    body = ",\n".join(f'"{name}": [\n  {cases}\n]' for name, cases in lists.items())
    file.write_text("{\n" + body + "\n}\n", encoding="utf-8")
