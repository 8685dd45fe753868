"""How often short speech is taken for another language, of all that a Whisper knows and of a few that may occur.

    LOQUENT_DATA=… python benchmarks/recognition/languages.py --model base --among en,es

LOQUENT_DATA holds `speech/*.zip`. The recordings are those in the languages named, as many of each; of every one the
first seconds are looked at, or all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

from loquent.asr import Recognizer
from loquent.recipes.data.manifest import Utterance, read_manifest
from loquent.speech.text.languages import language_codes

RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--among", default="en,es", help="codes of the languages that may occur")
    parser.add_argument("--seconds", nargs="+", type=float, default=(1.0, 2.0, 4.0), help="lengths of the beginnings")
    parser.add_argument("--limit", type=int, default=30, help="recordings of each language")
    parser.add_argument("--shortest", type=float, default=2.0, metavar="S", help="leave out shorter recordings")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recognizer = Recognizer.from_pretrained(options.model)
    among = language_codes(options.among)
    wrong: Counter[tuple[str, bool]] = Counter()
    rows = [row for code in among for row in chosen(code, options.limit, options.shortest)]
    if not rows:
        raise SystemExit("no recordings in these languages; set LOQUENT_DATA")
    lengths = {f"{seconds:g} s": round(seconds * RATE) for seconds in options.seconds} | {"all": None}
    for row in tqdm(rows, file=sys.stderr):
        samples = row.samples()
        for name, length in lengths.items():
            table = recognizer.detect_language(samples[:length])
            wrong[name, False] += next(iter(table)) != row.language
            wrong[name, True] += max(among, key=table.__getitem__) != row.language  # as `language=` would choose
    print(f"{len(rows)} recordings\n\n| heard | wrong, of {len(table)} languages | wrong, of {', '.join(among)} |")
    print("|---|---|---|")
    for name in lengths:
        shares = (100 * wrong[name, restricted] / len(rows) for restricted in (False, True))
        print(f"| {name} | " + " | ".join(f"{share:.0f} %" for share in shares) + " |")


def chosen(language: str, limit: int, shortest_s: float) -> list[Utterance]:
    """Recordings in a language, whatever set they are of, ordered by the hash of their paths."""
    archives = sorted(Path(os.environ.get("LOQUENT_DATA", "../shared/data")).glob("speech/*.zip"))
    rows = [row for file in archives for row in read_manifest(file, language=language, human_text=True)]
    rows = [row for row in rows if row.duration >= shortest_s]
    return sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())[:limit]


if __name__ == "__main__":
    main()
