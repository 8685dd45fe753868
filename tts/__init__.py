"""Speech synthesis: text in, word by word, and speech out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loquent.tts.options import SpeechOptions
    from loquent.tts.synthesizer import Synthesis, Synthesizer

__all__ = ["SpeechOptions", "Synthesis", "Synthesizer"]

# Fetched on first use: speaking needs torch, which takes seconds to import.
_HOMES = {
    "SpeechOptions": "loquent.tts.options",
    "Synthesis": "loquent.tts.synthesizer",
    "Synthesizer": "loquent.tts.synthesizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
