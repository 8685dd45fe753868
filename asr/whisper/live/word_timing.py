"""When words were said, from the attention of the decoder to the audio, as far as a stream can tell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LONGEST_PAUSE = 15  # encoder frames (20 ms): a word begins where the one before ended unless that is longer ago


def word_spans(attention: Sequence[Tensor], lengths: Sequence[int], frames: int, after: int) -> list[tuple[int, int]]:
    """Begin and end of consecutive words in encoder frames (20 ms).

    A token attends most to the end of the sounds it writes, and words do not overlap.

    Args:
        attention: one (R,) weight vector per token, averaged over the alignment heads.
        lengths: tokens of each word.
        frames: encoder frames of audio; weights beyond are padding.
        after: frame before which no word begins.
    """
    spans, first = [], 0
    for length in lengths:
        weights = torch.stack([own[: max(frames, 1)] for own in attention[first : first + length]])
        peaks = weights.argmax(-1)
        end = max(min(int(peaks.max()) + 1, frames), after)
        begin = max(min(int(peaks.min()), end) - LONGEST_PAUSE, after)
        spans.append((begin, end))
        after, first = end, first + length
    return spans
