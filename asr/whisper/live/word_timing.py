"""When words were said, from the attention of the decoder to the audio, as far as a stream can tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LONGEST_PAUSE = 15  # encoder frames (20 ms): a word begins where the one before ended unless that is longer ago
APART = 6  # frames that lie between two tokens at least, where there is room
FAINTEST = 1e-4  # weight that says no more than none


def word_spans(attention: Sequence[Tensor], lengths: Sequence[int], frames: int, after: int) -> list[tuple[int, int]]:
    """Begin and end of consecutive words in encoder frames (20 ms).

    A token attends most to the end of the sounds it writes, and words do not overlap.

    Args:
        attention: one (R,) weight vector per token, averaged over the alignment heads.
        lengths: tokens of each word.
        frames: encoder frames of audio; weights beyond are padding.
        after: frame before which no word begins.
    """
    if not lengths:
        return []
    weights = torch.stack([own[: max(frames, 1)] for own in attention[: sum(lengths)]])
    peaks = in_order(weights.numpy(force=True), min(after, max(frames - 1, 0)))
    spans, first = [], 0
    for length in lengths:
        end = max(min(int(peaks[first + length - 1]) + 1, frames), after)
        begin = max(min(int(peaks[first]), end) - LONGEST_PAUSE, after)
        spans.append((begin, end))
        after, first = end, first + length
    return spans


def in_order(weights: np.ndarray, after: int) -> np.ndarray:
    """The frames (T,) one after the other, from ``after`` on, to which T tokens attend most together.

    Taken by itself, a token often attends most to the frame of another one: then words would have no length. The
    product of the weights (T, R) is the greatest among all frames that lie apart.
    """
    tokens, frames = weights.shape
    apart = min(APART, (frames - after) // (tokens + 1))
    scores = np.log(np.maximum(weights, FAINTEST))
    scores[0, : min(after + apart, frames - 1)] = -np.inf
    best, came = scores[0], []
    for own in scores[1:]:
        before = np.full(frames, -np.inf)
        before[apart:] = np.maximum.accumulate(best)[: frames - apart]
        came.append(best)
        best = own + before
    peaks = np.empty(tokens, np.int64)
    limit = frames
    for i, own in zip(range(tokens - 1, -1, -1), (best, *reversed(came)), strict=True):
        peaks[i] = own[:limit].argmax()
        limit = max(int(peaks[i]) - apart + 1, 1)
    return peaks
