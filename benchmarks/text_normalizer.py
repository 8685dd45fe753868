"""Bring English text to a form in which only real errors count: case, punctuation, contractions, numbers, spelling.

A smaller relative of the English normaliser that Whisper's error rates are reported with (Radford et al. 2022,
appendix C).
"""

from __future__ import annotations

import re
import unicodedata

FILLERS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um|ah|oh|er|erm)\b")
BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]*\)")
CONTRACTIONS = tuple(
    (re.compile(pattern), full)
    for pattern, full in (
        (r"\bwon't\b", "will not"),
        (r"\bcan't\b", "can not"),
        (r"\bcannot\b", "can not"),
        (r"\bshan't\b", "shall not"),
        (r"\blet's\b", "let us"),
        (r"\bain't\b", "aint"),
        (r"\by'all\b", "you all"),
        (r"\bwanna\b", "want to"),
        (r"\bgonna\b", "going to"),
        (r"\bgotta\b", "got to"),
        (r"\bi'm\b", "i am"),
        (r"\bmr\b", "mister"),
        (r"\bmrs\b", "missus"),
        (r"\bdr\b", "doctor"),
        (r"\bst\b", "saint"),
        (r"\bok\b", "okay"),
        (r"n't\b", " not"),
        (r"'re\b", " are"),
        (r"'s\b", " is"),
        (r"'d\b", " would"),
        (r"'ll\b", " will"),
        (r"'ve\b", " have"),
    )
)
# British -> American, by stem
SPELLINGS = tuple(
    (re.compile(pattern), american)
    for pattern, american in (
        (r"\b(col|hon|fav|lab|neighb|harb|hum|rum|val|arm|vap|flav|behavi|endeav|sav)our", r"\1or"),
        (r"\b(cent|theat|lit|met|fib|spect)re(s?)\b", r"\1er\2"),
        (r"\bgrey", "gray"),
        (r"\b(\w{3,})is(e|ed|es|ing|ation|ations)\b", r"\1iz\2"),
        (r"\b(travel|cancel|label|model|signal|fuel)l(ed|ing|er|ers)\b", r"\1\2"),
    )
)
UNITS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
TENS = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}
ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "eleventh": 11,
    "twelfth": 12,
    "thirteenth": 13,
    "fourteenth": 14,
    "fifteenth": 15,
    "sixteenth": 16,
    "seventeenth": 17,
    "eighteenth": 18,
    "nineteenth": 19,
    "twentieth": 20,
}


def normalize_english(text: str) -> str:
    """Lower-case words and digits, single spaces between them; "" if nothing is left."""
    text = BRACKETED.sub(" ", text.lower().replace("’", "'").replace("`", "'"))
    text = FILLERS.sub(" ", text)
    for pattern, full in CONTRACTIONS:
        text = pattern.sub(full, text)
    for pattern, american in SPELLINGS:
        text = pattern.sub(american, text)
    text = re.sub(r"(\d),(?=\d{3}\b)", r"\1", text)
    text = re.sub(r"(\d)\.(?=\d)", r"\1point", text).replace("%", " percent ").replace("&", " and ")
    return " ".join(_numbers(_words(text)))


def normalize_other(text: str) -> str:
    """For other languages: lower case, no accents, no punctuation."""
    return " ".join(_words(BRACKETED.sub(" ", text.lower())))


def _words(text: str) -> list[str]:
    kept = []
    for character in unicodedata.normalize("NFKD", text):
        kind = unicodedata.category(character)
        if kind[0] == "M" or character == "'":
            continue
        kept.append(" " if kind[0] in "PSZC" else character)
    return "".join(kept).split()


def _numbers(words: list[str]) -> list[str]:
    """Spelled-out numbers as digits: "eighteen forty-three" and "1843" agree, so do "twenty first" and "21st"."""
    result: list[str] = []
    at = 0
    while at < len(words):
        number, after = _number(words, at)
        if number is None:
            result.append(words[at])
            at += 1
        else:
            result.append(number)
            at = after
    return result


def _number(words: list[str], at: int) -> tuple[str | None, int]:
    total, group, start = 0, -1, at
    while at < len(words):
        word = words[at]
        following = words[at + 1] if at + 1 < len(words) else ""
        if word in TENS and (group < 0 or group % 100 == 0):
            group = max(group, 0) + TENS[word]
        elif word in UNITS and (
            group < 0 or group % 100 == 0 or (group % 10 == 0 and group % 100 >= 20 and UNITS[word] < 10)
        ):
            if group == 0 or (group % 100 == 0 and group > 0 and UNITS[word] == 0):
                break  # digits read one by one
            group = max(group, 0) + UNITS[word]
        elif word in TENS and 10 <= group < 100:  # a year: eighteen forty(-three)
            group = group * 100 + TENS[word]
        elif word == "hundred" and 0 < group < 100:
            group *= 100
        elif word in SCALES and group > 0:
            total, group = total + group * SCALES[word], 0
        elif word == "and" and group > 0 and group % 100 == 0 and (following in UNITS or following in TENS):
            pass
        elif (
            word in ORDINALS
            and group > 0
            and (group % 100 == 0 or (group % 10 == 0 and group % 100 >= 20 and ORDINALS[word] < 10))
        ):
            return _ordinal(total + group + ORDINALS[word]), at + 1
        else:
            break
        at += 1
    if at == start:
        if words[at] in ORDINALS and words[at] != "second":
            return _ordinal(ORDINALS[words[at]]), at + 1
        return None, at
    return str(total + max(group, 0)), at


def _ordinal(value: int) -> str:
    ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return f"{value}{ending}"
