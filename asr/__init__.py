"""Speech recognition: Whisper and the Conformer on the streaming runtime."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loquent.asr.recognizer import Recognizer
    from loquent.asr.whisper.live.options import StreamingOptions
    from loquent.asr.whisper.offline.options import TranscribeOptions
    from loquent.speech.transcript import Transcript

__all__ = ["Recognizer", "StreamingOptions", "TranscribeOptions", "Transcript"]

# Fetched on first use: recognising needs torch, which takes seconds to import.
_HOMES = {
    "Recognizer": "loquent.asr.recognizer",
    "StreamingOptions": "loquent.asr.whisper.live.options",
    "TranscribeOptions": "loquent.asr.whisper.offline.options",
    "Transcript": "loquent.speech.transcript",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
