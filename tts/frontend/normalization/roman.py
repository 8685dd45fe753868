"""Roman numerals behind names of rulers, chapters, wars."""

from __future__ import annotations

import re

from loquent.tts.frontend.normalization.number_words import cardinal, ordinal
from loquent.tts.frontend.normalization.view import Reading, View, said

ROMAN = re.compile(r"(?=[IVXLC])(C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
RULERS = set(
    "Henry Louis Edward George William Charles James Richard Elizabeth Napoleon Pius Benedict Leo Paul Ramses Ramesses "
    "Frederick Philip Alexander Nicholas Peter Catherine Ivan Umberto Emmanuel Gustav Christian Ferdinand Mary Leopold "
    "Wilhelm Otto Gregory Clement Innocent Urban Boniface Julius Sixtus Stephen Robert John Alfonso Francis Joseph "
    "Rudolf Maximilian Constantine Theodosius Justinian Cyrus Darius Xerxes Ptolemy Cleopatra Thutmose Amenhotep Seti "
    "Mehmed Murad Selim Suleiman Sigismund Casimir Haakon Harald Olav Margaret Juan Carlos Pedro Albert Abdullah "
    "Hussein Rama Pope King Queen Emperor".split()
)
TITLES = {
    "Pope",
    "King",
    "Queen",
    "Emperor",
    "Empress",
    "Tsar",
    "Czar",
    "Sultan",
    "Prince",
    "Duke",
    "Pharaoh",
    "Kaiser",
}
COUNTED = set(
    "Chapter Part Act Scene Section Volume Book Phase Article War Mark Type Level Stage Class Grade Bowl Apollo Gemini "
    "Fantasy Episode Round Rocky Title Figure Table Appendix Schedule Division Group Category Tier Unit Lesson Module "
    "Corps Game Games Quest Saturn Titan".split()
)
# Behind a name and "I", these go on with the name: "Elizabeth I was queen"; behind "I" as a pronoun others do.
RULED = {"of", "was", "is", "and", "ruled", "reigned", "became", "died", "had", "to"}


def roman(view: View) -> Reading | None:
    """ "Henry VIII", "Chapter IV", "World War II", "the XIX century"."""
    core = view.core
    numeral = core.removesuffix("'s")
    if not ROMAN.fullmatch(numeral):
        return None
    value, before = roman_value(numeral), view.preceding()
    possessive = core[len(numeral) :]
    ruler = before in RULERS or (before[:1].isupper() and view.preceding(2) in TITLES)
    if ruler and numeral not in ("C", "L") and _is_numeral(view, numeral):
        return said(["the", *_with(ordinal(value), possessive)])
    known = before if before[:1].isupper() else before.capitalize() if len(numeral) > 1 else ""
    if known in COUNTED and _is_numeral(view, numeral):
        return said(_with(cardinal(value), possessive))
    if len(numeral) > 1 and set(numeral) <= set("IVX"):
        if view.follower() in ("century", "centuries"):
            return said(ordinal(value))
        if before[:1].isupper() and before.isalpha() and not before.isupper():
            return said(_with(cardinal(value), possessive))
    return None


def roman_value(numeral: str) -> int:
    """The number that a Roman numeral stands for."""
    values = [VALUES[letter] for letter in numeral]
    return sum(-value if value < max(values[i:]) else value for i, value in enumerate(values))


def _is_numeral(view: View, numeral: str) -> bool:
    """Not the pronoun."""
    if view.core != "I" or view.piece.closing or view.preceding(2) == "World":
        return True
    following = view.after()
    return following is None or following.core in RULED


def _with(words: list[str], suffix: str) -> list[str]:
    return [*words[:-1], words[-1] + suffix]
