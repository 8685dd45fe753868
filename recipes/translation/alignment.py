"""Which words of two sentences translate each other: IBM's model 1 with a prior for the diagonal, both ways.

Sources: Brown et al. 1993, model 1; Dyer et al. 2013, "A simple, fast, and effective reparameterization of IBM
model 2", whose prior this is; Och and Ney 2003 and Koehn et al. 2003 for the union of both directions ("grow-diag").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Words = Sequence[str]
Array = np.ndarray[Any, np.dtype[Any]]
NULL = 0.08  # probability that a word comes from none
SHARPNESS = 4.0  # of the prior: how fast it falls with the distance from the diagonal


def align(pairs: Sequence[tuple[Words, Words]], iterations: int = 5) -> list[set[tuple[int, int]]]:
    """The links of each pair of sentences: numbers of a source word and a target word.

    The tables of translations are learnt from the pairs themselves, so thousands of them are needed; the memory is
    about 60 bytes for each pair of words that stand in one pair of sentences.

    Args:
        pairs: words of the source, words of the target; at least one on either side.
        iterations: of expectation and maximisation.
    """
    forward = _links(pairs, iterations)
    backward = _links([(target, source) for source, target in pairs], iterations)
    return [
        _grown({(i, j) for j, i in enumerate(there) if i >= 0}, {(i, j) for i, j in enumerate(back) if j >= 0})
        for there, back in zip(forward, backward, strict=True)
    ]


def _links(pairs: Sequence[tuple[Words, Words]], iterations: int) -> list[list[int]]:
    """For each target word of each pair, the source word that it comes from most likely; -1 for none."""
    source, target = (
        {word: at for at, word in enumerate(sorted({w for p in pairs for w in p[side]}))} for side in (0, 1)
    )
    keys, priors = [], []
    for read, written in pairs:
        rows = np.array([source[word] for word in read] + [len(source)])  # the last one is none
        keys.append(rows * len(target) + np.array([target[word] for word in written])[:, None])
        priors.append(_prior(len(read), len(written)))
    cells, prior = np.concatenate([key.ravel() for key in keys]), np.concatenate([one.ravel() for one in priors])
    unique, cell = np.unique(cells, return_inverse=True)
    widths = np.concatenate([np.full(key.shape[0], key.shape[1]) for key in keys])
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    given = unique // len(target)
    table = np.ones(len(unique))
    for _ in range(iterations):
        weight = table[cell] * prior
        weight /= np.repeat(np.add.reduceat(weight, starts), widths)
        count = np.bincount(cell, weight)
        table = count / np.bincount(given, count)[given]
    likely = table[cell] * prior
    links, at = [], 0
    for key in keys:
        best = likely[at : at + key.size].reshape(key.shape).argmax(axis=1)
        links.append([-1 if one == key.shape[1] - 1 else int(one) for one in best])
        at += key.size
    return links


def _prior(source: int, target: int) -> Array:
    """Of each target word: where it comes from, and last that it comes from nowhere; (target, source + 1)."""
    i, j = (np.arange(count) + 0.5 for count in (source, target))
    near = np.exp(-SHARPNESS * np.abs(i / source - (j / target)[:, None]))
    return np.concatenate([(1 - NULL) * near / near.sum(1, keepdims=True), np.full((target, 1), NULL)], axis=1)


def _grown(forward: set[tuple[int, int]], backward: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The links of both directions, and those of one that touch them and bring a word that has none."""
    links, union = forward & backward, sorted(forward | backward)
    grows = True
    while grows:
        grows = False
        for i, j in union:
            new = (i, j) not in links
            touches = any((i + di, j + dj) in links for di in (-1, 0, 1) for dj in (-1, 0, 1))
            single = i not in {one for one, _ in links} or j not in {one for _, one in links}
            if new and touches and single:
                links.add((i, j))
                grows = True
    return links
