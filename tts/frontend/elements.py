"""What the elements of SSML ask for: https://www.w3.org/TR/speech-synthesis11/, a subset."""

from __future__ import annotations

import re
from collections.abc import Mapping

from loquent.tts.frontend.ipa import from_ipa
from loquent.tts.frontend.normalization.calendar import date_words
from loquent.tts.frontend.normalization.clock import clock_words
from loquent.tts.frontend.normalization.codes import SIGNS
from loquent.tts.frontend.normalization.number_words import cardinal, digits
from loquent.tts.frontend.normalization.numerals import number_words, ordinal_words
from loquent.tts.frontend.normalization.view import Letter

STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.75, "x-strong": 1.0}
LONGEST_BREAK_S = 10.0
RATES = {"x-slow": 0.5, "slow": 0.8, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}
SLOWEST, FASTEST = 0.25, 4.0
EMPHASIS = {"strong": 0.8, "moderate": 0.9}
OWN_ALPHABETS = {"misaki", "kokoro", "x-misaki", "x-kokoro"}


def break_s(attributes: Mapping[str, str]) -> float:
    """Seconds of a `break`."""
    found = re.fullmatch(r"\+?(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)", attributes.get("time", ""))
    if found:
        return min(float(found[1]) / (1000 if found[2] == "ms" else 1), LONGEST_BREAK_S)
    return STRENGTHS.get(attributes.get("strength", "medium"), STRENGTHS["medium"])


def tempo(name: str, attributes: Mapping[str, str]) -> float:
    """Factor of tempo of `prosody` or `emphasis`: rate="slow", "80%", "+10%", "1.2"; 1 if it asks for none."""
    if name == "emphasis":
        return EMPHASIS.get(attributes.get("level", "moderate"), 1.0)
    rate = attributes.get("rate", "").strip()
    if rate in RATES:
        return RATES[rate]
    found = re.fullmatch(r"([+-]?)(\d{1,4}(?:\.\d{1,4})?)(%?)", rate)
    if not found:
        return 1.0
    value = float(found[2]) / (100 if found[3] else 1)
    if found[1]:
        value = 1 + value if found[1] == "+" else 1 - value
    return min(max(value, SLOWEST), FASTEST)


def phonemes_of(attributes: Mapping[str, str]) -> str:
    """Phonemes that a `phoneme` gives; "" if its alphabet is unknown."""
    alphabet = attributes.get("alphabet", "ipa").lower()
    given = attributes.get("ph", "")
    if alphabet in OWN_ALPHABETS:
        return " ".join(given.split())
    return " ".join(from_ipa(given).split()) if alphabet == "ipa" else ""


def words_of(attributes: Mapping[str, str], content: str) -> list[str] | None:
    """How the content of a `say-as` is spoken; None if it is to be read as any text."""
    kind, text = attributes.get("interpret-as", "").lower(), content.strip()
    if kind in ("characters", "spell-out", "verbatim"):
        return characters(text)
    if kind in ("digits", "telephone"):
        return _telephone(text) if kind == "telephone" else digits(re.sub(r"[^0-9]", "", text)) or None
    figures = text.replace(",", "").replace(" ", "")
    if kind in ("cardinal", "number"):
        return number_words(figures, years=False) or None
    if kind == "ordinal":
        found = re.fullmatch(r"(\d+)(?:st|nd|rd|th)?", figures)
        return ordinal_words(found[1]) if found else None
    if kind == "date":
        return _date(text, attributes.get("format", "mdy").lower())
    return clock_words(figures) or None if kind == "time" else None


def characters(text: str) -> list[str] | None:
    """Letters, digits and signs by their names."""
    words: list[str] = []
    for character in text:
        if character.isascii() and character.isalpha():
            words.append(Letter(character.upper()))
        elif character.isascii() and character.isdigit():
            words += cardinal(int(character))
        else:
            words += (SIGNS | {"-": "dash", "_": "underscore", ".": "dot", "/": "slash"}).get(character, "").split()
    return words or None


def _telephone(text: str) -> list[str] | None:
    words: list[str] = ["plus"] if text.startswith("+") else []
    for group in re.findall(r"[0-9]+", text):
        if words and words != ["plus"]:
            words[-1] += ","
        words += digits(group)
    return words or None


def _date(text: str, order: str) -> list[str] | None:
    """Numbers in the order of the format's letters: "mdy", "dmy", "ymd", "md", …"""
    parts = re.findall(r"[0-9]+", text)
    if len(parts) == 1 and len(parts[0]) == 8 and order == "ymd":
        parts = [parts[0][:4], parts[0][4:6], parts[0][6:]]
    if len(parts) != len(order) or not {"m", "d"} <= set(order) <= set("ymd"):
        return None
    values = dict(zip(order, parts, strict=True))
    month, day, year = int(values["m"]), int(values["d"]), values.get("y", "")
    if not (1 <= month <= 12 and 1 <= day <= 31) or len(year) not in (0, 2, 4):
        return None
    if len(year) == 2:
        year = ("19" if int(year) > 50 else "20") + year
    return date_words(month, day, year)
