"""Simultaneous translation: text in, word by word, and its translation out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loquent.translate.options import TranslationOptions
    from loquent.translate.translator import Translator

__all__ = ["TranslationOptions", "Translator"]

# Fetched on first use: translating needs torch, which takes seconds to import.
_HOMES = {
    "TranslationOptions": "loquent.translate.options",
    "Translator": "loquent.translate.translator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
