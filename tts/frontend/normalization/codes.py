"""Letters, digits and signs in one word: "H2O", "COVID-19", "R&D", "C++", "snake_case"."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import cardinal, digits, plural, year
from loquent.tts.frontend.normalization.numerals import DECADE, ORDINAL, is_number, number_words, ordinal_words
from loquent.tts.frontend.normalization.view import Letter, Reading, View, said

WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*'?")
PER = set("second minute hour day week month year person user unit item head capita night mile kilometer kg".split())
VOWEL = re.compile("[aeiouy]")
PART = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|\d[\d,]*(?:\.\d+)?(?:(?:st|nd|rd|th)\b|'?s\b)?|[^A-Za-z\d]")
KNOWN = {
    "C#": "C sharp", "F#": "F sharp", "24/7": "twenty four seven", "n/a": "N.A",
    "N/A": "N.A", "a/c": "A.C", "A/C": "A.C", "I/O": "I.O", "TCP/IP": "T.C.P I.P", "A/B": "A.B", "mp3": "M.P three",
    "mp4": "M.P four", "OK": "OK", "PhD": "P.H.D",
    "->": "to", "=>": "to", "-->": "to", ">=": "at least", "<=": "at most", "!=": "not equal to", "==": "equals",
    "&&": "and", "++": "plus plus", "<>": "not equal to",
}  # fmt: skip
SIGNS = {
    "&": "and", "@": "at", "#": "hash", "+": "plus", "=": "equals", "%": "percent", "$": "dollar", "£": "pound",
    "€": "euro", "¥": "yen", "<": "less than", ">": "greater than", "°": "degrees", "§": "section", "©": "copyright",
    "±": "plus or minus", "×": "times", "÷": "divided by", "≠": "not equal to", "≈": "about", "≤": "at most",
    "≥": "at least", "∞": "infinity", "√": "square root of", "→": "to", "⇒": "implies", "^": "to the power of",
    "²": "squared", "³": "cubed", "½": "one half", "¼": "one quarter", "¾": "three quarters", "µ": "micro",
    "№": "number", "∑": "sum of", "∫": "integral of", "∂": "partial", "∈": "in", "¢": "cents", "‰": "per mille",
    "℃": "degrees Celsius", "℉": "degrees Fahrenheit", "\\": "backslash", "¶": "paragraph",
}  # fmt: skip
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΔΣΩΠ",
        (
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "
            "psi omega delta sigma omega pi"
        ).split(),
        strict=True,
    )
)
SILENT = set("-_/.,'\"()[]{}:;!?|~*`–—…“”‘’«»•·▪■◦●‣®™´¨¸¯")
SUPERSCRIPTS = str.maketrans("⁰¹⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "01456789" + "0123456789")
PLURAL_IN_BRACKETS = re.compile(r"([A-Za-z]+)\((e?s)")
HYPHENED_NUMBER = re.compile(r"(\$?\d[\d,]*(?:\.\d+)?)-([A-Za-z][A-Za-z'-]*)")


def is_plain(core: str) -> bool:
    """Whether it has nothing but letters, and hyphens and apostrophes between them."""
    return WORD.fullmatch(core) is not None


def code(view: View) -> Reading:
    """Whatever no other rule has read."""
    core = view.core
    if core in KNOWN:
        return said(KNOWN[core].split())
    if core in ("x", "X", "×") and is_number(view.follower()):
        return said(["times" if core == "×" and is_number(view.preceding()) else "by"])
    if is_plain(core):
        return said([core])
    plural = PLURAL_IN_BRACKETS.fullmatch(core)
    if plural:
        return said([plural[1] + plural[2]], closing=view.piece.closing.removeprefix(")"))
    return said(code_words(core))


def code_words(text: str) -> list[str]:
    """The words of letters, digits and signs that stand together."""
    if text in KNOWN:
        return KNOWN[text].split()
    if is_plain(text):
        return [text]
    parts = PART.findall(text.translate(SUPERSCRIPTS))
    words: list[str] = []
    for index, part in enumerate(parts):
        before = parts[index - 1] if index else ""
        after = parts[index + 1] if index + 1 < len(parts) else ""
        if part[0].isdigit() and part[0].isascii():
            words += _number(part, beside=before[-1:].isalpha() or after[:1].isalpha())
        elif part[0].isalpha() and part[0].isascii():
            words += _letters(part, before, after)
        elif part == "/" and after in PER and before.isalpha():
            words.append("per")
        elif part in "*×" and before[-1:].isdigit() and after[:1].isdigit():
            words.append("by" if part == "×" and len(before) > 1 and len(after) > 1 else "times")
        elif part in GREEK:
            words.append(GREEK[part])
        elif part in SIGNS:
            words += SIGNS[part].split()
        elif part == "." and before[-1:].isalnum() and after[:1].isalnum():
            words.append("dot" if before[-1:].isalpha() or after[:1].isalpha() else "point")
        elif part == "-" and after[:1].isdigit() and not before[-1:].isalnum():
            words.append("minus")
        elif part not in SILENT and not part.isspace():
            continue
    return words


def _letters(text: str, before: str, after: str) -> list[str]:
    """Single letters, capitals beside a digit, and a few consonants are spelled."""
    if len(text) == 1:
        if text in "xX" and before[-1:].isdigit() and after[:1].isdigit():
            return ["by"]
        word = text == "a" and before in ("", "-", "'") and after in ("", "-", "'")
        return [text if word else Letter(text.upper())]
    beside_digit = bool(re.match(r"[\d&]", after)) or bool(re.search(r"[\d&]$", before))
    consonants = text.islower() and not VOWEL.search(text)
    return [".".join(text.upper())] if len(text) <= 3 and (consonants or (text.isupper() and beside_digit)) else [text]


def _number(text: str, beside: bool) -> list[str]:
    found = ORDINAL.fullmatch(text)
    if found:
        return ordinal_words(found[1])
    several = DECADE.fullmatch(text)
    if several:
        return plural(year(int(several[1])) if len(several[1]) == 4 else cardinal(int(several[1])))
    text = text.rstrip(",")
    if not is_number(text):
        text = re.sub(r"[^\d,.]", "", text).rstrip(",.")
    if beside and text.isdigit():
        return _figures(text)
    return number_words(text) or digits(re.sub(r"\D", "", text))


def _figures(text: str) -> list[str]:
    """Digits beside letters: "A320" is "three twenty"."""
    if text[0] == "0" and len(text) > 1:
        return ["zero" if figure == "0" else cardinal(int(figure))[0] for figure in text]
    if len(text) == 3 and not text.endswith("00"):
        last = int(text[1:])
        return [*cardinal(int(text[0])), *(["oh"] if last < 10 else []), *cardinal(last)]
    if len(text) == 4:
        return year(int(text))
    return cardinal(int(text)) if len(text) < 4 else digits(text)
