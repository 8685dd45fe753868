"""Cuts a sentence and its translation into chunks that can be translated one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Chunk(NamedTuple):
    """Words of the source, and those that are written once they were read: numbers behind the last of either."""

    source: int
    target: int


def minimal_chunks(links: Iterable[tuple[int, int]], source: int, target: int) -> list[Chunk]:
    """The smallest chunks in order such that no word is written before a word that it is linked with was read.

    Words without a link go with those behind them, at the end with those before.

    Args:
        links: numbers of a source and a target word each.
        source, target: words of either side.

    Source: the monotone chunks of EAST (arXiv 2504.09570, section 3.1).
    """
    furthest_target, furthest_source = [-1] * source, [-1] * target
    for i, j in links:
        furthest_target[i] = max(furthest_target[i], j)
        furthest_source[j] = max(furthest_source[j], i)
    chunks: list[Chunk] = []
    written, reach, needed = 0, -1, -1
    for i in range(source):
        reach = max(reach, furthest_target[i])
        while written <= reach:
            needed = max(needed, furthest_source[written])
            written += 1
        if needed <= i and written > (chunks[-1].target if chunks else 0):
            chunks.append(Chunk(i + 1, written))
    if chunks:
        chunks.pop()
    return [*chunks, Chunk(source, target)]


def merged(chunks: list[Chunk], least: int) -> list[Chunk]:
    """Neighbours joined until each chunk has at least so many source words; the last one may have fewer.

    EAST joins chunks of 3 words or fewer.
    """
    joined: list[Chunk] = []
    for chunk in chunks:
        before = joined[-1].source if joined else 0
        if chunk.source - before >= least or chunk == chunks[-1]:
            joined.append(chunk)
    return joined
