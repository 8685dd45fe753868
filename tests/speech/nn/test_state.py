"""Pools of slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loquent.speech.nn.state import LINE, State, initial


@dataclass
class Inner(State):
    flag: torch.Tensor
    seen: torch.Tensor = initial(-1)  # noqa: RUF009


@dataclass
class Outer(State):
    size: int
    keys: torch.Tensor
    parts: tuple[Inner, ...]


def one() -> Outer:
    parts = tuple(Inner(torch.ones(1, 3, dtype=torch.bool), torch.full((1, 2), 7)) for _ in range(2))
    return Outer(5, torch.ones(1, 4, 6, dtype=torch.bfloat16), parts)


def test_a_pool_has_the_structure_of_a_slot_and_every_slot_is_at_the_start() -> None:
    pool = one().pool(9)
    assert (pool.size, pool.slots, pool.nbytes) == (5, 9, 9 * one().nbytes)
    assert pool.keys.shape == (9, 4, 6)
    assert pool.keys.dtype == torch.bfloat16
    assert all(bool((tensor == value).all()) for _, tensor, value in pool.leaves())


def test_vectors_of_a_pool_lie_within_lines() -> None:
    for slots in (1, 3, 1000):
        keys = one().pool(slots).keys
        assert keys.data_ptr() % LINE == 0
        assert keys.is_contiguous()


def test_slots_of_a_pool_are_written_like_those_of_any_other() -> None:
    pool = one().pool(3)
    pool.scatter([1], one())
    assert pool.keys[1].eq(1).all()
    assert pool.keys[[0, 2]].eq(0).all()
    pool.reset([1])
    assert all(bool((tensor == value).all()) for _, tensor, value in pool.leaves())
