"""Where the window that follows a full one begins."""

from __future__ import annotations

from collections.abc import Sequence

from loquent.asr.whisper.live.memo import CommittedWord


def next_begin(words: Sequence[CommittedWord], recent: float, monotonic: bool) -> float:
    """The beginning of a committed word of the last seconds, or of the last word if that is longer ago.

    A translation does not follow the audio word by word. There it is the earliest sound that any of the words from that
    one on attends to.

    Args:
        words: committed ones of the full window.
        recent: time at which the last seconds begin. All times are in seconds from the start of the stream.
        monotonic: whether the words are in the order of their sounds.

    Source: of the second rule, StreamAtt, Papi et al. 2024 (arXiv 2406.06097).
    """
    begin = next((word.start for word in words if word.start >= recent), recent)
    if words:  # its end is known only roughly: audio from there on might contain the rest of the word
        begin = min(begin, words[-1].start)
    return begin if monotonic else min([begin, *(word.earliest for word in words if word.start >= begin)])
