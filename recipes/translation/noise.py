"""What a recogniser does to a sentence: no case, no punctuation, words misheard, lost and doubled."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

_PUNCTUATION = re.compile(r"[^\w\s'’-]|(?<!\w)['’-]|['’-](?!\w)")
_SOUNDS = (
    (r"[^a-z]", ""),
    (r"^(kn|gn|pn)", "n"),
    (r"^wr", "r"),
    (r"^wh", "w"),
    (r"ph", "f"),
    (r"gh", ""),
    (r"ck|q|c(?![eiyh])|x", "k"),
    (r"c(?=[eiy])|z", "s"),
    (r"dg|j", "g"),
    (r"mb$", "m"),
    (r"(.)\1+", r"\1"),
    (r"(?<!^)[aeiouyhw]", ""),
    (r"^[aeiou]", "a"),
)


def as_heard(text: str) -> str:
    """Lower case, without punctuation: as recognisers without either write it."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


def sound_of(word: str) -> str:
    """A key that words of similar sound share, made for English: its consonants, and whether a vowel leads."""
    key = word.lower()
    for pattern, sound in _SOUNDS:
        key = re.sub(pattern, sound, key)
    return key


def confusions(texts: Iterable[str], least: int = 5, most: int = 8) -> dict[str, list[str]]:
    """Words that a recogniser may write for each word: the commonest others that sound like it.

    Args:
        texts: sentences.
        least: how often a word has to occur.
        most: words for each.
    """
    counts = Counter(word for text in texts for word in as_heard(text).split() if word.isalpha())
    groups: dict[str, list[str]] = defaultdict(list)
    for word, count in counts.most_common():
        if count >= least and (key := sound_of(word)):
            groups[key].append(word)
    return {
        word: [other for other in group if other != word][:most]
        for group in groups.values()
        if len(group) > 1
        for word in group
    }


def misheard(text: str, rng: random.Random, similar: Mapping[str, Sequence[str]], rate: float) -> str:
    """Write other words for some, leave some out, say some twice.

    Args:
        text: as `as_heard` makes it.
        similar: see `confusions`.
        rate: share of the words that one of these happens to.
    """
    words: list[str] = []
    for word in text.split():
        kind = rng.random() / rate if rate else 1.0
        if kind < 0.7:
            words.append(rng.choice(similar[word]) if word in similar else word)
        elif kind < 0.85:
            words += [word, word]
        elif kind >= 1:
            words.append(word)
    return " ".join(words) or text
