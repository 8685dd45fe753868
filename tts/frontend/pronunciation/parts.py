"""Parts of words: what stands together without white space is read as one word if it can be, else part by part.

Port of misaki 0.9.4 (Apache-2.0, hexgrad) by way of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), see
`tts/assets/english/NOTICE`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loquent.tts.frontend.pronunciation.lexicon import Context, Lexicon
from loquent.tts.frontend.pronunciation.stress import CONSONANTS, PRIMARY, VOWELS, restress, weight

PART = re.compile(
    r"^['‘’]+|[A-ZÀ-ÖØ-Þ](?=[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ])|(?:^-)?(?:\d?[,.]?\d)+|[-_]+|['‘’]{2,}"
    r"|[^\W\d_]*?(?:['‘’][^\W\d_])*?[a-zß-öø-ÿ](?=[A-ZÀ-ÖØ-Þ])|[^\W\d_]+(?:['‘’][^\W\d_])*"
    r"|[^\w\-'‘’]|['‘’]+$"
)
SILENT = frozenset("',-._‘’/")  # within a word
PAUSES = frozenset(";:,.!?—…")
PUNCTUATION = PAUSES | frozenset('"“”')
PUNCTUATION_TAGS = frozenset([".", ",", "-LRB-", "-RRB-", "``", '""', "''", ":", "$", "#", "NFP"])
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "``": "“", '""': "”", "''": "”"}
LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass
class Part:
    """A piece of a token: letters, or punctuation, whose phonemes are known from the start."""

    text: str
    tag: str
    phonemes: str | None = None
    spaced: bool = False  # whether a space stands before its phonemes


def parts_of(token: str, tag: str, phonemes: str | None = None) -> list[Part]:
    """Cut a token: "Wi-Fi" to "Wi", "-", "Fi". With phonemes that are given it is one part."""
    if phonemes is not None:
        return [Part(token, tag, phonemes)]
    return [Part(text, tag, _punctuation(text, tag)) for text in PART.findall(token)]


def groups_of(parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    """The parts of what stands without white space, together where none of them is punctuation."""
    groups: list[tuple[Part, ...]] = []
    open_ = False
    for part in parts:
        if part.phonemes is not None:
            groups.append((part,))
            open_ = False
        elif open_:
            groups[-1] += (part,)
        else:
            groups.append((part,))
            open_ = True
    return groups


def read_group(
    group: Sequence[Part], context: Context, lexicon: Lexicon, unknown: Callable[[str], str]
) -> tuple[str, Context]:
    """The phonemes of a group, and the context of what stands before it.

    Args:
        context: of what stands behind the group.
        unknown: phonemes of letters that the lexicon does not know.
    """
    parts = [Part(part.text, part.tag, part.phonemes) for part in group]
    if len(parts) == 1:
        (part,) = parts
        if part.phonemes is None:
            part.phonemes = lexicon.read(part.text, part.tag, context)
        if part.phonemes is None:
            part.phonemes = _letters(part.text, unknown)
        return part.phonemes, _before(part, part.phonemes, context)
    whole, context = _read_parts(parts, context, lexicon)
    if not whole:
        return _letters("".join(part.text for part in parts), unknown), context
    _settle(parts)
    phonemes = ""
    for part in parts:
        space = " " if part.spaced and part.phonemes and phonemes and not phonemes[-1].isspace() else ""
        phonemes += space + (part.phonemes or "")
    return phonemes, context


def _read_parts(parts: list[Part], context: Context, lexicon: Lexicon) -> tuple[bool, Context]:
    """From the end, the longest runs that the lexicon knows. False if a part remains that it does not know."""
    left, right = 0, len(parts)
    while left < right:
        run = parts[left:right]
        merged = None if any(part.phonemes is not None for part in run) else _merged(run)
        phonemes = None if merged is None else lexicon.read(merged.text, merged.tag, context)
        if merged and phonemes is not None:
            parts[left].phonemes = phonemes
            for part in parts[left + 1 : right]:
                part.phonemes = ""
            context = _before(merged, phonemes, context)
            left, right = 0, left
        elif left + 1 < right:
            left += 1
        else:
            right -= 1
            if parts[right].phonemes is None:
                if not SILENT.issuperset(parts[right].text):
                    return False, context
                parts[right].phonemes = ""
            left = 0
    return True, context


def _settle(parts: list[Part]) -> None:
    """Spaces between parts of different kinds; elsewhere, fewer stresses: a compound has one main stress."""
    text = "".join(part.text for part in parts)
    kinds = {0 if c.isalpha() else 1 if c.isdigit() else 2 for c in text if c not in SILENT}
    if "/" in text or len(kinds) > 1:
        for part in parts[1:]:
            part.spaced = True
        return
    stressed = [(PRIMARY in ps, weight(ps), index) for index, part in enumerate(parts) if (ps := part.phonemes)]
    if len(stressed) == 2 and len(parts[stressed[0][2]].text) == 1:
        weaker = [stressed[1][2]]
    elif len(stressed) > 1 and sum(primary for primary, *_ in stressed) > (len(stressed) + 1) // 2:
        weaker = [index for *_, index in sorted(stressed)[: len(stressed) // 2]]
    else:
        weaker = []
    for index in weaker:
        parts[index].phonemes = restress(parts[index].phonemes or "", -0.5)


def _merged(parts: Sequence[Part]) -> Part:
    """Parts as one, with the tag of that with the most letters, capitals counted twice."""
    longest = max(parts, key=lambda part: sum(1 if c == c.lower() else 2 for c in part.text))
    return Part("".join(part.text for part in parts), longest.tag)


def _before(part: Part, phonemes: str, context: Context) -> Context:
    """What a word sees of the part behind it."""
    vowel = context.vowel
    for phone in phonemes:
        if phone in VOWELS or phone in CONSONANTS or phone in PAUSES:
            vowel = None if phone in PAUSES else phone in VOWELS
            break
    return Context(vowel, part.text in ("to", "To") or (part.text == "TO" and part.tag in ("TO", "IN")))


def _punctuation(text: str, tag: str) -> str | None:
    """What is said of punctuation, mostly itself; None for what has letters."""
    if tag == ":" and text in ("-", "–"):
        return "—"
    if tag in PUNCTUATION_TAGS and not all("a" <= c <= "z" for c in text.lower()):
        return BRACKETS.get(tag, "".join(c for c in text if c in PUNCTUATION))
    return None


def _letters(text: str, unknown: Callable[[str], str]) -> str:
    return " ".join(filter(None, map(unknown, LETTERS.findall(text))))
