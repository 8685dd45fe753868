"""Numbers: counts, decimals, ordinals, years and decades, fractions, ranges."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import (
    cardinal,
    count,
    decimal,
    digits,
    ordinal,
    plural,
    year,
)
from loquent.tts.frontend.normalization.unit_names import UNITS
from loquent.tts.frontend.normalization.view import Reading, View, said

WHOLE = r"\d{1,3}(?:,\d{3})+|\d+"
NUMBER = re.compile(rf"([+-]?)({WHOLE})?(\.\d+)?")
ORDINAL = re.compile(rf"({WHOLE})(?:st|nd|rd|th)", re.IGNORECASE)
DECADE = re.compile(r"(\d{1,4})'?s")
FRACTION = re.compile(r"(\d{1,3})[/⁄](\d{1,3})(?:(?:st|nd|rd|th)s?)?")
RANGE = re.compile(rf"((?:{WHOLE})(?:\.\d+)?)[-–—]((?:{WHOLE})(?:\.\d+)?)")
PREFIXED = {"~": "about", "≈": "about", "<": "less than", ">": "more than", "≤": "at most", "≥": "at least"}
THOUSANDS_BY_DOTS = re.compile(r"\d{1,3}(?:\.\d{3}){2,}")
DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}")
NUMBERS_FOLLOW = {"dial", "call", "dialed", "called", "dialing", "calling", "room", "flight", "route", "area"}
VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
    "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8),
}  # fmt: skip
DECADES_FOLLOW = {"the", "early", "mid", "late", "my", "your", "his", "her", "our", "their", "in"}
YEARS_FOLLOW = {"in", "since", "by", "year", "from", "until", "till", "before", "after", "of", "circa", "around"}


def number_words(text: str, years: bool = True) -> list[str]:
    """A number in digits, with sign, commas and point; no words if it is none.

    Args:
        years: whether four digits may be a year.
    """
    found = NUMBER.fullmatch(text)
    if not found or not (found[2] or found[3]):
        return []
    sign = {"+": ["plus"], "-": ["minus"], "": []}[found[1]]
    whole, fraction = (found[2] or "").replace(",", ""), found[3] or ""
    if fraction:
        return [*sign, *decimal(whole + fraction)]
    if years and "," not in text and not sign and is_year(whole):
        return year(int(whole))
    if len(whole) > 1 and whole[0] == "0":
        return [*sign, *(["oh" if len(whole) == 2 else "zero"]), *digits(whole[1:])]
    if len(whole) >= 10 and "," not in text and not whole.endswith("000"):
        return [*sign, *digits(whole)]
    return [*sign, *count(whole)]


def is_year(figures: str) -> bool:
    """Whether four digits are read as two pairs."""
    return len(figures) == 4 and 1100 <= int(figures) <= 2099


def is_number(text: str) -> bool:
    """Whether it is a plain number in digits, no punctuation behind it."""
    found = NUMBER.fullmatch(text)
    return bool(found and (found[2] or found[3]))


def numeral(view: View) -> Reading | None:
    """A number that stands by itself."""
    core = view.core
    if core[0] in PREFIXED and is_number(core[1:]):
        return said([*PREFIXED[core[0]].split(), *number_words(core[1:], years=False)])
    if core.endswith("+") and is_number(core[:-1]):
        return said([*number_words(core[:-1]), "plus"])
    if THOUSANDS_BY_DOTS.fullmatch(core):
        return said(count(core.replace(".", "")))
    if DECIMAL_COMMA.fullmatch(core):
        return said(decimal(core.replace(",", ".")))
    words = number_words(core, years=False)
    if not words:
        return None
    if view.piece.starts_line and core.isdigit() and view.piece.closing == ")" and not view.piece.opening:
        return said(words, closing=".")  # of a list
    if core.isdigit() and len(core) <= 3:
        if len(core) == 3 and view.preceding().lower() in NUMBERS_FOLLOW:
            return said(digits(core))
        return _with_thousands(view) or said(words)
    if core.isdigit() and len(core) == 4 and _is_year_here(view):
        return said(year(int(core)))
    return said(words)


def _with_thousands(view: View) -> Reading | None:
    """ "10 000": spaces for commas, if all groups behind the first are zeros."""
    used = 1
    while used < 4 and view.follower(used) == "000":
        used += 1
    if used == 1 or view.core == "0":
        return None
    return Reading((*((),) * (used - 1), tuple(count(view.core + "000" * (used - 1)))))


def _is_year_here(view: View) -> bool:
    if is_year(view.core):
        return view.follower() not in UNITS
    return 1000 <= int(view.core) <= 2999 and view.preceding().lower() in YEARS_FOLLOW


def ordinal_number(view: View) -> Reading | None:
    """ "21st"."""
    found = ORDINAL.fullmatch(view.core)
    return said(ordinal_words(found[1])) if found else None


def ordinal_words(figures: str) -> list[str]:
    """Digits, with commas or without, as an ordinal; one by one if there is no word for it."""
    figures = figures.replace(",", "")
    return ordinal(int(figures)) if len(figures) <= 30 else digits(figures)


def decade(view: View) -> Reading | None:
    """ "1990s", "'90s", "80's"; other plurals of numbers, too."""
    found = DECADE.fullmatch(view.core)
    if not found:
        return None
    figures = found[1]
    if len(figures) < 3 and "'" not in view.piece.text and view.preceding().lower() not in DECADES_FOLLOW:
        return None
    if len(figures) == 4 and 1100 <= int(figures) <= 2999:
        return said(plural(year(int(figures))))
    return said(plural(cardinal(int(figures))))


def fraction(view: View) -> Reading | None:
    """ "3/4", "½", and behind a number "and a half"."""
    core = view.core
    whole = core.rstrip("".join(VULGAR))
    if len(core) == len(whole) + 1 and (not whole or is_number(whole)):
        before = [*number_words(whole), "and"] if whole else []
        mixed = bool(whole) or _is_whole(view.preceding())
        return said([*(before or (["and"] if mixed else [])), *_part(*VULGAR[core[-1]], mixed)])
    found = FRACTION.fullmatch(core)
    if not found:
        return None
    above, below = int(found[1]), int(found[2])
    if (above, below) in ((24, 7), (9, 11), (7, 11)) or (above == below != 1 and above in (20, 50)):
        return said([*cardinal(above), *cardinal(below)])
    if above < below <= 100 and above > 0 and below > 1:
        mixed = _is_whole(view.preceding())
        return said([*(["and"] if mixed else []), *_part(above, below, mixed)])
    if below in (5, 10, 100) and above <= below:
        return said([*cardinal(above), "out", "of", *cardinal(below)])
    if below in (2, 3, 4, 8):
        return said(_part(above, below, False))
    return said([*cardinal(above), "over", *cardinal(below)])


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _part(above: int, below: int, mixed: bool) -> list[str]:
    """A fraction below 100; behind a whole number it may be "a half"."""
    first = ["a"] if mixed and above == 1 else cardinal(above)
    if below == 2:
        return [*first, "half" if above == 1 else "halves"]
    if below == 4:
        return [*first, "quarter" if above == 1 else "quarters"]
    name = ordinal(below)
    return [*first, *(name if above == 1 else plural(name))]


def number_range(view: View) -> Reading | None:
    """ "10–15", "1990-95", "50-50"."""
    found = RANGE.fullmatch(view.core)
    if not found:
        return None
    years = len(found[1]) == 4 and view.follower() not in UNITS
    return said(range_words(found[1], found[2], years))


def range_words(first: str, last: str, years: bool) -> list[str]:
    """From one number to another. In equal halves there is no "to", nor where it would go back: "ISO 639-3".

    Args:
        years: whether four digits may be a year.
    """
    low, high = (float(number.replace(",", "")) for number in (first, last))
    back = low > high and low >= 100 and not (len(first) == 4 and len(last) == 2)
    to = [] if first == last or back else ["to"]
    return [*number_words(first, years), *to, *number_words(last, years)]
