"""Texts that say one phrase over and over, as models do that have lost their way."""

from __future__ import annotations

from collections.abc import Sequence

ROUNDS = 4  # people do say "no, no, no"
LONGEST = 16  # pieces of a phrase


def before_loop(pieces: Sequence[int]) -> int:
    """How many pieces there are up to the second round of a phrase that comes four times in a row; all without one."""
    for end in range(ROUNDS, len(pieces) + 1):
        for size in range(1, min(LONGEST, end // ROUNDS) + 1):
            begin = end - ROUNDS * size
            if all(pieces[at] == pieces[at + size] for at in range(begin, end - size)):
                return begin + size
    return len(pieces)
