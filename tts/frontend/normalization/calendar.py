"""Dates."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.clock import clock_words
from loquent.tts.frontend.normalization.number_words import ordinal, year
from loquent.tts.frontend.normalization.numerals import is_number
from loquent.tts.frontend.normalization.view import Reading, View, said

MONTHS = "January February March April May June July August September October November December".split()
ABBREVIATED = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
WEEKDAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
ISO_DATE = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:T(\d{1,2}:\d{2})(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
)
DATE = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})")
SHORT_DATE = re.compile(r"(\d{1,2})/(\d{1,2})")
DAY = re.compile(r"(\d{1,2})(st|nd|rd|th)?")
DAYS = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[-–—](\d{1,2})(?:st|nd|rd|th)?")
DATES_FOLLOW = {"on", "since", "by", "until", "till", "before", "after", "dated", "due"}


def date(view: View) -> Reading | None:
    """ "2024-03-01", "3/4/2024" (month first, as Americans write it), "on 3/4"."""
    core = view.core
    found = ISO_DATE.fullmatch(core)
    if found and _is_date(int(found[2]), int(found[3])):
        at = ["at", *clock_words(found[4])] if found[4] else []
        return said([*date_words(int(found[2]), int(found[3]), found[1]), *at])
    found = DATE.fullmatch(core)
    if found:
        first, second, full = int(found[1]), int(found[3]), found[4]
        if not _is_date(first, second) or found[2] == ".":
            first, second = second, first
        if _is_date(first, second):
            century = "19" if int(full) > 50 else "20"
            return said(date_words(first, second, full if len(full) == 4 else century + full))
    found = SHORT_DATE.fullmatch(core)
    if found and _is_date(int(found[1]), int(found[2])) and view.preceding().lower() in DATES_FOLLOW:
        return said(date_words(int(found[1]), int(found[2]), ""))
    return None


def date_words(month: int, day: int, figures: str) -> list[str]:
    """Month, day, and the year in digits or nothing."""
    words = [MONTHS[month - 1], *ordinal(day)]
    if figures:
        words[-1] += ","
    return [*words, *(year(int(figures)) if figures else [])]


def day_of_month(view: View) -> Reading | None:
    """ "March 3", "3 March", "March 3-5"."""
    if _month(view.preceding()):
        found = DAYS.fullmatch(view.core)
        if found and all(1 <= int(day) <= 31 for day in found.groups()):
            return said([*ordinal(int(found[1])), "to", *ordinal(int(found[2]))])
    found = DAY.fullmatch(view.core)
    if not found or not 1 <= int(found[1]) <= 31:
        return None
    if _month(view.preceding()):
        return said(ordinal(int(found[1])))
    if view.preceding().lower() == "of" or not _month(view.follower()):
        return None
    the = [] if view.preceding().lower() == "the" else ["the"]
    return said([*the, *ordinal(int(found[1])), "of"])


def month(view: View) -> Reading | None:
    """ "Sept. 11", "Dec 2024": an abbreviated month next to a number; "Sat.", next to a month or a number."""
    core, closing = view.core, view.piece.closing
    name = ABBREVIATED.get(core) or WEEKDAYS.get(core)
    if not name or name == core:
        return None
    dotted = closing.startswith(".")
    rest = closing.removeprefix(".")
    if core not in ("Jan", "Mar", "Sat", "Sun", "Wed", "Dec") and (dotted or core in ABBREVIATED):
        following = view.after() if not rest else None
        ends = dotted and not rest and (following is None or following.core[:1].isupper())
        return said([name], closing="." if ends else rest)
    if is_number(view.preceding()):
        return said([name], closing=rest)
    following = view.after()
    if following and (following.core[:1].isdigit() or _month(following.core)):
        return said([name], closing=rest)
    return None


def _month(text: str) -> bool:
    name = text.removesuffix(".").rpartition("-")[2]
    return name in MONTHS or name in ABBREVIATED


def _is_date(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= 31
