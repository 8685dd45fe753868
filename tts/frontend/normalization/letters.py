"""Latin letters with and without accents."""

from __future__ import annotations

import unicodedata

OWN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}


def without_accents(text: str) -> str:
    """Latin letters as those of ASCII that they come from; other characters as they are."""
    return text if text.isascii() else "".join(map(_base, unicodedata.normalize("NFC", text)))


def _base(character: str) -> str:
    if "\uff01" <= character <= "\uff5e":  # full-width forms of ASCII
        return unicodedata.normalize("NFKC", character)
    if not character.isalpha():
        return "" if unicodedata.category(character) == "Mn" else character
    small = character.lower()
    if small in OWN:
        return OWN[small] if character == small else OWN[small].capitalize()
    bases = [c for c in unicodedata.normalize("NFKD", character) if unicodedata.category(c) != "Mn"]
    return "".join(bases) if all(c.isascii() for c in bases) else character
