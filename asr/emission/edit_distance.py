"""Which words of a hypothesis stand for which words of a reference."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def align_sequences(
    hypothesis: Sequence[Hashable], reference: Sequence[Hashable]
) -> list[tuple[int | None, int | None]]:
    """Cheapest pairing of two sequences, in order: Levenshtein's, with substitutions before insertions and deletions.

    Returns:
        Pairs (index in ``hypothesis``, index in ``reference``): an inserted item has no partner in the reference, a
        deleted one none in the hypothesis. Pairs of unlike items are substitutions.
    """
    cost = np.zeros((len(hypothesis) + 1, len(reference) + 1), dtype=np.int64)
    cost[:, 0] = np.arange(len(hypothesis) + 1)
    cost[0, :] = np.arange(len(reference) + 1)
    for i, item in enumerate(hypothesis):
        for j, other in enumerate(reference):
            cost[i + 1, j + 1] = min(cost[i, j] + (item != other), cost[i, j + 1] + 1, cost[i + 1, j] + 1)

    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(hypothesis), len(reference)
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (hypothesis[i - 1] != reference[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]
