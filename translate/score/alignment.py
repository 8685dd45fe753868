"""Which word of a translation stands for which word of a reference: the alignment that is most alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_CELLS = 200_000_000


def align(alike: Similarity, most_cells: int = MOST_CELLS) -> list[tuple[int | None, int | None]]:
    """The monotone alignment of greatest total similarity; leaving a word out costs nothing.

    Dynamic programming as in OmniSTEval's SoftSegmenter (arXiv 2509.17349), with the same choice among alignments that
    are as good: a match before a word of the reference alone, and that before a word of the hypothesis alone, seen
    from the end. O(n m) steps, in rows of numpy.

    Args:
        alike: of n words of a reference and m of a hypothesis.
        most_cells: of the table, a byte each. A larger one is worked out within a band around its diagonal, which is
            made wider as long as the alignment runs along its border.

    Returns:
        pairs of numbers, in order: both words, or one with None.
    """
    width = max(most_cells // (alike.shape[0] + 1), 2)
    while True:
        path = list(_Band(alike, width).path())
        if not any(near for near, _ in path):
            return [pair for _, pair in path]
        width *= 2


class Similarity:
    """How alike words are: the Jaccard index of the sets of their characters.

    Minus infinity if one of them is punctuation and the other is not.
    """

    def __init__(self, reference: Sequence[str], hypothesis: Sequence[str]) -> None:
        characters = {one: at for at, one in enumerate(sorted(set("".join([*reference, *hypothesis]))))}
        self._reference, self._hypothesis = _Words(reference, characters), _Words(hypothesis, characters)
        self.shape = len(reference), len(hypothesis)

    def row(self, at: int, columns: slice = slice(None)) -> NDArray[np.float64]:
        """Of one word of the reference and some of the hypothesis."""
        one, others = self._reference.numbers[at], self._hypothesis
        common = others.characters @ self._reference.characters[one]
        together = others.sizes + self._reference.sizes[one] - common
        same_kind = others.punctuation == self._reference.punctuation[one]
        return np.where(same_kind, common / together, -np.inf)[others.numbers[columns]]


class _Words:
    """The number of each word's kind, and of each kind: its characters (kinds, all characters), and how many."""

    def __init__(self, words: Sequence[str], characters: dict[str, int]) -> None:
        kinds = {word: number for number, word in enumerate(dict.fromkeys(words))}
        self.numbers = np.array([kinds[word] for word in words], np.int64)
        self.characters = np.zeros((len(kinds), len(characters)))
        for row, word in zip(self.characters, kinds, strict=True):
            row[[characters[one] for one in word]] = 1
        self.sizes = self.characters.sum(1)
        self.punctuation = np.array([is_punctuation(word) for word in kinds], bool)


def is_punctuation(word: str) -> bool:
    """Whether all characters of a word are punctuation or symbols."""
    return all(unicodedata.category(character)[0] in "PS" for character in word)


@dataclass
class _Band:
    """The table of the dynamic programme, of whose rows only ``width`` columns around the diagonal are worked out."""

    alike: Similarity
    width: int

    def path(self) -> Iterator[tuple[bool, tuple[int | None, int | None]]]:
        """Pairs from the beginning, each with whether a border of the band that is none of the table was near."""
        rows, columns = self.alike.shape
        width = min(self.width, columns + 1)
        # Row i holds the columns from firsts[i] on; column j is what came before word j of the hypothesis.
        middle = np.arange(rows + 1) * columns // max(rows, 1)
        firsts = np.clip(middle - width // 2, 0, columns + 1 - width)
        moves = self._moves(firsts, width)
        found: list[tuple[bool, tuple[int | None, int | None]]] = []
        i, j = rows, columns
        while i or j:
            first = int(firsts[i])
            at = j - first
            near = (at <= 0 < first) or (at >= width - 1 and first + width <= columns)
            move = INSERT if not i or at >= width else DELETE if not j else moves[i, at]
            i, j = i - (move != INSERT), j - (move != DELETE)
            found.append((near, (None if move == INSERT else i, None if move == DELETE else j)))
        return reversed(found)

    def _moves(self, firsts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """The best last move of each cell."""
        rows, columns = self.alike.shape
        moves = np.zeros((rows + 1, width), np.uint8)
        best = np.zeros(columns + 1)  # of the row before, and to the right of its band what it comes to there
        for i in range(1, rows + 1):
            first, before = int(firsts[i]), int(firsts[i - 1])
            best[before + width :] = best[before + width - 1]
            here = slice(max(first, 1), first + width)
            match = best[here.start - 1 : here.stop - 1] + self.alike.row(i - 1, slice(here.start - 1, here.stop - 1))
            if 0 < first == before:
                match[0] = -np.inf  # it would come from the left of the band
            delete = best[here].copy()
            best[here] = np.maximum.accumulate(np.maximum(match, delete))
            inserted = np.concatenate(([-np.inf if first else 0.0], best[here][:-1]))
            chosen = np.where(delete >= inserted, DELETE, INSERT)
            moves[i, here.start - first :] = np.where((match >= delete) & (match >= inserted), MATCH, chosen)
        return moves


MATCH, DELETE, INSERT = 0, 1, 2  # both words; one of the reference alone; one of the hypothesis alone
