from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.kernels.dtw import dtw
from loquent.kernels.registry import use_backend


def cost_of(cost: torch.Tensor, first: list[int]) -> float:
    """Cost of the path that enters row i at column first[i]: right along the row, then down or diagonally."""
    rows, columns = cost.shape
    total = 0.0
    for row in range(rows):
        until = columns - 1 if row + 1 == rows else max(first[row], first[row + 1] - 1)
        straight = float(cost[row, first[row] : until + 1].sum())
        if row + 1 < rows and first[row + 1] > first[row]:  # straight down instead of diagonally
            straight = min(straight, straight + float(cost[row, first[row + 1]]))
        total += straight
    return total


def cheapest(cost: torch.Tensor) -> float:
    total = np.full(np.add(cost.shape, 1), np.inf)
    total[0, 0] = 0
    for i, j in np.ndindex(*cost.shape):
        total[i + 1, j + 1] = float(cost[i, j]) + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 2**32 - 1), st.booleans())
def test_kernel_equals_reference_and_the_path_is_the_cheapest(rows: int, columns: int, seed: int, ties: bool) -> None:
    cost = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    if ties:
        cost = cost.round()
    with use_backend("reference"):
        reference = dtw(cost)
    with use_backend("numba"):
        assert dtw(cost).tolist() == reference.tolist()
    first = reference.tolist()
    assert first[0] == 0
    assert first == sorted(first)
    if not ties and (cost > 0).all():
        assert cost_of(cost, first) == pytest.approx(cheapest(cost), rel=1e-5)


def test_a_diagonal_of_low_cost_is_followed() -> None:
    assert dtw(1 - torch.eye(5)).tolist() == [0, 1, 2, 3, 4]
    assert dtw(1 - torch.eye(3).repeat_interleave(4, dim=1)).tolist() == [0, 4, 8]


def test_a_matrix_without_entries_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        dtw(torch.zeros(0, 3))
