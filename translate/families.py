"""Kinds of translation models, told apart by their files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from loquent.translate.model import TranslationModel

# ``module:class`` with ``owns(path)`` and ``load(path, device)``.
FAMILIES = {
    "seq2seq": "loquent.translate.seq2seq.model:Seq2SeqTranslator",
    "non-autoregressive": "loquent.translate.non_autoregressive.model:NonAutoregressiveTranslator",
    "marian": "loquent.translate.marian.model:MarianTranslator",
    "llm": "loquent.translate.llm.model:LanguageModelTranslator",
}


def load_translation_model(path: Path, device: torch.device) -> TranslationModel:
    """Load a model of any family.

    Raises:
        ValueError: it is of none, or damaged.
    """
    for location in FAMILIES.values():
        module, _, attribute = location.partition(":")
        family: Any = getattr(importlib.import_module(module), attribute)
        if family.owns(path):
            model: TranslationModel = family.load(path, device)
            return model
    raise ValueError(f"{str(path)!r} is no translation model: expected one of the families {', '.join(FAMILIES)}")
