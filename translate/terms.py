"""Terms whose translation is given, found as the words of the source come."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


class Glossary:
    """Phrases of the source, by their words, with what is written for them.

    Args:
        terms: phrase to translation; case and punctuation around words do not matter.

    Raises:
        ValueError: a phrase or a translation is empty.
    """

    def __init__(self, terms: Mapping[str, str]) -> None:
        self._terms: dict[tuple[str, ...], str] = {}
        for phrase, text in terms.items():
            words = tuple(bare(word) for word in phrase.split())
            if not any(words) or not text.strip():
                raise ValueError(f"glossary: expected a phrase and its translation, got {phrase!r}: {text!r}")
            self._terms[words] = text.strip()
        self._longest = max(map(len, self._terms), default=0)

    def ending(self, words: Sequence[str]) -> tuple[int, str] | None:
        """The longest phrase that the words end with: the number of its words, and its translation."""
        tail = [bare(word) for word in words[-self._longest :]] if self._longest else []
        for at in range(len(tail)):
            if (text := self._terms.get(tuple(tail[at:]))) is not None:
                return len(tail) - at, text
        return None

    def open(self, words: Sequence[str]) -> bool:
        """Whether more words may make a phrase of the last ones."""
        tail = [bare(word) for word in words[-self._longest :]] if self._longest else []
        tails = {tuple(tail[at:]) for at in range(len(tail))}
        return any(words[:length] in tails for words in self._terms for length in range(1, len(words)))


def bare(word: str) -> str:
    """A word in lower case, without the punctuation around it."""
    begin, end = 0, len(word)
    while begin < end and unicodedata.category(word[begin])[0] in "PZ":
        begin += 1
    while end > begin and unicodedata.category(word[end - 1])[0] in "PZ":
        end -= 1
    return word[begin:end].casefold()


def around(word: str) -> str:
    """The punctuation behind a word, which the translation of a term keeps."""
    end = len(word)
    while end and unicodedata.category(word[end - 1])[0] == "P":
        end -= 1
    return word[end:] if end else ""
