"""What one stream of Whisper's translation may choose."""

from __future__ import annotations

from dataclasses import dataclass

from loquent.asr.options import check_language


@dataclass(frozen=True)
class WhisperTranslationOptions:
    """Options of a stream, fixed at its start.

    language:   code or English name of what is spoken; by default that of the task, else it is detected.
    transcript: whether what is said is written down as well, in its own language.
    """

    language: str | None = None
    transcript: bool = False

    def __post_init__(self) -> None:
        if self.language:
            check_language(self.language)
