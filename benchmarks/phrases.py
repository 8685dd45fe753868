"""What phrases to prefer do for rare names: how many are recognised, and what happens to everything else.

    zstdcat $LOQUENT_DATA/mt/train.en-de.tsv.zst | cut -f 1 > english.txt
    LOQUENT_DATA=… python benchmarks/phrases.py --model tiny.en --distractors english.txt

LOQUENT_DATA holds `speech/*.zip` and `more/*/manifest.jsonl` as for `streaming_quality.py`. All splits count: the stock
model was trained on none of them, but adapters for live audio were on some. A rare name is a word that a set writes
with a capital within sentences, that no set writes small, and of which the tokenizer makes two tokens or more. The
phrases are the rare names of a set, and 100 or 1000 distractors beside them: rare names of a text, none of which is a
name of the set. Half of the recordings of each set have a rare name in them, and half have none.

*Recall* counts the names that were said and written. *Inserted* counts phrases that were written and not said, for 100
recordings. Errors are of all words, in recordings with a name and in those without.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from text_normalizer import normalize_english
from torch.nn import functional as F
from tqdm import tqdm

from loquent.asr import Recognizer
from loquent.asr.recordings.recording import MelRecording
from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.offline.decoding import WindowDecoder
from loquent.asr.whisper.quantization import int8_layers
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.recipes.data.manifest import Utterance, read_manifest
from loquent.recipes.loop.error_rate import word_errors
from loquent.recipes.whisper.evaluation import final_text, streamed

SETS = ("game_fotaq_en", "lj_text_selfrecorded", "ljspeech_mini")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="SET")
    parser.add_argument(
        "--limit", type=int, default=30, help="recordings with a name, and as many without, of each set"
    )
    parser.add_argument("--boosts", nargs="+", type=float, default=(1.0, 2.0, 3.0, 4.0))
    parser.add_argument("--distractors", type=Path, required=True, help="file of English sentences, with many names")
    parser.add_argument("--lists", nargs="+", metavar="LIST", help='such as "names + 100"; all by default')
    parser.add_argument("--beam-size", nargs="*", type=int, default=(5, 1))
    parser.add_argument("--live", nargs="*", default=(), metavar="POLICY", help="policies to measure as well")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = Recognizer.from_pretrained(options.model)
    assert isinstance(recognizer, WhisperRecognizer)
    sets, others = chosen_sets(recognizer, options)
    figures: dict[str, Figures] = {}
    for name, (names, rows) in sets.items():
        lists = phrase_lists(names, others, name)
        for system, row, listed, text in tqdm(_texts(recognizer, rows, lists, options), desc=name, file=sys.stderr):
            figures.setdefault(system, Figures()).add(row.text, text, names, listed)
    print("| | recall | inserted | errors with a name | errors without |\n|---|---|---|---|---|")
    for system, one in sorted(figures.items()):
        print(one.row(system))
    if options.json:
        options.json.write_text(json.dumps({system: vars(one) for system, one in figures.items()}, indent=2) + "\n")


@dataclass
class Figures:
    """What one system did with all recordings."""

    said: int = 0
    found: int = 0
    inserted: int = 0
    recordings: int = 0
    errors: list[int] = field(default_factory=lambda: [0, 0])  # of recordings without and with a name
    words: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, reference: str, hypothesis: str, names: Sequence[str], phrases: Sequence[str]) -> None:
        """Count a recording."""
        truth, written = (normalize_english(text).split() for text in (reference, hypothesis))
        counts, others = Counter(truth), Counter(written)
        wanted = {normalize_english(name) for name in names}
        self.said += (said := sum(counts[name] for name in wanted))
        self.found += sum(min(counts[name], others[name]) for name in wanted)
        self.inserted += sum(max(others[p] - counts[p], 0) for p in {normalize_english(p) for p in phrases})
        self.recordings += 1
        self.errors[said > 0] += word_errors(truth, written)
        self.words[said > 0] += len(truth)

    def row(self, system: str) -> str:
        """A line of the table."""
        without, having = (100 * errors / max(words, 1) for errors, words in zip(self.errors, self.words, strict=True))
        recall, inserted = 100 * self.found / max(self.said, 1), 100 * self.inserted / self.recordings
        return f"| {system} | {recall:.1f} % of {self.said} | {inserted:.1f} | {having:.1f} % | {without:.1f} % |"


def read_all(data: Path) -> dict[str, list[Utterance]]:
    """English with human texts by set, ordered by the hash of the paths."""
    sets: dict[str, list[Utterance]] = {}
    for file in sorted([*data.glob("speech/*.zip"), *data.glob("more/*/manifest.jsonl")]):
        for row in read_manifest(file, language="en", where=lambda row: "text_source" not in row.extra):
            sets.setdefault(row.set, []).append(row)
    if not sets:
        raise SystemExit(f"no recordings in {data}; set LOQUENT_DATA")
    return {name: sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest()) for name, rows in sets.items()}


def chosen_sets(
    recognizer: WhisperRecognizer, options: argparse.Namespace
) -> tuple[dict[str, tuple[list[str], list[Utterance]]], list[str]]:
    """The rare names of each set, and its recordings; and the rare names of the other text."""
    everything = read_all(Path(os.environ.get("LOQUENT_DATA", "../shared/data")))
    text = options.distractors.read_text(encoding="utf-8")
    small = {word for rows in everything.values() for row in rows for word in re.findall(r"\b[a-z]+\b", row.text)}
    small |= set(re.findall(r"\b[a-z]+\b", text))

    def rare_names(texts: Iterable[str]) -> list[str]:
        capitals = {word for text in texts for word in re.findall(r"[a-z,] ([A-Z][a-z]{2,})\b", text)}
        rare = (word for word in capitals if word.lower() not in small)
        return sorted(word for word in rare if len(recognizer.tokenizer.encode(" " + word)) > 1)

    chosen = {}
    for name in options.sets:
        rows = everything[name]
        names = rare_names(row.text for row in rows)
        having = [row for row in rows if set(re.findall(r"\w+", row.text)) & set(names)][: options.limit]
        lacking = [row for row in rows if not set(re.findall(r"\w+", row.text)) & set(names)][: len(having)]
        chosen[name] = names, having + lacking
    return chosen, rare_names([text])


def phrase_lists(names: Sequence[str], distractors: Sequence[str], seed: str) -> dict[str, list[str]]:
    """Lists of phrases by name."""
    others = sorted({*distractors} - {*names})
    random.Random(hashlib.sha256(seed.encode()).digest()).shuffle(others)
    lists: dict[str, list[str]] = {"none": [], "names": list(names)}
    for count in (100, 1000):
        lists[f"names + {count}"] = [*names, *others[:count]][:1000]
    lists["1000 others"] = others[:1000]
    return lists


def _texts(
    recognizer: WhisperRecognizer, rows: Sequence[Utterance], lists: dict[str, list[str]], options: argparse.Namespace
) -> Iterator[tuple[str, Utterance, list[str], str]]:
    """System, recording, phrases, and the text that was written."""
    decoder = WindowDecoder(int8_layers(recognizer.model), recognizer.tokenizer)
    wanted = options.lists or [name for name in lists if name != "none"]
    plans = [("none", 1.0), *((name, boost) for name in wanted for boost in options.boosts)]
    for row in rows:
        with torch.inference_mode():
            recording = MelRecording(row.samples(), recognizer.model.config.n_mels)
            mel = recording.window(0, recording.size_until(decoder.window)).mel
            memory = decoder.encode([F.pad(mel, (0, 0, 0, decoder.window - len(mel)))])
            for beam in options.beam_size:
                for name, boost in plans:
                    asked = DecodingOptions(
                        language="en", beam_size=beam, phrases=tuple(lists[name]), phrase_boost=boost
                    )
                    text = decoder.decode(memory, [0], [asked])[0].text
                    yield f"beam {beam}, {name}" + f", {boost:g}" * (name != "none"), row, lists[name], text
    for policy in options.live:
        task = recognizer.streaming_task(policy=policy, language="en")
        for name, boost in plans:
            given: dict[str, Any] = {"phrases": lists[name], "phrase_boost": boost} if name != "none" else {}
            for number, events in streamed(task, rows, **given):
                system = f"{policy}, {name}" + f", {boost:g}" * (name != "none")
                yield system, rows[number], lists[name], final_text(events)


if __name__ == "__main__":
    main()
