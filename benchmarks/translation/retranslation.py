"""What it costs to translate again at every word: all at once, against piece by piece, against never again (wait-k).

    python benchmarks/translation/retranslation.py TEST.tsv    # what writes all at once has random weights
    python benchmarks/translation/retranslation.py TEST.tsv --retranslation runs/retranslate/best --picture FILE

TEST.tsv has source and reference in its first two columns. The systems take turns, sentence by sentence, each as one
stream that is pushed word by word; times are those of this process, the best of several turns. No figure is printed
unless every sentence that was translated again and again ends as the same model translates it at once. With random
weights the times mean something and the texts do not, so these are not scored.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from loquent.speech.hub import resolve
from loquent.speech.text.words import Text
from loquent.translate.families import load_translation_model
from loquent.translate.non_autoregressive.model import NonAutoregressiveTranslator
from loquent.translate.non_autoregressive.network import NonAutoregressive, NonAutoregressiveConfig
from loquent.translate.score import Instance, Recorder, score
from loquent.translate.seq2seq.model import Seq2SeqTranslator
from loquent.translate.translator import Translator


@dataclass
class System:
    """A model with a policy, and what it did.

    scored:   whether its texts mean anything.
    seconds:  of each sentence, for each word, the last one for the end.
    """

    name: str
    translator: Translator
    options: dict[str, Any]
    scored: bool = True
    seconds: list[list[float]] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="loquent/en-es", help="of the family seq2seq")
    parser.add_argument("--retranslation", help="folder of a model of the family non-autoregressive")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--least-words", type=int, default=4, help="of a sentence")
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="an SVG to draw, too; needs matplotlib")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = read(options.pairs, options.sentences, options.least_words)
    systems = make(options)
    for _ in range(options.turns):
        for number, (source, reference) in enumerate(tqdm(pairs, leave=False, disable=None)):
            for system in systems:
                run(system, number, source, reference)
    check(systems)
    show(systems, pairs, options)
    if options.picture:
        draw(systems, options)


def read(path: Path, count: int, least_words: int) -> list[tuple[str, str]]:
    """Some of a file's pairs, from all of it."""
    lines = [line.split("\t")[:2] for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [(one, other) for one, other in lines if len(one.split()) >= least_words]
    if not pairs:
        sys.exit(f"{path} has no pairs of {least_words} words or more; expected source, tab, reference")
    return pairs[:: max(len(pairs) // count, 1)][:count]


def make(options: argparse.Namespace) -> list[System]:
    """The three systems; two share a model, and all an encoder if the third has random weights."""
    cpu = torch.device("cpu")
    written = load_translation_model(resolve(options.model).path, cpu)
    if not isinstance(written, Seq2SeqTranslator):
        sys.exit(f"--model is of the family seq2seq, got {options.model}")
    if options.retranslation:
        at_once = load_translation_model(Path(options.retranslation), cpu)
    else:
        torch.manual_seed(0)
        network = NonAutoregressive(NonAutoregressiveConfig(written.network.config)).eval()
        network.load_state_dict(written.network.state_dict(), strict=False)
        at_once = NonAutoregressiveTranslator(network, written.codec, written.source, written.target)
    again = {"policy": "re-translation"}
    return [
        System("again, piece by piece", Translator(written), again),
        System("again, all at once", Translator(at_once), again, bool(options.retranslation)),
        System(f"wait-{options.k}", Translator(written), {"policy": "wait-k", "k": options.k}),
    ]


def run(system: System, number: int, source: str, reference: str) -> None:
    """Translate a sentence as a stream of words."""
    session, recorder, seconds = system.translator.session(**system.options), Recorder("words"), list[float]()
    words = source.split()
    for at, word in enumerate([*words, None], start=1):
        began = time.process_time()
        events = session.finish() if word is None else session.push(Text(f"{word} ", at))
        seconds.append(time.process_time() - began)
        recorder.take(events)
    if number == len(system.seconds):
        system.seconds.append(seconds)
        system.instances.append(recorder.instance(len(words), reference, source))
    else:
        system.seconds[number] = [min(pair) for pair in zip(system.seconds[number], seconds, strict=True)]


def check(systems: Sequence[System]) -> None:
    """Exit unless what is translated again and again ends as what is translated at once."""
    for system in systems[:2]:
        for instance in tqdm(system.instances, "checking", leave=False, disable=None):
            offline = system.translator.translate(instance.source)
            if instance.prediction.split() != offline.split():
                sys.exit(f"refused: {system.name} ends as {instance.prediction!r}, but offline it is {offline!r}")
    if not all(instance.prediction for system in systems if system.scored for instance in system.instances):
        print("some sentences were not translated at all", file=sys.stderr)


def show(systems: Sequence[System], pairs: Sequence[tuple[str, str]], options: argparse.Namespace) -> None:
    """Print cost, quality, latency and stability side by side."""
    words = sum(len(source.split()) for source, _ in pairs)
    print(f"{len(pairs)} sentences, {words} words, {options.threads} threads, best of {options.turns} turns")
    print(f"{'':<22} {'ms a word':>10} {'over at once':>13} {'BLEU':>6} {'chrF':>6} {'LAAL':>6} {'NE':>5}")
    costs = [1000 * sum(map(sum, system.seconds)) / words for system in systems]
    for system, cost in zip(systems, costs, strict=True):
        figures = score(system.instances) if system.scored else {}
        row = "".join(
            f" {'-' if figures.get(name) is None else format(figures[name], f'.{digits}f'):>{width}}"
            for name, digits, width in (("BLEU", 1, 6), ("chrF", 1, 6), ("LAAL", 2, 6), ("NE", 2, 5))
        )
        print(f"{system.name:<22} {cost:>10.1f} {cost / costs[1]:>12.1f}x{row}")


def draw(systems: Sequence[System], options: argparse.Namespace) -> None:
    """Draw the cost of a word over the words read before it."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "loquent"}):
        figure = Figure(figsize=(7, 3.5), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        for system in systems:
            longest = max(map(len, system.seconds)) - 1
            columns = [[row[at] for row in system.seconds if at < len(row) - 1] for at in range(longest)]
            points = [(at, 1000 * fmean(column)) for at, column in enumerate(columns, 1) if len(column) >= 5]
            axis.plot(*zip(*points, strict=True), marker=".", label=system.name)
        axis.set_xlabel("words read")
        axis.set_ylabel("CPU time of a word, ms")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
        figure.savefig(options.picture, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
