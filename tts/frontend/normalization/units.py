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
AMOUNT = rf"[~≈<>≤≥]?[+-]?(?:{WHOLE})?(?:\.\d+)?"
MEASURE = re.compile(rf"({AMOUNT}(?:[-–—]{AMOUNT})?)(-?)([^\d\s.,+-][^\s]*)")
FEET_AND_INCHES = re.compile(r"(\d{1,2})'(\d{1,2})(?:\"|'')?")
FEET = re.compile(rf"({WHOLE})'")
OVER = re.compile(r"([^/]+)/([A-Za-z]+)([²³]?)")


def unit_words(symbol: str, several: bool) -> list[str] | None:
    """A unit, one of it or several; None if it is none. "km/h", "m²", "µg/ml"."""
    if symbol in UNITS:
        return UNITS[symbol][several].split()
    for power, word in POWERS.items():
        base = symbol.removesuffix(power)
        if base != symbol and base in UNITS and base.isalpha():
            return [word, *UNITS[base][several].split()]
    found = OVER.fullmatch(symbol)
    if found:
        above = unit_words(found[1], several)
        below = RATES.get(found[2]) or (unit_words(found[2], False) or [""])
        if above and below[0]:
            return [*above, "per", *below, *{"²": ["squared"], "³": ["cubed"]}.get(found[3], [])]
    return None


def measure(view: View) -> Reading | None:
    """ "5km", "25°C", "5-10%", "6'2\\"", and "km" behind a number."""
    core = view.core
    before = view.preceding()
    if is_number(before) or before in COUNTED or RANGE.fullmatch(before) or FRACTION.fullmatch(before):
        reading = _alone(view)
        if reading:
            return reading
    if not any(map(str.isdigit, core)):
        return None
    found = FEET_AND_INCHES.fullmatch(view.piece.text.rstrip(".,;:!?)"))
    if found and int(found[2]) < 12:
        feet, inches = int(found[1]), int(found[2])
        words = [
            *(number_words(found[1]) or []),
            "foot" if feet == 1 or inches else "feet",
            *(number_words(found[2]) or []),
        ]
        return said(words, closing=view.piece.text[found.end() :])
    found = FEET.fullmatch(core + "'" if view.piece.closing.startswith("'") and not view.piece.opening else "")
    if found:
        return said([*(number_words(found[1]) or []), "feet"], closing=view.piece.closing[1:])
    found = MEASURE.fullmatch(core)
    if not found or not any(map(str.isdigit, found[1])):
        return None
    amount, hyphen, symbol = found.groups()
    words = _amount_words(amount)
    unit = unit_words(symbol, several=words != ["one"] and not hyphen)
    if words is None or unit is None or (symbol in ("s", "t", "h", "N", "J", "V", "ac", "mo") and not amount):
        return None
    if symbol == "°" and view.follower() in ("C", "F", "Celsius", "Fahrenheit"):
        scale = {"C": "Celsius", "F": "Fahrenheit"}.get(view.follower(), view.follower())
        return Reading(((*words, *unit), (scale,)))
    return _dotted(view, symbol, [*words, *unit])


def _alone(view: View) -> Reading | None:
    """A unit that is a piece of its own: "5 km"."""
    symbol, several = view.core, view.preceding() not in ("1", "-1", "+1")
    unit = unit_words(symbol, several)
    if unit is None or (symbol in ("in", "ac", "t", "N", "J", "pt", "mo") and not view.piece.closing.startswith(".")):
        return None
    return _dotted(view, symbol, unit)


def _dotted(view: View, symbol: str, words: list[str]) -> Reading:
    """Whether a dot ends the sentence, or belongs to the unit."""
    closing = view.piece.closing
    if symbol in WRITTEN_WITH_DOT and closing.startswith("."):
        following = view.after() if closing == "." else None
        ends = closing == "." and (following is None or following.core[:1].isupper())
        return said(words, closing if ends else closing[1:])
    return said(words)


def _amount_words(amount: str) -> list[str] | None:
    before: list[str] = []
    if amount[0] in PREFIXED:
        before, amount = PREFIXED[amount[0]].split(), amount[1:]
    found = RANGE.fullmatch(amount)
    words = range_words(found[1], found[2], years=False) if found else number_words(amount, years=False)
    return None if words is None else [*before, *words]
