"""What is judged by is kept from training: speakers where there are many, else recordings."""

from __future__ import annotations

import pytest

from loquent.recipes.data.held_out import held_out
from loquent.recipes.data.manifest import Utterance


def rows(speakers: list[str | None]) -> list[Utterance]:
    return [Utterance("", "", 1.0, f"{number}", speaker=speaker) for number, speaker in enumerate(speakers)]


def test_many_speakers_are_held_out_whole() -> None:
    speakers = [f"{number % 40}" for number in range(200)]
    held = held_out(rows(speakers), 0.2)
    chosen = {speakers[int(one)] for one in held}
    assert 3 <= len(chosen) <= 14
    assert held == {f"{number}" for number, speaker in enumerate(speakers) if speaker in chosen}


@pytest.mark.parametrize("speakers", [["me"] * 30, [None] * 30, ["me", "you"] * 15, ["me", None, None] * 10])
def test_recordings_are_held_out_where_speakers_are_few(speakers: list[str | None]) -> None:
    held = held_out(rows(speakers), 0.2)
    assert len(held) == 6
    assert held == held_out(rows(speakers), 0.2)


@pytest.mark.parametrize("share", [0.01, 0.99])
@pytest.mark.parametrize("speakers", [["me", "me"], ["me", "you"], [None, None]])
def test_something_is_left_on_either_side(speakers: list[str | None], share: float) -> None:
    assert len(held_out(rows(speakers), share)) == 1
