"""What live recognition gives: errors, delays, revisions and compute of each policy and chunk size, by set.

    LOQUENT_DATA=… python benchmarks/streaming_quality.py --model tiny.en --limit 20 --journal tiny.jsonl

LOQUENT_DATA holds `speech/*.zip` as for `whisper_offline.py`; only texts by humans count. Every system hears the same
recordings, each a stream, eight at a time. *Delay* is from the end of a word to its being committed, in audio time,
over the words that were recognised; when a word ends is found by aligning the human text with the stock model.
*Revised* counts words that were shown and changed again, per word of the final text (normalised erasure, arXiv
1912.03393). *Compute* is the CPU time of this process per second of audio.

A system is a policy and its chunk size, such as `local-agreement:1000`; `confident`, `agreement`, `hold-last` and
`at-once` are the policy incremental with that commit rule, `beam` is the default rule with a beam of four. `offline` is
the stock model on the whole recording, greedy, and `offline-beam` with a beam of five.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from text_normalizer import normalize_english
from tqdm import tqdm
from whisper_offline import Utterance as Listed
from whisper_offline import in_turns, read_sets

from loquent.asr import Recognizer
from loquent.recipes.data.manifest import Utterance, read_manifest
from loquent.recipes.loop.error_rate import word_errors
from loquent.recipes.whisper.evaluation import commit_delays, final_text, streamed
from loquent.recipes.whisper.word_times import WordTimes, WordTimesOptions
from loquent.speech.runtime.events import Event, Partial

STOCK = ("local-agreement", "alignatt")
ADAPTED = ("confident", "agreement", "hold-last", "at-once", "beam")
SYSTEMS = [
    *("offline", "local-agreement:1000", "alignatt:1000"),
    *(
        f"{rule}:{chunk}"
        for chunk in (100, 300, 500, 1000)
        for rule in ("confident", "agreement", "hold-last", "at-once")
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--adapter", help="folder; by default the one that comes with loquent")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--sets", nargs="+", help="names of zip files without the ending; all by default")
    parser.add_argument("--limit", type=int, help="recordings of each set, chosen by the hash of their paths")
    parser.add_argument(
        "--journal", type=Path, required=True, help="JSONL file of results; what is in it is not run again"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only print what the journal has")
    options = parser.parse_args()
    if unknown := [one for one in options.systems if not re.fullmatch(_NAMES, one)]:
        parser.error(f"no system {unknown[0]!r}; expected such as {', '.join(SYSTEMS[:4])}")

    torch.set_num_threads(options.threads)
    data = Path(os.environ.get("LOQUENT_DATA", "../shared/data")) / "speech"
    turns = in_turns(read_sets(data, options.sets, options.limit, english_only=True), 8)
    done = _read(options.journal)
    if not options.report:
        rows = {row.id: row for name in {turn[0].set for turn in turns} for row in _rows(data / f"{name}.zip")}
        run(turns, rows, done, options)
    report(done, options)


_NAMES = rf"offline(-beam)?|({'|'.join(STOCK + ADAPTED)}):\d+"


def run(
    turns: list[list[Listed]], rows: dict[str, Utterance], done: dict[str, Any], options: argparse.Namespace
) -> None:
    """Take every system through every turn, and write down what came of it."""
    extra = {} if options.adapter is None else {"adapter": options.adapter}
    recognizer = Recognizer.from_pretrained(options.model, **extra)
    times = WordTimes(WordTimesOptions(aligner=options.model))
    tasks: dict[str, Any] = {}
    work = [(turn, system) for turn in turns for system in options.systems if f"{system} {turn[0].path}" not in done]
    with options.journal.open("a") as journal:
        for turn, system in tqdm(work, unit="turn", file=sys.stderr):
            here = [rows[f"{one.set}/{one.path}"] for one in turn]
            times.prepare(here)
            said = times.read(here, pseudo=False)
            policy, _, chunk = system.partition(":")
            started = time.process_time()
            if policy.startswith("offline"):
                beam = 5 if policy.endswith("beam") else 1
                found: list[tuple[str, list[Event]]] = [
                    (result.text, [])
                    for result in recognizer.transcribe_files(
                        [row.samples() for row in here], beam_size=beam, language="en"
                    )
                ]
            else:
                if system not in tasks:
                    tasks[system] = _task(recognizer, policy, int(chunk))
                events = dict(streamed(tasks[system], here))
                found = [(final_text(events[number]), events[number]) for number in range(len(here))]
            spent = time.process_time() - started
            entry = {
                "system": system,
                "set": turn[0].set,
                "first": turn[0].path,
                "audio_s": sum(one.duration for one in turn),
                "cpu_s": spent,
                "texts": [[row.text, text] for row, (text, _) in zip(here, found, strict=True)],
                "delays": [
                    round(delay)
                    for row, (_, events) in zip(here, found, strict=True)
                    if row.id in said
                    for delay in commit_delays(events, said[row.id])
                ],
                "revised": sum(_revised(events) for _, events in found),
            }
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            done[f"{system} {turn[0].path}"] = entry


def _task(recognizer: Recognizer, policy: str, chunk_ms: int) -> Any:
    if policy in STOCK:
        task = recognizer.streaming_task(policy=policy, chunk_ms=chunk_ms, language="en")
        task.adapters = type(task.adapters)(task.model)  # the stock model: no adapters
        return task
    beam = {"beam_size": 4} if policy == "beam" else {"commit": policy}
    return recognizer.streaming_task(policy="incremental", chunk_ms=chunk_ms, language="en", **beam)


def _revised(events: Sequence[Event]) -> int:
    """Words that were shown and then replaced or taken away."""
    erased, shown = 0, list[str]()
    for event in events:
        if isinstance(event, Partial):
            words = normalize_english(event.stable + event.unstable).split()
            same = next(
                (i for i, (a, b) in enumerate(zip(shown, words, strict=False)) if a != b), min(len(shown), len(words))
            )
            erased += len(shown) - same
            shown = words
        elif event.type == "final":
            shown = []
    return erased


def report(done: dict[str, Any], options: argparse.Namespace) -> None:
    """Two tables: systems by what they give, and error rates by set."""
    entries = list(done.values())
    heard = [{e["first"] for e in entries if e["system"] == system} for system in options.systems]
    common = set.intersection(*heard) if heard else set()
    if not common:
        raise SystemExit("no turn that every system has had")
    entries = [e for e in entries if e["first"] in common]
    sets = sorted({e["set"] for e in entries})
    print(f"{options.model}, {sum(len(e['texts']) for e in entries if e['system'] == options.systems[0])} recordings")
    print(f"{'system':22}{'WER %':>8}{'delay ms p50':>14}{'p95':>8}{'revised %':>11}{'CPU ms/s':>10}")
    for system in options.systems:
        mine = [e for e in entries if e["system"] == system]
        errors, words = _errors(mine)
        delays = [delay for e in mine for delay in e["delays"]]
        p50, p95 = np.percentile(delays, [50, 95]) if delays else (np.nan, np.nan)
        spoken = sum(len(normalize_english(text).split()) for e in mine for _, text in e["texts"])
        live = not system.startswith("offline")
        print(
            f"{system:22}{100 * errors / words:8.1f}"
            + (f"{p50:14.0f}{p95:8.0f}{100 * sum(e['revised'] for e in mine) / spoken:11.1f}" if live else " " * 33)
            + f"{1000 * sum(e['cpu_s'] for e in mine) / sum(e['audio_s'] for e in mine):10.0f}"
        )
    print(f"\n{'WER % by set':22}" + "".join(f"{name[:12]:>14}" for name in sets))
    for system in options.systems:
        row = ""
        for name in sets:
            errors, words = _errors([e for e in entries if e["system"] == system and e["set"] == name])
            row += f"{100 * errors / words:14.1f}"
        print(f"{system:22}{row}")


def _errors(entries: Sequence[dict[str, Any]]) -> tuple[int, int]:
    pairs = [tuple(map(normalize_english, pair)) for entry in entries for pair in entry["texts"]]
    counted = [(said.split(), text.split()) for said, text in pairs if said]
    return sum(word_errors(said, text) for said, text in counted), max(sum(len(said) for said, _ in counted), 1)


def _rows(file: Path) -> Iterator[Utterance]:
    yield from read_manifest(file, split="eval")


def _read(journal: Path) -> dict[str, Any]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {f"{entry['system']} {entry['first']}": entry for entry in map(json.loads, lines)}


if __name__ == "__main__":
    main()
