"""Dates and times of day."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import cardinal, decimal, digits, ordinal, year
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
TIME = re.compile(r"(\d{1,2})[:h](\d{2})(?::(\d{2}))?(\.\d+)?([ap]\.?m)?", re.IGNORECASE)
HOUR = re.compile(r"(\d{1,2})([ap]\.?m)", re.IGNORECASE)
HALF_DAY = re.compile(r"[ap]\.?m", re.IGNORECASE)
HALF_DAY_TO = re.compile(r"([ap]\.?m)\.?[-–—](\d{1,2}(?::\d{2})?)([ap]\.?m)?", re.IGNORECASE)
TIMES = re.compile(r"(\d{1,2}(?::\d{2})?(?:[ap]m)?)[-–—](\d{1,2}(?::\d{2})?)([ap]m)?", re.IGNORECASE)
RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")
DATES_FOLLOW = {"on", "since", "by", "until", "till", "before", "after", "dated", "due"}
HOURS = re.compile(r"\d{1,2}(?::\d{2})?(?:[-–—]\d{1,2}(?::\d{2})?)?|o'clock")


def date(view: View) -> Reading | None:
    """ "2024-03-01", "3/4/2024" (month first, as Americans write it), "on 3/4"."""
    core = view.core
    found = ISO_DATE.fullmatch(core)
    if found and _is_date(int(found[2]), int(found[3])):
        time = clock_words(found[4]) if found[4] else []
        at = ["at", *(time or [])] if time else []
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


def time_of_day(view: View) -> Reading | None:
    """ "7:30 p.m.", "7pm", "14:00", "7-9 pm", "16:9"."""
    core, dot = view.core, view.piece.closing
    found = HALF_DAY.fullmatch(core)
    if found and HOURS.fullmatch(view.preceding()):
        return _half_day([], core, view)
    found = HALF_DAY_TO.fullmatch(core)
    if found and HOURS.fullmatch(view.preceding()):
        until = clock_words(found[2], False)
        if until:
            words = [_letters(found[1]), "to", *until]
            return _half_day(words, found[3], view) if found[3] else said(words)
    found = HOUR.fullmatch(core)
    if found and 1 <= int(found[1]) <= 12:
        return _half_day(cardinal(int(found[1])), found[2], view)
    found = TIME.fullmatch(core)
    if found:
        half = found[5] or ""
        whole = not half and found[2] == "00" and not found[3]
        alone = whole and not (not dot and HALF_DAY.fullmatch(view.follower()))
        words = clock_words(core.removesuffix(half), alone)
        if words:
            return _half_day(words, half, view) if half else said(words)
    found = TIMES.fullmatch(core)
    if found and (":" in core or found[3]):
        alone = ":" in core and not found[3] and not (not dot and HALF_DAY.fullmatch(view.follower()))
        first, last = clock_words(found[1], alone), clock_words(found[2], alone)
        if first and last:
            words = [*first, "to", *last]
            return _half_day(words, found[3], view) if found[3] else said(words)
    found = RATIO.fullmatch(core)
    if found:
        return said([*cardinal(int(found[1])), "to", *cardinal(int(found[2]))])
    return None


def clock_words(text: str, alone: bool = True) -> list[str] | None:
    """Hours, minutes, seconds; None if they are none.

    Args:
        alone: whether neither "a.m." nor "p.m." follows.
    """
    half = re.search(r"[ap]\.?m$", text, re.IGNORECASE)
    if half:
        words = clock_words(text[: half.start()], False)
        return None if words is None else [*words, _letters(half[0])]
    found = TIME.fullmatch(text)
    if not found:
        return cardinal(int(text)) if text.isdigit() and int(text) <= 24 else None
    hours, minutes, seconds, fraction = int(found[1]), int(found[2]), found[3], found[4]
    if minutes > 59 or (seconds and int(seconds) > 59) or (fraction and not seconds and hours > 24):
        return None
    if seconds or hours > 24:
        return _lasting(hours, minutes, seconds or "", fraction or "")
    if fraction:
        return [*cardinal(hours), *_two(minutes), *decimal(fraction)]
    if minutes:
        return [*cardinal(hours), *_two(minutes)]
    if not alone:
        return cardinal(hours)
    if 1 <= hours <= 12:
        return [*cardinal(hours), "o'clock"]
    return [*(["zero"] if hours == 0 else cardinal(hours)), "hundred"]


def _lasting(hours: int, minutes: int, seconds: str, fraction: str) -> list[str]:
    if not seconds:
        return [*cardinal(hours), *_two(minutes)]
    rest = decimal(str(int(seconds)) + fraction) if fraction else cardinal(int(seconds))
    unit = "second" if rest == ["one"] else "seconds"
    minute = [*cardinal(minutes), "minute" if minutes == 1 else "minutes"]
    return [*cardinal(hours), "hour" if hours == 1 else "hours", *minute, "and", *rest, unit]


def _two(number: int) -> list[str]:
    return ["oh", *digits(str(number))] if number < 10 else cardinal(number)


def _half_day(words: list[str], half: str, view: View) -> Reading:
    """With "a.m." or "p.m.", whose dot may end the sentence."""
    closing = view.piece.closing
    if "." in half and closing == ".":
        following = view.after()
        name = following.core if following else ""
        goes_on = bool(name) and (not name[0].isupper() or name in (*MONTHS, *WEEKDAYS.values(), *ZONES))
        return said([*words, _letters(half)], closing="" if goes_on else ".")
    return said([*words, _letters(half)])


ZONES = (
    "Eastern",
    "Pacific",
    "Central",
    "Mountain",
    "EST",
    "EDT",
    "PST",
    "PDT",
    "CST",
    "CET",
    "GMT",
    "UTC",
    "BST",
    "ET",
)


def _letters(half: str) -> str:
    return f"{half[0].upper()}.M"


def _month(text: str) -> bool:
    name = text.removesuffix(".").rpartition("-")[2]
    return name in MONTHS or name in ABBREVIATED


def _is_date(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= 31
