"""The language of orders to a coffee machine: slots, sentences, and the sentence that a labelled transcript meant.

The slots are those of Picovoice's speech-to-intent benchmark, whose speakers read sentences that a program had made.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher

OPENERS = ("can i get", "can i have", "may i have", "i'd like", "make me", "give me", "i want", "get me", "brew")
DRINKS = (
    *("coffee", "iced coffee", "mocha", "iced mocha", "drip coffee", "house coffee", "espresso", "americano"),
    *("cappuccino", "latte"),
)
MODIFIERS = {  # said before the drink, in any order
    "roast": ("light roast", "medium roast", "dark roast"),
    "size": ("small", "medium", "large", "eight ounce", "twelve ounce", "sixteen ounce", "twenty ounce"),
    "numberOfShots": ("single shot", "double shot", "triple shot"),
}
AMOUNTS = ("", "some ", "a bit of ", "a little bit of ", "a lot of ", "lots of ")
ADDITIONS = {  # said after "with", in any order
    "milkAmount": ("milk", "cream", "whole milk", "skim milk", "soy milk", "almond milk"),
    "sugarAmount": ("sugar", "brown sugar", "sweetener"),
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOCABULARY = frozenset(
    " ".join(
        (*OPENERS, *DRINKS, *AMOUNTS, *DIGITS, "a an with and of", *itertools.chain(*MODIFIERS.values()),
         *itertools.chain(*ADDITIONS.values()))
    ).split()
)  # fmt: skip


def random_order(rng: random.Random) -> str:
    """A sentence such as "may i have a large dark roast latte with some sugar and lots of soy milk"."""
    slots = {"coffeeDrink": rng.choice(DRINKS)}
    for name, values in MODIFIERS.items():
        if rng.random() < 0.45:
            slots[name] = rng.choice(values)
    for name, values in ADDITIONS.items():
        if rng.random() < 0.5:
            slots[name] = rng.choice(AMOUNTS) + rng.choice(values)
    return rng.choice(list(sentences(slots))[::2])  # every second has the wrong article


def random_digits(rng: random.Random, most: int = 6) -> str:
    """One to ``most`` digits, spelled out."""
    return " ".join(rng.choice(DIGITS) for _ in range(rng.randint(1, most)))


def sentences(slots: Mapping[str, str]) -> Iterator[str]:
    """Every sentence that means these slots, with the right article and, after it, the wrong one."""
    before = [slots[name].strip() for name in MODIFIERS if name in slots]
    after = [slots[name].strip() for name in ADDITIONS if name in slots]
    for modifiers in itertools.permutations(before):
        for additions in itertools.permutations(after):
            ordered = " ".join((*modifiers, slots["coffeeDrink"].strip()))
            rest = " with " + " and ".join(additions) if additions else ""
            articles = ("an", "a") if ordered[0] in "aeiou" else ("a", "an")
            for opener, article in itertools.product(OPENERS, articles):
                yield f"{opener} {article} {ordered}{rest}"


_NUMBERS = {"8": "eight", "12": "twelve", "16": "sixteen", "20": "twenty", "oz": "ounce", "ounces": "ounce"}


def spoken(text: str) -> str:
    """A written transcript as lower-case words: no punctuation, numbers and units spelled out."""
    words = re.sub(r"[^a-z0-9' ]", " ", re.sub(r"(\d)(oz)", r"\1 \2", text.lower().replace("’", "'"))).split()
    return " ".join(_NUMBERS.get(word, word) for word in words)


def meant(text: str, slots: Mapping[str, str]) -> str:
    """The sentence that was read, out of a machine's transcript with mistakes and the labels of the slots.

    Of all sentences that mean the slots, the one nearest to the transcript: the labels tell what was ordered, the
    transcript in which order and how it began. "Brue a light rose mocker" with the labels of a light roast mocha is
    "brew a light roast mocha".
    """
    words = tuple(spoken(text).split())
    return min(sentences(slots), key=lambda sentence: _distance(tuple(sentence.split()), words))


def agrees(text: str) -> bool:
    """Whether a transcript is an order in the grammar's own words, so that nothing has to be mended."""
    plain = spoken(text)
    return plain.startswith(OPENERS) and VOCABULARY.issuperset(plain.split())


def _distance(expected: tuple[str, ...], heard: tuple[str, ...]) -> float:
    """Edits between words, where similar words are nearly equal."""
    row = [float(j) for j in range(len(heard) + 1)]
    for i, word in enumerate(expected, start=1):
        diagonal, row[0] = row[0], float(i)
        for j, other in enumerate(heard, start=1):
            change = 0.0 if word == other else _difference(word, other)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + change)
    return row[-1]


@functools.cache
def _difference(one: str, other: str) -> float:
    return 1 - 0.8 * SequenceMatcher(None, one, other).ratio()
