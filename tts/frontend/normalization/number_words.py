"""Numbers in English words, as Americans say them: without "and", tens and ones as two words."""

from __future__ import annotations

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = (
    "one thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion"
).split()
LARGEST = 1000 ** len(SCALES) - 1
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int) -> list[str]:
    """A count, from 0 to `LARGEST`: 123 is "one hundred twenty three".

    Raises:
        ValueError: there is no word for it.
    """
    if not 0 <= number <= LARGEST:
        raise ValueError(f"expected a number of 0 to 10^{3 * len(SCALES)} - 1, got {number}")
    if number < 20:
        return [ONES[number]]
    if number < 100:
        return [TENS[number // 10], *([ONES[number % 10]] if number % 10 else [])]
    if number < 1000:
        return [ONES[number // 100], "hundred", *(cardinal(number % 100) if number % 100 else [])]
    words = []
    for scale in range(len(SCALES) - 1, -1, -1):
        count = number // 1000**scale % 1000
        if count:
            words += [*cardinal(count), *([SCALES[scale]] if scale else [])]
    return words


def ordinal(number: int) -> list[str]:
    """A place in an order: 21 is "twenty first".

    Raises:
        ValueError: see `cardinal`.
    """
    *words, last = cardinal(number)
    if last in ORDINALS:
        return [*words, ORDINALS[last]]
    return [*words, last[:-1] + "ieth" if last.endswith("y") else last + "th"]


def year(number: int) -> list[str]:
    """A year, or another number in pairs of digits: 1905 is "nineteen oh five", 2024 "twenty twenty four"."""
    high, low = divmod(number, 100)
    if not 10 <= high <= 99 or (high % 10 == 0 and low < 10):
        return cardinal(number)
    if low == 0:
        return [*cardinal(high), "hundred"]
    return [*cardinal(high), *(["oh"] if low < 10 else []), *cardinal(low)]


def digits(figures: str) -> list[str]:
    """Digits one by one."""
    return [ONES[int(figure)] for figure in figures]


def count(figures: str) -> list[str]:
    """A count of any length, in digits: one by one if there is no word for it."""
    number = int(figures) if len(figures) <= 3 * len(SCALES) else None
    return digits(figures) if number is None else cardinal(number)


def decimal(figures: str) -> list[str]:
    """Digits with a point: "3.14" is "three point one four", ".5" "point five"."""
    whole, point, fraction = figures.partition(".")
    words = count(whole) if whole else []
    return [*words, "point", *digits(fraction)] if point else words


def plural(words: list[str]) -> list[str]:
    """The same with an -s: "nineteen nineties", "fives", "sixes"."""
    *before, last = words
    if last.endswith("y"):
        return [*before, last[:-1] + "ies"]
    return [*before, last + ("es" if last.endswith("x") else "s")]
