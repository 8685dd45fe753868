"""Times of day."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import cardinal, decimal, digits
from loquent.tts.frontend.normalization.view import Reading, View, said

HALF = r"[ap]\.?m"
TIME = re.compile(rf"(\d{{1,2}})[:h](\d{{2}})(?::(\d{{2}}))?(\.\d+)?({HALF})?", re.IGNORECASE)
HOUR = re.compile(rf"(\d{{1,2}})({HALF})", re.IGNORECASE)
HALF_DAY = re.compile(HALF, re.IGNORECASE)
HALF_DAY_TO = re.compile(rf"({HALF})\.?[-–—](\d{{1,2}}(?::\d{{2}})?)({HALF})?", re.IGNORECASE)
TIMES = re.compile(rf"(\d{{1,2}}(?::\d{{2}})?)({HALF})?[-–—](\d{{1,2}}(?::\d{{2}})?)({HALF})?", re.IGNORECASE)
RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")
HOURS = re.compile(r"\d{1,2}(?::\d{2})?(?:[-–—]\d{1,2}(?::\d{2})?)?|o'clock")
# Behind "p.m.", these do not begin a sentence.
GO_ON = set(
    "Eastern Pacific Central Mountain EST EDT PST PDT CST CET GMT UTC BST ET "
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday "
    "January February March April May June July August September October November December".split()
)


def half_day(view: View) -> Reading | None:
    """ "p.m." behind an hour, and "p.m.-5"."""
    if not HOURS.fullmatch(view.preceding()):
        return None
    if HALF_DAY.fullmatch(view.core):
        return _with_half([], view.core, view)
    found = HALF_DAY_TO.fullmatch(view.core)
    until = clock_words(found[2]) if found else []
    return _with_half([_letters(found[1]), "to", *until], found[3], view) if found and until else None


def time_of_day(view: View) -> Reading | None:
    """ "7:30", "7:30pm", "7pm", "14:00"."""
    found = HOUR.fullmatch(view.core)
    if found and 1 <= int(found[1]) <= 12:
        return _with_half(cardinal(int(found[1])), found[2], view)
    found = TIME.fullmatch(view.core)
    if not found:
        return None
    half = found[5] or ""
    full = not half and found[2] == "00" and not found[3]
    words = clock_words(view.core.removesuffix(half), alone=full and not _half_follows(view))
    return _with_half(words, half, view) if words else None


def span_of_hours(view: View) -> Reading | None:
    """ "7-9pm", "7:30–9:00"."""
    found = TIMES.fullmatch(view.core)
    if not found or not (":" in view.core or found[4]):
        return None
    alone = not found[4] and not _half_follows(view)
    first, last = (clock_words(found[side], alone=alone and ":" in found[side]) for side in (1, 3))
    if not first or not last:
        return None
    between = [_letters(found[2]), "to"] if found[2] else ["to"]
    return _with_half([*first, *between, *last], found[4], view)


def ratio(view: View) -> Reading | None:
    """ "16:9"."""
    found = RATIO.fullmatch(view.core)
    return said([*cardinal(int(found[1])), "to", *cardinal(int(found[2]))]) if found else None


def clock_words(text: str, alone: bool = False) -> list[str]:
    """Hours, minutes, seconds; no words if they are none.

    Args:
        alone: whether "o'clock" or "hundred" is said of a full hour.
    """
    found = TIME.fullmatch(text)
    if not found:
        return cardinal(int(text)) if text.isdigit() and int(text) <= 24 else []
    hours, minutes, seconds, fraction = int(found[1]), int(found[2]), found[3], found[4] or ""
    if minutes > 59 or (seconds and int(seconds) > 59):
        return []
    if seconds:
        rest = decimal(str(int(seconds)) + fraction) if fraction else cardinal(int(seconds))
        units = [(cardinal(hours), "hour"), (cardinal(minutes), "minute"), (["and", *rest], "second")]
        return [word for words, unit in units for word in (*words, unit if words[-1] == "one" else f"{unit}s")]
    if minutes or fraction:
        low = ["oh", *digits(str(minutes))] if minutes < 10 else cardinal(minutes)
        return [*cardinal(hours), *low, *(decimal(fraction) if fraction else [])]
    if not alone:
        return cardinal(hours)
    return [*cardinal(hours), "o'clock" if 1 <= hours <= 12 else "hundred"]


def _half_follows(view: View) -> bool:
    return not view.piece.closing and HALF_DAY.fullmatch(view.follower()) is not None


def _with_half(words: list[str], half: str | None, view: View) -> Reading:
    """With "a.m." or "p.m.", if there is one; its dot may end the sentence."""
    if not half:
        return said(words)
    closing = view.piece.closing
    if "." in half and closing == ".":
        following = view.after()
        name = following.core if following else ""
        goes_on = bool(name) and (not name[0].isupper() or name in GO_ON)
        closing = "" if goes_on else "."
    return said([*words, _letters(half)], closing)


def _letters(half: str) -> str:
    return f"{half[0].upper()}.M"
