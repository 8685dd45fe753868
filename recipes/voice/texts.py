"""Sentences for a voice to learn from: those of files, and made-up ones full of numbers, names and rare words."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loquent.recipes.data.text_lines import read_lines

_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "—", "\u00a0": " "})
_READABLE = re.compile(r"[A-Za-z0-9 ,.?!;:'\"$%&()—-]+")
HELD_OUT = 0.01  # share of the sentences of files that is never trained on, chosen by their hashes


@dataclass(frozen=True)
class TextSource:
    """Sentences of a file: a line each, or the first column of tab-separated ones.

    path:    of the file; ``.zst`` is unpacked by the program of that name.
    column:  number of the column that names the corpus of a line, from 0; None if there is none.
    corpora: those whose lines are taken; all if empty.
    most:    as many lines at most, chosen by their hashes.
    """

    path: str
    column: int | None = None
    corpora: tuple[str, ...] = ()
    most: int = 1_000_000


def read_texts(sources: Sequence[TextSource], words: tuple[int, int]) -> tuple[list[str], list[str]]:
    """The different sentences of all sources, to train on, and held out.

    Both are in a random order that follows from hashes; long sentences come sooner, as if each word were drawn.

    Args:
        words: the fewest and the most that a sentence may have.
    """
    found: dict[str, None] = {}
    for source in sources:
        texts = {text for line in _lines(source) if (text := _readable(line, words)) is not None}
        found |= dict.fromkeys(sorted(texts, key=_hash)[: source.most])
    held_out = [text for text in found if _hash(f"held out {text}") < HELD_OUT]
    train = found.keys() - set(held_out)
    return sorted(train, key=_drawn), sorted(held_out, key=_drawn)


def made_up(rng: random.Random, vocabulary: Sequence[str]) -> str:
    """A sentence, a phrase or a single word with what texts have little of.

    Args:
        vocabulary: words, of which a random choice is read out.
    """
    kind = rng.random()
    if kind < 0.3:  # any word beside any other
        count = rng.choice((1, 1, 2, 3, 4, 6, 8))
        words = [rng.choice(vocabulary) for _ in range(count)]
        joined = " ".join(word + ("," if rng.random() < 0.12 else "") for word in words).rstrip(",")
        return joined[0].upper() + joined[1:] + rng.choice(".....?!")
    return _filled(rng.choice(TEMPLATES), rng)


def _filled(template: str, rng: random.Random) -> str:
    numbers = {
        "{n}": lambda: str(rng.randrange(10 ** rng.choice((1, 2, 2, 3, 4)))),
        "{d}": lambda: str(rng.randint(2, 9)),
        "{dd}": lambda: str(rng.randint(11, 99)),
        "{year}": lambda: str(rng.randint(1700, 2049)),
        "{time}": lambda: f"{rng.randint(1, 12)}:{rng.randrange(60):02d}",
        "{money}": lambda: f"${rng.randrange(1, 900)}.{rng.randrange(100):02d}",
        "{name}": lambda: rng.choice(NAMES),
        "{place}": lambda: rng.choice(PLACES),
        "{month}": lambda: rng.choice(MONTHS),
        "{day}": lambda: rng.choice(DAYS),
    }
    return re.sub(r"\{\w+\}", lambda match: numbers[match[0]](), template)


def _lines(source: TextSource) -> Iterator[str]:
    for line in read_lines(source.path):
        columns = line.split("\t")
        corpus = columns[source.column] if source.column is not None and source.column < len(columns) else ""
        if not source.corpora or corpus in source.corpora:
            yield columns[0]


def _readable(line: str, words: tuple[int, int]) -> str | None:
    text = " ".join(line.translate(_PLAIN).split())
    fits = words[0] <= len(text.split()) <= words[1] and len(text) <= 12 * words[1]
    return text if fits and _READABLE.fullmatch(text) and not text.isupper() else None


def _hash(text: str) -> float:
    """A number from 0 to 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _drawn(text: str) -> float:
    """Sorts texts as if they were drawn without replacement, by weight (Efraimidis and Spirakis 2006)."""
    return -(_hash(text) ** (1 / min(len(text.split()), 14) ** 2))


TEMPLATES = (
    "It is {time}.",
    "The train to {place} leaves at {time} from platform {d}.",
    "{name} was born in {year}.",
    "That comes to {money}.",
    "Please call {name} on {day}.",
    "My number is {d}{d}{d} {d}{d}{d} {d}{d}{d}{d}.",
    "Flight {n} to {place} is delayed by {dd} minutes.",
    "On {month} {d}, {year}, {name} moved to {place}.",
    "There are {n} people in {place}.",
    "About {dd}% of them said yes.",
    "Chapter {d}.",
    "{name} and {name}.",
    "{place}.",
    "{n}.",
    "{name}?",
    "Is {name} coming to {place} on {day}?",
    "We have {n} orders and only {d} drivers.",
    "The meeting with {name} is on {day} at {time}.",
    "Turn left after {n} meters, then take exit {d}.",
    "Who is {name}?",
    "What happened in {place} in {year}?",
    "Yes, {name}.",
    "No, not before {month}.",
    "{name} paid {money} for {d} tickets.",
    "It will be {dd} degrees in {place}, with wind from the north.",
    "Room {n}, please.",
    "Okay, I have set a timer for {dd} minutes.",
    "Sorry, I did not find {name} in {place}.",
    "The result is {n} point {d}.",
    "Between {year} and {year}, prices rose by {dd} percent.",
    "Version {d}.{d} is out.",
    "Good morning, {name}!",
    "You have {d} new messages from {name}.",
    "Add {n} grams of flour and {d} eggs.",
)
NAMES = tuple(
    "James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan Joseph "
    "Jessica Thomas Sarah Christopher Karen Charles Lisa Daniel Nancy Matthew Sandra Anthony Betty Mark Ashley Donald "
    "Emily Steven Kimberly Andrew Margaret Paul Donna Joshua Michelle Kenneth Carol Kevin Amanda Brian Melissa Timothy "
    "Deborah Ronald Stephanie George Rebecca Jason Sharon Edward Laura Jeffrey Cynthia Ryan Dorothy Jacob Amy Nicholas "
    "Kathleen Gary Angela Eric Shirley Jonathan Emma Stephen Brenda Larry Pamela Justin Nicole Scott Anna Brandon "
    "Samantha Benjamin Katherine Samuel Christine Gregory Helen Alexander Debra Patrick Rachel Frank Carolyn Raymond "
    "Janet Jack Maria Dennis Catherine Jerry Heather Tyler Diane Aaron Olivia Jose Julie Adam Joyce Nathan Victoria "
    "Henry Ruth Zachary Virginia Douglas Lauren Peter Kelly Ahmed Fatima Wei Priya Hiroshi Yuki Ivan Olga Hans Ingrid "
    "Carlos Lucia Pierre Amelie Giovanni Chiara Lars Astrid Kofi Amara Miguel Sofia Ali Leila".split()
)
PLACES = (
    *"London Paris Berlin Madrid Rome Vienna Tokyo Kyoto Beijing Shanghai Moscow Cairo Nairobi Lagos Sydney".split(),
    *"Melbourne Auckland Toronto Vancouver Montreal Chicago Boston Seattle Denver Houston Dallas Atlanta".split(),
    *"Phoenix Philadelphia Detroit Miami Portland Dublin Edinburgh Glasgow Manchester Birmingham Oxford".split(),
    *"Lisbon Barcelona Amsterdam Brussels Zurich Geneva Munich Hamburg Prague Warsaw Budapest Athens".split(),
    *"Istanbul Helsinki Oslo Stockholm Copenhagen Mumbai Delhi Bangkok Singapore Jakarta Manila Seoul".split(),
    *("New York", "San Francisco", "Los Angeles", "Buenos Aires", "Rio de Janeiro", "Cape Town", "Hong Kong"),
)
MONTHS = tuple("January February March April May June July August September October November December".split())
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
