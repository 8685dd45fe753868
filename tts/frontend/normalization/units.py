"""Units of measure, behind numbers."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.numerals import (
    FRACTION,
    PREFIXED,
    RANGE,
    WHOLE,
    is_number,
    number_words,
    range_words,
)
from loquent.tts.frontend.normalization.unit_names import UNITS
from loquent.tts.frontend.normalization.view import Reading, View, said

RATES = {
    "s": ("second",), "sec": ("second",), "min": ("minute",), "h": ("hour",), "hr": ("hour",), "d": ("day",),
    "wk": ("week",), "mo": ("month",), "yr": ("year",), "y": ("year",), "L": ("liter",), "l": ("liter",),
}  # fmt: skip
POWERS = {"²": "square", "2": "square", "^2": "square", "³": "cubic", "3": "cubic", "^3": "cubic"}
WRITTEN_WITH_DOT = set(
    "ft in lb lbs oz hr hrs min mins sec secs yd yds mi gal qt pt tsp tbsp sq cu wk wks yr yrs mo mos".split()
)
COUNTED = {"hundred", "thousand", "million", "billion", "trillion", "sq", "sq.", "cu", "cu."}  # a unit may follow
WORDS_TOO = {"in", "ac", "t", "N", "J", "pt", "mo"}  # and letters; they are units only where a dot is behind them
AMOUNT = rf"[~≈<>≤≥]?[+-]?(?:{WHOLE})?(?:\.\d+)?"
MEASURE = re.compile(rf"({AMOUNT}(?:[-–—]{AMOUNT})?)(-?)([^\d\s.,+-][^\s]*)")
FEET_AND_INCHES = re.compile(r"(\d{1,2})'(\d{1,2})(?:\"|'')?")
OVER = re.compile(r"([^/]+)/([A-Za-z]+)([²³]?)")


def unit_words(symbol: str, several: bool) -> list[str]:
    """A unit, one of it or several: "km/h", "m²", "µg/ml"; no words if it is none."""
    if symbol in UNITS:
        return UNITS[symbol][several].split()
    for power, word in POWERS.items():
        base = symbol.removesuffix(power)
        if base != symbol and base in UNITS and base.isalpha():
            return [word, *UNITS[base][several].split()]
    found = OVER.fullmatch(symbol)
    if found:
        above = unit_words(found[1], several)
        below = RATES.get(found[2]) or unit_words(found[2], several=False)
        if above and below:
            return [*above, "per", *below, *{"²": ["squared"], "³": ["cubed"]}.get(found[3], [])]
    return []


def unit(view: View) -> Reading | None:
    """A unit that is a piece of its own, behind a number: "5 km"."""
    before, symbol = view.preceding(), view.core
    if not (is_number(before) or before in COUNTED or RANGE.fullmatch(before) or FRACTION.fullmatch(before)):
        return None
    words = unit_words(symbol, several=before not in ("1", "-1", "+1"))
    if not words or (symbol in WORDS_TOO and not view.piece.closing.startswith(".")):
        return None
    return _dotted(view, symbol, words)


def feet(view: View) -> Reading | None:
    """ "6'2\"", "6'"."""
    piece = view.piece
    found = FEET_AND_INCHES.fullmatch(piece.text.rstrip(".,;:!?)"))
    if found and int(found[2]) < 12:
        foot = "feet" if found[1] != "1" and found[2] == "0" else "foot"
        return said([*number_words(found[1]), foot, *number_words(found[2])], closing=piece.text[found.end() :])
    if is_number(piece.core) and piece.closing.startswith("'") and not piece.opening:
        return said([*number_words(piece.core), "feet"], closing=piece.closing[1:])
    return None


def measure(view: View) -> Reading | None:
    """ "5km", "25°C", "5-10%"."""
    found = MEASURE.fullmatch(view.core)
    if not found or not any(map(str.isdigit, found[1])):
        return None
    amount, hyphen, symbol = found.groups()
    words = _amount_words(amount)
    unit = unit_words(symbol, several=words != ["one"] and not hyphen)
    if not words or not unit:
        return None
    if symbol == "°" and view.follower() in ("C", "F", "Celsius", "Fahrenheit"):
        scale = {"C": "Celsius", "F": "Fahrenheit"}.get(view.follower(), view.follower())
        return Reading(((*words, *unit), (scale,)))
    return _dotted(view, symbol, [*words, *unit])


def _dotted(view: View, symbol: str, words: list[str]) -> Reading:
    """Whether a dot ends the sentence, or belongs to the unit."""
    closing = view.piece.closing
    if symbol in WRITTEN_WITH_DOT and closing.startswith("."):
        following = view.after() if closing == "." else None
        ends = closing == "." and (following is None or following.core[:1].isupper())
        return said(words, closing if ends else closing[1:])
    return said(words)


def _amount_words(amount: str) -> list[str]:
    before: list[str] = []
    if amount[0] in PREFIXED:
        before, amount = PREFIXED[amount[0]].split(), amount[1:]
    found = RANGE.fullmatch(amount)
    words = range_words(found[1], found[2], years=False) if found else number_words(amount, years=False)
    return [*before, *words] if words else []
