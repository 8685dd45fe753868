"""Pairs of sentences from files of parallel text: filtered, weighted, and some of them held out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from loquent.recipes.data.held_out import spread
from loquent.recipes.data.text_lines import read_lines
from loquent.recipes.loop.config import ConfigError

HELD_OUT = 0.005  # share of the pairs of the best corpora that is never trained on, chosen by their hashes
MOST_RATIO = 2.5  # characters of one side for each of the other, for sentences of some length
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "\u00a0": " ", "…": "..."})
_MARKUP = re.compile(r"<[^>]*>|%\w|\{\w*\}|&\w+;|https?:|[\\|_^~\u200b\ufeff]|--\w")


class Pair(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str
    corpus: str


@dataclass(frozen=True)
class ParallelText:
    """A file of pairs: source, target and the name of the corpus, separated by tabs.

    path:    of the file; ``.zst`` is unpacked by the program of that name.
    weights: how often a pair of each corpus comes in an epoch; a corpus that is not named is left out.
    swap:    whether to translate from the second column to the first.
    """

    path: str
    weights: dict[str, float] = field(default_factory=dict)
    swap: bool = False


def read_pairs(texts: Sequence[ParallelText], most_words: int) -> tuple[list[Pair], list[float], list[Pair]]:
    """The pairs to train on, their weights, and those that are held out of the corpora with the highest weight.

    Raises:
        ConfigError: there are none.
    """
    train: dict[tuple[str, str], tuple[Pair, float]] = {}
    held_out: list[Pair] = []
    for text in texts:
        highest = max(text.weights.values(), default=0.0)
        for pair in _read(text):
            if not plausible(pair, most_words):
                continue
            weight = text.weights[pair.corpus]
            if weight == highest and spread(pair.source) < HELD_OUT:
                held_out.append(pair)
            else:
                train.setdefault((pair.source, pair.target), (pair, weight))
    if not train or not held_out:
        raise ConfigError("data.texts: no pairs of sentences; name the corpora of the third column in weights")
    return [pair for pair, _ in train.values()], [weight for _, weight in train.values()], held_out


def plausible(pair: Pair, most_words: int) -> bool:
    """Whether the two sides may be translations of each other, written as people write."""
    source, target = pair.source, pair.target
    words, others = len(source.split()), len(target.split())
    if not (0 < words <= most_words and 0 < others <= most_words) or source == target:
        return False
    if not any(map(str.isalpha, source)) or not any(map(str.isalpha, target)):
        return False
    if _MARKUP.search(source) or _MARKUP.search(target):
        return False
    short, long = sorted((len(source) + 12, len(target) + 12))
    digits = [sorted(re.findall(r"\d", side)) for side in (source, target)]
    return long <= MOST_RATIO * short and (digits[0] == digits[1] or not all(digits))


def _read(text: ParallelText) -> Iterator[Pair]:
    for line in read_lines(text.path):
        columns = line.translate(PLAIN).split("\t")
        if len(columns) < 3 or columns[2] not in text.weights:
            continue
        first, second = (" ".join(column.split()) for column in columns[:2])
        yield Pair(second, first, columns[2]) if text.swap else Pair(first, second, columns[2])
