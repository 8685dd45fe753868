"""The likeliest path of CTC that begins with given pieces, against all paths there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from loquent.translate.non_autoregressive.path import Emission, FrameScores, best_path

BLANK = 2


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [piece for piece, _ in itertools.groupby(path) if piece != BLANK]


def frame_scores(log_probabilities: np.ndarray, prefix: list[int]) -> FrameScores:
    best = log_probabilities.max(1), log_probabilities.argmax(1)
    return FrameScores(*best, log_probabilities[:, BLANK], log_probabilities[:, prefix], BLANK)


def random_scores(frames: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(frames, BLANK + 1)) * 2
    return values - np.log(np.exp(values).sum(1, keepdims=True))


@pytest.mark.parametrize("prefix", [[], [0], [1, 0], [0, 0], [1, 1, 0]])
@pytest.mark.parametrize("seed", range(6))
def test_the_path_is_the_likeliest_of_all_that_begin_so(prefix: list[int], seed: int) -> None:
    scores, frames = random_scores(6, seed), 6
    paths = [path for path in itertools.product(range(3), repeat=frames) if collapsed(path)[: len(prefix)] == prefix]
    best = max(paths, key=lambda path: sum(scores[at, piece] for at, piece in enumerate(path)))
    found = best_path(frame_scores(scores, prefix), prefix, len(prefix))
    assert [one.piece for one in found] == collapsed(best)[len(prefix) :]
    begins = [at for at in range(frames) if best[at] != BLANK and (at == 0 or best[at - 1] != best[at])]
    assert [one.frame for one in found] == begins[len(prefix) :]
    assert [one.score for one in found] == [scores[at, best[at]] for at in begins[len(prefix) :]]


def test_more_is_committed_than_fits() -> None:
    prefix = [0, 0, 1, 1, 0]  # with the blanks between equal pieces 7 frames; the last three need 4
    found = best_path(frame_scores(random_scores(4, 0), prefix), prefix, len(prefix))
    assert found == []


@pytest.mark.parametrize(("bias", "stays"), [(0.0, False), (0.2, False), (0.45, True)])
def test_what_was_shown_stays_if_the_bias_outweighs_what_is_likelier(bias: float, stays: bool) -> None:
    scores = np.log(np.array([[0.3, 0.6, 0.1], [0.05, 0.05, 0.9]]))  # r = 0.5: it stays from β = 1/3 on
    found = best_path(frame_scores(scores, [0]), [0], 0, bias)
    assert found == [Emission(0, 0, scores[0, 0]) if stays else Emission(1, 0, scores[0, 1])]
