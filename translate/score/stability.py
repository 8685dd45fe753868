"""Stability: how much of what was shown was taken back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile


def normalised_erasure(outputs: Sequence[Sequence[str]]) -> float | None:
    """NE (arXiv 2004.03643, equation 2): units erased on the way, per unit of the last output; None if that is empty.

    Args:
        outputs: the units that were shown, one after the other.
    """
    erased = sum(len(before) - common_prefix(before, after) for before, after in pairwise(outputs))
    return erased / len(outputs[-1]) if outputs and outputs[-1] else None


def common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of units with which both begin."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:  # the common case, and quicker to find out
        return shorter
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
