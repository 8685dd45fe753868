"""What -s, -ed and -ing add to the phonemes of a stem, in American English.

Port of misaki 0.9.4 (Apache-2.0, hexgrad) by way of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), see
`tts/assets/english/NOTICE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FLAPPING = frozenset("AIOWYiuæɑəɛɪɹʊʌ")  # a t behind one of them becomes a flap before a vowel
DOUBLED = re.compile(r"([bcdgklmnprstvxz])\1ing$|cking$")  # "running", "mimicking"


def with_s(stem: str) -> str:
    """Phonemes of a plural, a possessive or the third person."""
    if stem[-1] in "ptkfθ":
        return stem + "s"
    return stem + ("ᵻz" if stem[-1] in "szʃʒʧʤ" else "z")


def with_ed(stem: str) -> str:
    """Phonemes of the past."""
    if stem[-1] in "pkfθʃsʧ":
        return stem + "t"
    if stem[-1] == "d":
        return stem + "ᵻd"
    if stem[-1] != "t":
        return stem + "d"
    if len(stem) < 2:
        return stem + "ɪd"
    return stem[:-1] + "ɾᵻd" if stem[-2] in FLAPPING else stem + "ᵻd"


def with_ing(stem: str) -> str:
    """Phonemes of the participle."""
    flapped = len(stem) > 1 and stem[-1] == "t" and stem[-2] in FLAPPING
    return stem[:-1] + "ɾɪŋ" if flapped else stem + "ɪŋ"


def stems_of_s(word: str) -> Iterator[str]:
    """Words that a word in -s may come from, the likeliest first."""
    if len(word) < 3 or not word.endswith("s"):
        return
    if not word.endswith("ss"):
        yield word[:-1]
    if word.endswith("'s") or (len(word) > 4 and word.endswith("es") and not word.endswith("ies")):
        yield word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        yield word[:-3] + "y"


def stems_of_ed(word: str) -> Iterator[str]:
    """Words that a word in -d may come from, the likeliest first."""
    if len(word) < 4 or not word.endswith("d"):
        return
    if not word.endswith("dd"):
        yield word[:-1]
    if len(word) > 4 and word.endswith("ed") and not word.endswith("eed"):
        yield word[:-2]


def stems_of_ing(word: str) -> Iterator[str]:
    """Words that a word in -ing may come from, the likeliest first."""
    if len(word) < 5 or not word.endswith("ing"):
        return
    if len(word) > 5:
        yield word[:-3]
    yield word[:-3] + "e"
    if len(word) > 5 and DOUBLED.search(word):
        yield word[:-4]
