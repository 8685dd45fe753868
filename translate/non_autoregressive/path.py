"""The likeliest path through the frames of CTC among those that begin with what is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FrameScores:
    """Log-probabilities of T frames.

    best, piece: (T,) of the likeliest piece or blank, and which it is.
    blank:       (T,) of the blank, and ``blank_piece`` its number.
    prefix:      (T, N) of each piece of a prefix.
    """

    best: Floats
    piece: Ints
    blank: Floats
    prefix: Floats
    blank_piece: int


class Emission(NamedTuple):
    """A piece that a path writes, with the frame at which it begins and its log-probability there."""

    piece: int
    frame: int
    score: float


def best_path(scores: FrameScores, prefix: Sequence[int], fixed: int, bias: float = 0.0) -> list[Emission]:
    """What the likeliest path writes behind the first ``fixed`` pieces of a prefix, with which it begins.

    It is exact: for each frame at which the prefix may end, its likeliest alignment up to there (Viterbi; Graves et al.
    2006, section 4.1) goes with the likeliest of everything behind.

    Args:
        scores: of the frames and the prefix.
        prefix: pieces; those behind ``fixed`` were shown before.
        fixed: pieces that are committed. Where there are too few frames for them, the oldest are left out.
        bias: share β of the probability that goes to the next shown piece, until the path departs from what was shown:
            it stays if (1 - β) r + β >= 1 - β, where r is the probability of the likeliest path with it, over that of
            the likeliest path without the condition (Arivazhagan et al. 2020, arXiv 2004.03643, equation 2).
    """
    over = _left_out(prefix[:fixed], len(scores.best))
    prefix, fixed, columns = list(prefix[over:]), fixed - over, scores.prefix[:, over:]
    behind = np.append(np.cumsum(scores.best[::-1])[::-1], 0.0)  # of the likeliest path from each frame on
    if not prefix:
        return _collapsed(scores.piece, scores.best, scores.blank_piece)
    alignment = _align(scores.blank, columns, prefix)
    through = alignment.scores[:, 1::2] + behind[1:, None]  # (T, N): piece n is written at frame t, all free behind
    wholes = np.append(behind[0], through.max(0))
    kept = fixed
    least = 1 - bias / (1 - bias)
    while kept < len(prefix) and np.isfinite(wholes[kept + 1]) and np.exp(wholes[kept + 1] - wholes[kept]) >= least:
        kept += 1
    if not kept:
        return _collapsed(scores.piece, scores.best, scores.blank_piece)
    last = int(through[:, kept - 1].argmax())
    numbers = alignment.back(last, 2 * kept - 1)
    path, values = scores.piece.copy(), scores.best.copy()
    for frame, number in enumerate(numbers):
        blank = number % 2 == 0
        path[frame] = scores.blank_piece if blank else prefix[number // 2]
        values[frame] = scores.blank[frame] if blank else columns[frame, number // 2]
    return _collapsed(path, values, scores.blank_piece)[fixed:]


class _Alignment(NamedTuple):
    """Of a prefix, with a blank before, between and behind its pieces: these are the 2 N + 1 places of a path.

    scores: (T, 2 N + 1) log-probability of the likeliest way to each place at each frame.
    steps:  (T, 2 N + 1) places by which that way moved on to the frame.
    """

    scores: Floats
    steps: Ints

    def back(self, frame: int, place: int) -> list[int]:
        """The places at all frames up to one at which the path is in a place."""
        places = [place]
        for at in range(frame, 0, -1):
            places.append(places[-1] - int(self.steps[at, places[-1]]))
        return places[::-1]


def _align(blank: Floats, columns: Floats, prefix: Sequence[int]) -> _Alignment:
    frames, size = len(blank), 2 * len(prefix) + 1
    emitted = np.empty((frames, size))
    emitted[:, ::2], emitted[:, 1::2] = blank[:, None], columns
    may_skip = np.zeros(size, dtype=bool)  # the blank before a piece that is not that before it
    may_skip[3::2] = [one != other for one, other in pairwise(prefix)]
    scores, steps = np.full((frames, size), -np.inf), np.zeros((frames, size), dtype=np.int64)
    scores[0, :2] = emitted[0, :2]
    ways = np.full((3, size), -np.inf)
    for at in range(1, frames):
        before = scores[at - 1]
        ways[0], ways[1, 1:], ways[2, 2:] = before, before[:-1], np.where(may_skip[2:], before[:-2], -np.inf)
        steps[at] = ways.argmax(0)
        scores[at] = ways.max(0) + emitted[at]
    return _Alignment(scores, steps)


def _collapsed(path: Ints, values: Floats, blank: int) -> list[Emission]:
    """What a path writes: of equal pieces in a row one, of blanks none."""
    before = np.append(blank, path[:-1])
    written = np.flatnonzero((path != blank) & (path != before))
    return [Emission(int(path[at]), int(at), float(values[at])) for at in written]


def _left_out(pieces: Sequence[int], frames: int) -> int:
    """How many of the oldest pieces have to be left out, so that frames are enough for the others."""
    needed, over = 0, len(pieces)
    while over:
        needed += 1 + (over < len(pieces) and pieces[over - 1] == pieces[over])
        if needed > frames:
            break
        over -= 1
    return over
