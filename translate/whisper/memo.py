"""What is remembered of a stream besides tensors: each text that is written about its speech."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from loquent.asr.whisper.live.memo import WhisperMemo
from loquent.translate.whisper.options import WhisperTranslationOptions


@dataclass
class WhisperTranslationMemo:
    """Host-side state of one stream.

    options:     that it began with.
    translation: of the recogniser that writes English.
    transcript:  of the one that writes what is said, if the options ask for it. Both go through the speech in step.
    """

    options: WhisperTranslationOptions
    translation: WhisperMemo
    transcript: WhisperMemo | None

    @property
    def texts(self) -> list[WhisperMemo]:
        """What is written; the translation last."""
        return [self.translation] if self.transcript is None else [self.transcript, self.translation]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return dataclasses.asdict(self)
