"""What simultaneous translation gives: quality, latency and stability of each policy, on sets of sentences.

    LOQUENT_DATA=… python benchmarks/translation/translate_quality.py --model loquent/en-es --limit 200 --plot en-es.svg

LOQUENT_DATA holds `mt/eval.tar.zst`. Each sentence is a stream of its own that gets one word at a time. Latencies are
in source words; for those with "_CA" a source word takes 0.4 s and the time of this process counts, too. BLEU and chrF
are sacrebleu's. The latency of `offline` is that of waiting for the whole sentence.

A system is a policy with its options, such as `wait-k:k=3` or `alignatt:margin=4`. Other models and programs can be
compared by the hypotheses they make: `--text NAME=FILE`, one line for each sentence.
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
from pathlib import Path
from typing import Any

from tqdm import tqdm

from loquent.translate import Translator
from loquent.translate.score import Instance, score, table, word_by_word

SETS = {"tatoeba": "TEST_tatoeba-test-v2021-08-07", "flores": "TEST_flores200_devtest", "multi30k": "multi30k_test2016"}
SYSTEMS = [
    *("offline", "offline:beam_size=4"),
    *(f"wait-k:k={k}" for k in (1, 2, 3, 5, 7)),
    *(f"alignatt:margin={margin}" for margin in (1, 2, 4, 8)),
    *(f"local-agreement:agreement={count}" for count in (2, 3)),
    *(f"hold:held={count}" for count in (2, 4, 8)),
    *(f"ralcp:votes={votes}" for votes in (0.5, 0.8)),
    *("re-translation:masked=0", "re-translation:masked=2", "re-translation:masked=1,bias=0.25"),
]
WORD_S = 0.4  # that a source word takes to say
SHOWN = ("BLEU", "chrF", "AL", "LAAL", "YAAL", "DAL", "LAAL_CA", "NE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="loquent/en-es")
    parser.add_argument("--sets", nargs="+", default=["tatoeba", "flores"], choices=SETS)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--limit", type=int, default=200, help="sentences of each set, chosen at random, always alike")
    parser.add_argument("--data", type=Path, help="folder with mt/eval.tar.zst (default: LOQUENT_DATA)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw BLEU over LAAL")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="figures so far, in JSON; a run goes on from it")
    arguments = parser.parse_args()
    translator = Translator.from_pretrained(arguments.model, threads=1)
    journal = json.loads(arguments.journal.read_text()) if arguments.journal and arguments.journal.exists() else {}
    for name in arguments.sets:
        pairs = read_set(name, translator.source, translator.target, arguments.limit, arguments.data)
        figures = {}
        for system in arguments.systems:
            key = f"{arguments.model} {name} {len(pairs)} {system}"
            if key not in journal:
                journal[key] = score(streamed(translator, pairs, system, name))
                if arguments.journal:
                    arguments.journal.write_text(json.dumps(journal, indent=1))
            figures[system] = journal[key]
        print(f"{name}, {translator.source} to {translator.target}, {len(pairs)} sentences")
        shown = {system: {one: values.get(one) for one in SHOWN} for system, values in figures.items()}
        print(table(shown, "source words"), flush=True)
        if arguments.plot:
            draw(figures, arguments.plot.with_stem(f"{arguments.plot.stem}-{name}"), name)


def read_set(name: str, source: str, target: str, limit: int, data: Path | None = None) -> list[tuple[str, str]]:
    """Sentences with their reference translations; the files have English first."""
    folder = data or Path(os.environ.get("LOQUENT_DATA", ""))
    other = target if source == "en" else source
    unpacked = subprocess.run(["zstd", "-dcq", str(folder / "mt/eval.tar.zst")], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(unpacked.stdout)) as tar:
        member = next(one for one in tar.getmembers() if Path(one.name).name == f"{SETS[name]}.en-{other}.tsv")
        stream = tar.extractfile(member)
        assert stream is not None
        pairs = [line.split("\t")[:2] for line in stream.read().decode("utf-8").splitlines()]
    random.Random(1).shuffle(pairs)
    return [(a, b) if source == "en" else (b, a) for a, b in pairs[:limit]]


def streamed(translator: Translator, pairs: list[tuple[str, str]], system: str, name: str) -> list[Instance]:
    """Every sentence, a word at a time."""
    options = options_of(system)
    return [
        word_by_word(translator.session(**options), source, reference, WORD_S)
        for source, reference in tqdm(pairs, f"{name} {system}")
    ]


def options_of(system: str) -> dict[str, Any]:
    """``policy:name=value,…`` as options."""
    policy, _, rest = system.partition(":")
    options: dict[str, Any] = {"policy": policy}
    for part in rest.split(",") if rest else ():
        name, _, value = part.partition("=")
        options[name] = json.loads(value)
    return options


def draw(figures: dict[str, dict[str, Any]], file: Path, name: str) -> None:
    """BLEU over LAAL, a line for each policy."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    policies: dict[str, list[tuple[float, float]]] = {}
    for system, values in figures.items():
        policies.setdefault(system.partition(":")[0], []).append((values["LAAL"], values["BLEU"]))
    for policy, points in policies.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=policy)
    axes.set(xlabel="LAAL (source words)", ylabel="BLEU", title=name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file)
    print(f"{file}", file=sys.stderr)


if __name__ == "__main__":
    main()
