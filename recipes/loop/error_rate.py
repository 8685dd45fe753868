"""Word error rate, counted over a set of utterances."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class ErrorTally:
    """Word errors and words of reference."""

    errors: int = 0
    words: int = 0

    def add(self, reference: str, hypothesis: str) -> None:
        """Count one utterance, both texts normalised alike."""
        expected = reference.split()
        self.errors += word_errors(expected, hypothesis.split())
        self.words += len(expected)

    @property
    def rate(self) -> float:
        """Word error rate in per cent."""
        return 100 * self.errors / max(self.words, 1)


def error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Word error rate in per cent over pairs of reference and hypothesis."""
    tally = ErrorTally()
    for reference, hypothesis in pairs:
        tally.add(reference, hypothesis)
    return tally.rate


def word_errors(reference: list[str], hypothesis: list[str]) -> int:
    """Substitutions, deletions and insertions of the best alignment (Levenshtein 1966)."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, heard in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != heard))
    return row[-1]
