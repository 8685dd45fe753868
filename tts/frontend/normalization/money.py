"""Amounts of money."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import count
from loquent.tts.frontend.normalization.numerals import WHOLE, number_words
from loquent.tts.frontend.normalization.unit_names import UNITS
from loquent.tts.frontend.normalization.units import RATES
from loquent.tts.frontend.normalization.view import Reading, View, said

# One, several, one and several of its hundredths.
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "₿": ("bitcoin", "bitcoins", "", ""),
}
CODES = {"USD": "$", "GBP": "£", "EUR": "€", "JPY": "¥", "INR": "₹"}
COUNTRIES = {
    "US": "U.S",
    "A": "Australian",
    "AU": "Australian",
    "C": "Canadian",
    "CA": "Canadian",
    "NZ": "New Zealand",
    "HK": "Hong Kong",
}
SIGNS = "".join(CURRENCIES)
MAGNITUDES = {
    "k": "thousand", "m": "million", "mn": "million", "mm": "million", "bn": "billion", "b": "billion", "t": "trillion",
    "tn": "trillion",
}  # fmt: skip
MAGNITUDE_WORDS = {"hundred", "thousand", "million", "billion", "trillion"}
PIECES = {"bill", "bills", "note", "notes", "coin", "coins"}  # "a $20 bill"
AMOUNT = rf"((?:{WHOLE})?(?:\.\d+)?)"
BEFORE = re.compile(
    rf"([-+]?)([A-Z]{{0,2}})([{SIGNS}])([-+]?){AMOUNT}-?({'|'.join(MAGNITUDES)}|{'|'.join(MAGNITUDE_WORDS)})?(\+?)(?:/([A-Za-z]+))?",
    re.IGNORECASE,
)
RANGE = re.compile(
    rf"([{SIGNS}]){AMOUNT}({'|'.join(MAGNITUDES)})?[-–—]\1?{AMOUNT}({'|'.join(MAGNITUDES)})?", re.IGNORECASE
)
BEHIND = re.compile(rf"{AMOUNT}({'|'.join(MAGNITUDES)})?([{SIGNS}¢])", re.IGNORECASE)
HYPHENED = re.compile(rf"([{SIGNS}]){AMOUNT}-([a-z][a-z-]*)")


def money(view: View) -> Reading | None:
    """ "$5 million", "£3.50", "€10-15", "99¢", "USD 5"."""
    core = view.core
    if core.upper() in CODES and core.isupper():
        return _coded(view)
    if not any(sign in core for sign in f"{SIGNS}¢"):
        return None
    found = BEFORE.fullmatch(core)
    if found and found[5]:
        return _amount(view, found)
    found = RANGE.fullmatch(core)
    if found and found[2] and found[4]:
        return _range(view, found)
    found = BEHIND.fullmatch(core)
    if found and found[1]:
        if found[3] == "¢":
            return said(_counted(found[1], "cent", "cents"))
        return said(amount_words(found[1], found[3], MAGNITUDES.get((found[2] or "").lower(), "")))
    found = HYPHENED.fullmatch(core)
    if found and found[2]:  # "$20-a-day"
        return said([*amount_words(found[2], found[1], ""), *found[3].split("-")])
    return None


def amount_words(amount: str, sign: str, magnitude: str) -> list[str]:
    """Digits and their currency; a magnitude stands between them."""
    one, several, cent, cents = CURRENCIES[sign]
    if magnitude:
        return [*number_words(amount, years=False), magnitude, several]
    whole, point, fraction = amount.replace(",", "").partition(".")
    if not point or len(fraction) != 2 or not cent:
        return _counted(amount, one, several)
    if int(fraction) == 0:
        return _counted(whole or "0", one, several)
    hundredths = [*count(str(int(fraction))), cent if int(fraction) == 1 else cents]
    if int(whole or "0") == 0:
        return hundredths
    return [*_counted(whole, one, several), "and", *hundredths]


def _amount(view: View, found: re.Match[str]) -> Reading:
    sign_before, country, sign, sign_behind, amount, magnitude, plus, rate = found.groups()
    before = {"-": ["minus"], "+": ["plus"], "": []}[sign_before or sign_behind]
    abroad = COUNTRIES.get((country or "").upper(), "").split()
    magnitude = magnitude.lower() if magnitude else ""
    magnitude = MAGNITUDES.get(magnitude, magnitude)
    behind = ["plus"] if plus else []
    if rate:
        behind += ["per", *RATES.get(rate, UNITS.get(rate, (rate, rate)))[0].split()]
    following = view.follower() if not magnitude and not behind else ""
    if following.lower() in MAGNITUDE_WORDS:
        number = number_words(amount, years=False)
        return Reading(((*before, *number), (following.lower(), *abroad, CURRENCIES[sign][1])))
    words = amount_words(amount, sign, magnitude)
    if following in PIECES and words[-1] == CURRENCIES[sign][1]:
        words[-1] = CURRENCIES[sign][0]
    if abroad:
        at = next(i for i, word in enumerate(words) if word in CURRENCIES[sign][:2])
        words[at:at] = abroad
    return said([*before, *words, *behind])


def _range(view: View, found: re.Match[str]) -> Reading:
    """The currency is named once, behind the second amount."""
    sign, first, first_size, last, last_size = found.groups()
    words = number_words(first, years=False)
    if first_size:
        words = [*words, MAGNITUDES[first_size.lower()]]
    magnitude = MAGNITUDES.get((last_size or "").lower(), "")
    following = view.follower() if not magnitude else ""
    if following.lower() in MAGNITUDE_WORDS:
        number = number_words(last, years=False)
        return Reading(((*words, "to", *number), (following.lower(), CURRENCIES[sign][1])))
    return said([*words, "to", *amount_words(last, sign, magnitude)])


def _coded(view: View) -> Reading | None:
    """ "USD 5" as "5 dollars", and "5 USD" likewise; else the code is read as letters."""
    sign = CODES[view.core]
    if number_words(view.preceding()) or view.preceding().lower() in MAGNITUDE_WORDS:
        return said([CURRENCIES[sign][0 if view.preceding() == "1" else 1]])
    amount = view.follower()
    if not number_words(amount):
        return None
    piece = view.after()
    larger = view.follower(2) if piece and not piece.closing else ""
    if larger.lower() in MAGNITUDE_WORDS:
        number = number_words(amount, years=False)
        return Reading(((), tuple(number), (larger.lower(), CURRENCIES[sign][1])))
    return Reading(((), tuple(amount_words(amount, sign, ""))))


def _counted(amount: str, one: str, several: str) -> list[str]:
    words = number_words(amount, years=False)
    return [*words, one if words == ["one"] else several]
