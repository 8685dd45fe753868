"""Options of streams that CosyVoice speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CosyVoiceOptions:
    """Options of one stream of speech; all are fixed at its start.

    voice:   name of a voice of the checkpoint, or of one that was added; by default the first one.
    context: "words": text and speech take turns, so speech begins after a few words; or "sentence": speech begins when
             the text of an utterance is known, which sounds better and comes later.
    seed:    of all that is drawn; the same text with the same seed gives the same samples.
    """

    voice: str = ""
    context: Literal["words", "sentence"] = "words"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected a number from 0 to 2^63 - 1, got {self.seed}")
