"""How written English is spoken, beside kitten-text-processing (NeMo's grammars), by class.

    pip install kitten-text-processing
    python benchmarks/text_normalisation.py                 # the cases of tests/tts/frontend/data/normalizations.tsv
    python benchmarks/text_normalisation.py sentences.txt   # a text of your own, a sentence a line

Letters' case, punctuation, hyphens and the word "and" do not count. The two differ on purpose in places: "3:2" is
"three to two" here, a web address has no "colon slash slash", "Henry VIII" is "Henry the eighth". The other needs up
to 0.7 s a sentence.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time

from loquent.speech.text.words import TimedWord, WordChunk, split_words
from loquent.tts.frontend.reader import Reader, ReaderOptions
from loquent.tts.frontend.spoken import SpokenWord

CASES = Path(__file__).parents[1] / "tests" / "tts" / "frontend" / "data" / "normalizations.tsv"
CLASSES = {
    "money": r"[$£€¥¢]",
    "percent": r"%",
    "time": r"\d:\d\d|\d ?[ap]\.?m\b",
    "date": r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December) \d|\d/\d+/\d",
    "ordinal": r"\d(?:st|nd|rd|th)\b",
    "decade": r"\d0'?s\b",
    "range": r"\d[-–]\d",
    "decimal": r"\d\.\d",
    "year": r"\b(?:1[1-9]|20)\d\d\b",
    "code": r"[A-Za-z]-?\d|\d[A-Za-z]",
    "cardinal": r"\d",
    "abbreviation": r"\b(?:[A-Z]\.)+|\b(?:Mr|Mrs|Ms|Dr|St|No|Jr|vs|Inc|etc)\.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, help="sentences, one a line")
    parser.add_argument("--differences", action="store_true", help="print the sentences that differ")
    arguments = parser.parse_args()
    theirs = reference()
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    seconds = [0.0, 0.0]
    for kind, sentence in cases(arguments.text):
        start = process_time()
        ours = spoken(sentence)
        seconds[0] += process_time() - start
        start = process_time()
        other = theirs(sentence)
        seconds[1] += process_time() - start
        agrees = comparable(ours) == comparable(other)
        counts[kind][0] += agrees
        counts[kind][1] += 1
        if arguments.differences and not agrees:
            print(f"{kind}: {sentence}\n  loquent  {ours}\n  other    {other}")
    for kind, (same, count) in sorted(counts.items()):
        print(f"{kind:14} {same:4} of {count:4} agree, {same / count:4.0%}")
    same, count = (sum(column) for column in zip(*counts.values(), strict=True))
    print(f"{'all':14} {same:4} of {count:4} agree, {same / count:4.0%}")
    print(f"{1000 * seconds[0] / count:.2f} ms a sentence, other {1000 * seconds[1] / count:.0f} ms (process time)")


def reference() -> Callable[[str], str]:
    """The other normaliser.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        from kitten_text_processing import normalize_text
    except ImportError:
        raise SystemExit("kitten-text-processing is not installed: pip install kitten-text-processing") from None
    return lambda text: normalize_text(text, "en")


def cases(path: Path | None) -> Iterator[tuple[str, str]]:
    """Classes and texts."""
    if path is None:
        for line in CASES.read_text(encoding="utf-8").splitlines():
            kind, text, _ = line.split("\t")
            yield kind, text
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        kind = next((name for name, pattern in CLASSES.items() if re.search(pattern, line)), "plain")
        yield kind, line


def spoken(text: str) -> str:
    """What is said of a text."""
    words = tuple(TimedWord(word, 0.0) for word in split_words(text))
    said = Reader(ReaderOptions()).read(WordChunk(words, 0, flush=False, last=True))
    return " ".join(word.text for word in said if isinstance(word, SpokenWord))


def comparable(text: str) -> str:
    return "".join(word for word in re.sub(r"[^a-z ]", " ", text.lower()).split() if word != "and")


if __name__ == "__main__":
    main()
