"""What live recognition gives: errors, delays, revisions and compute of each policy and chunk size, by set.

    LOQUENT_DATA=… python benchmarks/streaming_quality.py --model tiny.en --limit 20 --journal tiny.jsonl

LOQUENT_DATA holds `speech/*.zip` as for `whisper_offline.py`, and may hold `more/*/manifest.jsonl` (see
`recipes/data/corpora.py`); only texts by humans count. Sets of which nothing was trained on and sets of a kind that was
trained on are reported apart, always: an adapter gets better at what it has met, whatever becomes of the rest.
Every system hears the same recordings, each a stream, eight at a time. *Delay* is from the end of a word to its being
committed, in audio time, over the words that were recognised; when a word ends is found by aligning the human text with
the stock model. *Revised* counts words that were shown and changed again, per word of the final text (normalised
erasure, arXiv 1912.03393). *Compute* is the CPU time of this process per second of audio.

A system is a policy and its chunk size, such as `local-agreement:1000`; `confident`, `agreement`, `hold-last` and
`at-once` are the policy incremental with that commit rule, `beam` is the default rule with a beam of four. `offline` is
the stock model on the whole recording, greedy, and `offline-beam` with a beam of five.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from text_normalizer import normalize_english
from tqdm import tqdm
from whisper_offline import in_turns

from loquent.asr import Recognizer
from loquent.recipes.data.manifest import Utterance, read_manifest
from loquent.recipes.loop.error_rate import word_errors
from loquent.recipes.whisper.evaluation import commit_delays, final_text, streamed
from loquent.recipes.whisper.word_times import WordTimes, WordTimesOptions
from loquent.speech.runtime.events import Event, Partial

UNSEEN = (  # by the adapters that come with loquent
    *("game_drascula_en", "asterisk_prompts", "asterisk_en_gb", "misc_en"),
    *("uqm", "accent_archive", "common_voice"),
)
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
    parser.add_argument("--block-ms", type=int, help="what the encoder of an adapter sees together; by default 1000")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument(
        "--sets", nargs="+", help="names of zip files without the ending, and of folders; all by default"
    )
    parser.add_argument(
        "--unseen", nargs="*", default=UNSEEN, metavar="SET", help="sets of which nothing was trained on"
    )
    parser.add_argument("--by-accent", action="store_true", help="a set for each accent, where accents are known")
    parser.add_argument("--limit", type=int, help="recordings of each set, chosen by the hash of their paths")
    parser.add_argument(
        "--journal", type=Path, required=True, help="JSONL file of results; what is in it is not run again"
    )
    parser.add_argument("--json", type=Path, help="file for the figures of the tables")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only print what the journal has")
    options = parser.parse_args()
    if unknown := [one for one in options.systems if not re.fullmatch(_NAMES, one)]:
        parser.error(f"no system {unknown[0]!r}; expected such as {', '.join(SYSTEMS[:4])}")

    torch.set_num_threads(options.threads)
    data = Path(os.environ.get("LOQUENT_DATA", "../shared/data"))
    turns = in_turns(read_sets(data, options.sets, options.limit, options.by_accent), 8)
    done = _read(options.journal)
    if not options.report:
        run(turns, done, options)
    summary = summarize(list(done.values()), options.systems, options.unseen)
    print(f"{options.model}\n{tables(summary)}")
    if options.json:
        options.json.write_text(json.dumps(summary, indent=2) + "\n")


_NAMES = rf"offline(-beam)?|({'|'.join(STOCK + ADAPTED)}):\d+"


def read_sets(
    data: Path, names: Sequence[str] | None, limit: int | None, by_accent: bool
) -> dict[str, list[Utterance]]:
    """What there is to measure with by set, chosen and ordered by the hash of the paths: English with human texts."""
    sets: dict[str, list[Utterance]] = {}
    for file in sorted([*data.glob("speech/*.zip"), *data.glob("more/*/manifest.jsonl")]):
        if names and (file.stem if file.suffix == ".zip" else file.parent.name) not in names:
            continue
        for row in read_manifest(file, split="eval", language="en", where=lambda row: "text_source" not in row.extra):
            accent = str(row.extra.get("accent", "")) if by_accent else ""
            name = f"{row.set}/{accent}" if accent else row.set
            sets.setdefault(name, []).append(replace(row, set=name))
    if not sets:
        raise SystemExit(f"no evaluation data in {data}; set LOQUENT_DATA")
    return {name: sorted(rows, key=_hash)[:limit] for name, rows in sets.items()}


def _hash(row: Utterance) -> bytes:
    return hashlib.sha256(row.id.partition("/")[2].encode()).digest()


def run(turns: Sequence[Sequence[Utterance]], done: dict[str, Any], options: argparse.Namespace) -> None:
    """Take every system through every turn, and write down what came of it."""
    extra = {} if options.adapter is None else {"adapter": options.adapter}
    recognizer = Recognizer.from_pretrained(options.model, **extra)
    times = WordTimes(WordTimesOptions(aligner=options.model))
    tasks: dict[str, Any] = {}
    work = [(turn, system) for turn in turns for system in options.systems if _key(system, turn[0].id) not in done]
    with options.journal.open("a") as journal:
        for here, system in tqdm(work, unit="turn", file=sys.stderr):
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
                    tasks[system] = _task(recognizer, policy, int(chunk), options.block_ms)
                events = dict(streamed(tasks[system], here))
                found = [(final_text(events[number]), events[number]) for number in range(len(here))]
            spent = time.process_time() - started
            entry = {
                "system": system,
                "set": here[0].set,
                "first": here[0].id,
                "audio_s": sum(row.duration for row in here),
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
            done[_key(system, here[0].id)] = entry


def _task(recognizer: Recognizer, policy: str, chunk_ms: int, block_ms: int | None) -> Any:
    if policy in STOCK:
        task = recognizer.streaming_task(policy=policy, chunk_ms=chunk_ms, language="en")
        task.adapters = type(task.adapters)(task.model)  # the stock model: no adapters
        return task
    beam = {"beam_size": 4} if policy == "beam" else {"commit": policy}
    return recognizer.streaming_task(policy="incremental", chunk_ms=chunk_ms, block_ms=block_ms, language="en", **beam)


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


def summarize(entries: Sequence[dict[str, Any]], systems: Sequence[str], unseen: Sequence[str]) -> dict[str, Any]:
    """Figures of each system over the sets that it was not trained on, over the others, and of each set alone.

    Only turns that every system has had count.

    Returns:
        "unseen" and "seen", where there are such sets, each with "sets", the number of "recordings" and "systems",
        whose figures come by name; and "by_set", error rates in per cent by set and system.

    Raises:
        SystemExit: there is no such turn.
    """
    common = set.intersection(*({e["first"] for e in entries if e["system"] == system} for system in systems))
    if not common:
        raise SystemExit("no turn that every system has had")
    entries = [e for e in entries if e["first"] in common and e["system"] in systems]
    summary: dict[str, Any] = {}
    for group in ("unseen", "seen"):
        inside = [e for e in entries if (e["set"].partition("/")[0] in unseen) == (group == "unseen")]
        if inside:
            summary[group] = {
                "sets": sorted({e["set"] for e in inside}),
                "recordings": sum(len(e["texts"]) for e in inside if e["system"] == systems[0]),
                "systems": {system: _figures([e for e in inside if e["system"] == system]) for system in systems},
            }
    summary["by_set"] = {
        name: {system: _rate([e for e in entries if (e["set"], e["system"]) == (name, system)]) for system in systems}
        for name in sorted({e["set"] for e in entries})
    }
    return summary


def _figures(entries: Sequence[dict[str, Any]]) -> dict[str, float]:
    by_set = [_rate([e for e in entries if e["set"] == name]) for name in {e["set"] for e in entries}]
    figures = {
        "wer": _rate(entries),
        "wer_mean_of_sets": statistics.fmean(by_set),
        "compute_ms_per_s": 1000 * sum(e["cpu_s"] for e in entries) / sum(e["audio_s"] for e in entries),
    }
    delays = [delay for e in entries for delay in e["delays"]]
    if delays:
        spoken = sum(len(normalize_english(text).split()) for e in entries for _, text in e["texts"])
        p50, p95 = np.percentile(delays, [50, 95])
        revised = 100 * sum(e["revised"] for e in entries) / max(spoken, 1)
        figures |= {"delay_p50_ms": float(p50), "delay_p95_ms": float(p95), "revised": revised}
    return figures


def tables(summary: dict[str, Any]) -> str:
    """The figures of `summarize` for people."""
    lines = []
    titles = {"unseen": "sets that nothing was trained on", "seen": "sets of a kind that was trained on"}
    columns = ("wer", "wer_mean_of_sets", "delay_p50_ms", "delay_p95_ms", "revised", "compute_ms_per_s")
    heads = ("WER %", "mean of sets", "delay ms p50", "p95", "revised %", "CPU ms/s")
    for group, title in titles.items():
        if group not in summary:
            continue
        part = summary[group]
        lines += ["", f"{title}: {len(part['sets'])}, {part['recordings']} recordings"]
        lines.append(f"{'system':22}" + "".join(f"{head:>14}" for head in heads))
        for system, figures in part["systems"].items():
            cells = (
                f"{figures[name]:14.{0 if 'ms' in name else 1}f}" if name in figures else " " * 14 for name in columns
            )
            lines.append(f"{system:22}" + "".join(cells))
        lines += ["", f"{'WER % by set':22}" + "".join(f"{name[-13:]:>14}" for name in part["sets"])]
        for system in part["systems"]:
            rates = (summary["by_set"][name][system] for name in part["sets"])
            lines.append(f"{system:22}" + "".join(f"{rate:14.1f}" for rate in rates))
    return "\n".join(lines)


def _rate(entries: Sequence[dict[str, Any]]) -> float:
    """Errors for every hundred words."""
    pairs = [tuple(map(normalize_english, pair)) for entry in entries for pair in entry["texts"]]
    counted = [(said.split(), text.split()) for said, text in pairs if said]
    errors = sum(word_errors(said, text) for said, text in counted)
    return 100 * errors / max(sum(len(said) for said, _ in counted), 1)


def _key(system: str, first: str) -> str:
    return f"{system} {first}"


def _read(journal: Path) -> dict[str, Any]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {_key(entry["system"], entry["first"]): entry for entry in map(json.loads, lines)}


if __name__ == "__main__":
    main()
