"""How many threads compute."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from loquent.speech.devices import few_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_few_threads_are_those_of_one_block_of_one_thread() -> None:
    elsewhere: list[int] = []
    with few_threads(1):
        assert torch.get_num_threads() == 1
        thread = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert elsewhere == [2]
    assert torch.get_num_threads() == 2


def test_there_is_at_least_one_and_never_more_than_before() -> None:
    for most, expected in ((0, 1), (2, 2), (99, 2)):
        with few_threads(most):
            assert torch.get_num_threads() == expected
