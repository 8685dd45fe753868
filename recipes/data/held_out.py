"""Which recordings are kept from training, to judge by: all those of some speakers, or where speakers are few, some."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from loquent.recipes.data.manifest import Utterance


def held_out(rows: Sequence[Utterance], share: float) -> set[str]:
    """The ids of a share of the rows, the same in every run.

    They are all recordings of a share of the speakers, if that is at least one speaker: new voices are the harder
    test. Otherwise, with few speakers or none that is named, they are a share of the recordings. There is at least one
    on either side.

    Args:
        rows: of all sources, at least two.
        share: above 0 and below 1.
    """
    speakers = {row.speaker for row in rows if row.speaker}
    if share * len(speakers) >= 1:
        held = {row.id for row in rows if spread(row.speaker or row.id) < share}
        if 0 < len(held) < len(rows):
            return held
    count = min(max(round(share * len(rows)), 1), len(rows) - 1)
    return {row.id for row in first(rows, count)}


def first(rows: Sequence[Utterance], count: int | None) -> list[Utterance]:
    """Some rows, always the same, whatever else the manifest holds."""
    return sorted(rows, key=lambda row: (spread(row.id), row.id))[:count]


def spread(key: str) -> float:
    """A number in [0, 1) that follows from a name, evenly spread."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
