"""What transcribing a recording gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loquent.speech.captions import Segment

Progress = Callable[[int, float, float | None], None]  # recording, seconds done, seconds in all if known


@dataclass(frozen=True)
class Transcript:
    """The text of a recording."""

    text: str
    segments: tuple[Segment, ...]
    language: str  # code
    language_probability: float  # 1.0 if it was given
    duration_s: float
