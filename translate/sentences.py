"""Where a sentence of a text ends, told by the word that ends it."""

from __future__ import annotations

CLOSING = "\"'”’»)]}*_"
MARKS = (".", "!", "?", "…", "。", "！", "？", "।", "؟")
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr vs etc e.g i.e no vol fig approx dept est gen col sgt capt lt inc ltd co corp "
    "sra srta dra ud uds pág núm av aprox ee.uu p.ej "  # Spanish
    "hr fr nr bzw z.b d.h usw ca bspw u.a str "  # German
    "m mm mme mlle p.ex env".split()  # French
)


def ends_sentence(word: str) -> bool:
    """Whether a word is the last one of its sentence: it ends in a mark that is not that of an abbreviation.

    A line break behind a word is not part of it; who has lines flushes at their ends.
    """
    bare = word.strip().rstrip(CLOSING)
    if not bare.endswith(MARKS):
        return False
    if not bare.endswith(".") or bare.endswith(".."):
        return True
    stem = bare.rstrip(".").lstrip("\"'“‘«([{¿¡").lower()
    initial = len(stem) == 1 and stem.isalpha() and stem not in "iaoyeu"
    dotted = "." in stem and all(len(part) <= 2 for part in stem.split("."))
    return not (stem in ABBREVIATIONS or initial or dotted)
