"""Words to phonemes by a lexicon and the rules around it: parts of speech, stress of capitals, suffixes, weak forms.

Port of misaki 0.9.4 (Apache-2.0, hexgrad) by way of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), see
`tts/assets/english/NOTICE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from loquent.tts.frontend.normalization.letters import without_accents
from loquent.tts.frontend.pronunciation.more_words import MORE_WORDS
from loquent.tts.frontend.pronunciation.stress import PRIMARY, SECONDARY, restress
from loquent.tts.frontend.pronunciation.suffixes import (
    stems_of_ed,
    stems_of_ing,
    stems_of_s,
    with_ed,
    with_ing,
    with_s,
)
from loquent.tts.frontend.pronunciation.tables import Table

CAPITALISED, ALL_CAPITALS = 0.5, 2.0  # stress that they ask for
SUFFIXES: tuple[tuple[Callable[[str], Iterator[str]], Callable[[str], str]], ...] = (
    (stems_of_s, with_s),
    (stems_of_ed, with_ed),
    (stems_of_ing, with_ing),
)
SPELLABLE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'-")


class Context(NamedTuple):
    """What follows a word, as far as its pronunciation depends on it.

    vowel: whether the next phone is a vowel; None before punctuation and at the end.
    to:    whether the next word is "to".
    """

    vowel: bool | None = None
    to: bool = False


class Lexicon:
    """Phonemes of the words that it has, their inflections, and abbreviations that are spelled.

    An entry is the phonemes, or phonemes by part of speech: "DEFAULT=jˈuzd VBD=jˈust". A word in small letters answers
    to its capitalised form, too, and the other way round, unless the other form has an entry of its own.

    Args:
        gold: entries checked by hand.
        silver: others, in small letters.
    """

    def __init__(self, gold: Table, silver: Table) -> None:
        self._gold, self._silver = gold, silver

    def read(self, text: str, tag: str, context: Context) -> str | None:
        """The phonemes of a word; None if it is unknown.

        Args:
            tag: its part of speech (Penn Treebank).
        """
        word = without_accents(text)
        if word in MORE_WORDS:
            return MORE_WORDS[word]
        stress = None
        if word != word.lower():
            stress = ALL_CAPITALS if word == word.upper() else CAPITALISED
        known = self._weak_form(word, tag, stress, context)
        if known:
            return known
        word = self._small_letters(word, tag, stress, context)
        if self._is_known(word):
            return self._entry(word, tag, stress, context)
        if word.endswith("s'") and self._is_known(word[:-2] + "'s"):
            return self._entry(word[:-2] + "'s", tag, stress, context)
        if word.endswith("'") and self._is_known(word[:-1]):
            return self._entry(word[:-1], tag, stress, context)
        return self._inflected(word, tag, stress, context)

    def spell(self, word: str) -> str | None:
        """The names of the letters, the last one stressed; None if it has other signs than letters and marks."""
        names = [self._find(self._gold, letter.upper()) for letter in word if letter.isalpha()]
        if not all(names):
            return None
        return PRIMARY.join(restress("".join(name or "" for name in names), 0).rsplit(SECONDARY, 1))

    def _weak_form(self, word: str, tag: str, stress: float | None, context: Context) -> str | None:
        """Words that sound different from case to case, and letters with dots."""
        if _is_dotted(word):
            return self.spell(word)
        match word:
            case "a" | "A":
                return "ɐ" if tag == "DT" else "ˈA"
            case "am" | "Am" | "AM":
                if tag.startswith("NN"):
                    return self.spell(word)
                strong = context.vowel is None or word != "am" or (stress or 0) > 0
                return self._find(self._gold, "am") if strong else "ɐm"
            case "an" | "An" | "AN":
                return self.spell(word) if word == "AN" and tag.startswith("NN") else "ɐn"
            case "I" if tag == "PRP":
                return SECONDARY + "I"
            case "by" | "By" | "BY" if _kind(tag) == "ADV":
                return "bˈI"
            case "to" | "To":
                return self._to(context)
            case "TO" if tag in ("TO", "IN"):
                return self._to(context)
            case "in" | "In":
                return _in(tag, context)
            case "IN" if tag != "NNP":
                return _in(tag, context)
            case "the" | "The":
                return "ði" if context.vowel else "ðə"
            case "THE" if tag == "DT":
                return "ði" if context.vowel else "ðə"
            case "used" | "Used" | "USED":
                entry = _by_tag(self._find(self._gold, "used") or "")
                return entry["VBD" if tag in ("VBD", "JJ") and context.to else "DEFAULT"]
        return None

    def _to(self, context: Context) -> str | None:
        if context.vowel is None:
            return self._find(self._gold, "to")
        return "tʊ" if context.vowel else "tə"

    def _small_letters(self, word: str, tag: str, stress: float | None, context: Context) -> str:
        """The word in small letters, where its capitals do not tell it from the word that the lexicon has."""
        small = word.lower()
        if (
            len(word) > 1
            and word != small
            and word.replace("'", "").isalpha()
            and (tag != "NNP" or len(word) > 7)
            and not self._has(word)
            and (word == word.upper() or word[1:] == word[1:].lower())
            and (self._has(small) or self._inflected(small, tag, stress, context))
        ):
            return small
        return word

    def _is_known(self, word: str) -> bool:
        """Whether `_entry` has phonemes for it: an entry, or letters to spell."""
        if self._has(word):
            return True
        if not word.isalpha() or not SPELLABLE.issuperset(word):
            return False
        if len(word) == 1 or (word == word.upper() and self._find(self._gold, word.lower()) is not None):
            return True
        return word[1:] == word[1:].upper()

    def _entry(self, word: str, tag: str, stress: float | None, context: Context) -> str | None:
        name = False
        if word == word.upper() and self._find(self._gold, word) is None:
            word, name = word.lower(), tag == "NNP"
        found = self._find(self._gold, word)
        if found is None and not name:
            found = self._find(self._silver, word)
        if found is not None and "=" in found:
            readings = _by_tag(found)
            if context.vowel is None and "None" in readings:
                tag = "None"
            elif tag not in readings:
                tag = _kind(tag)
            found = readings.get(tag, readings["DEFAULT"]) or None
        if found is None or (name and PRIMARY not in found):
            spelled = self.spell(word)
            if spelled is not None:
                return spelled
        return None if found is None else restress(found, stress)

    def _inflected(self, word: str, tag: str, stress: float | None, context: Context) -> str | None:
        for stems, ending in SUFFIXES:
            stem = next(filter(self._is_known, stems(word)), None)
            if stem is None:
                continue
            own = 0.5 if ending is with_ing and stress is None else stress
            phonemes = self._entry(stem, tag, own, context)
            if phonemes:
                return ending(phonemes)
        return None

    def _has(self, word: str) -> bool:
        return self._find(self._gold, word) is not None or self._find(self._silver, word) is not None

    @staticmethod
    def _find(table: Table, word: str) -> str | None:
        found = table.get(word)
        if found is None and len(word) > 1:
            if word == word.lower():
                return table.get(word.capitalize())
            if word == word.lower().capitalize():
                return table.get(word.lower())
        return found


def _is_dotted(word: str) -> bool:
    """Whether it is made of single letters, or pairs, with dots between them: "U.S", "Ph.D"."""
    return "." in word.strip(".") and word.replace(".", "").isalpha() and len(max(word.split("."), key=len)) < 3


def _in(tag: str, context: Context) -> str:
    return ("" if context.vowel is not None and tag == "IN" else PRIMARY) + "ɪn"


def _by_tag(entry: str) -> dict[str, str]:
    return {tag: phonemes for tag, _, phonemes in (reading.partition("=") for reading in entry.split(" "))}


def _kind(tag: str) -> str:
    """The part of speech as entries name it."""
    if tag.startswith("VB"):
        return "VERB"
    if tag.startswith("NN"):
        return "NOUN"
    if tag.startswith("RB"):
        return "ADV"
    return "ADJ" if tag.startswith("JJ") else tag
