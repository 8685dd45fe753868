"""Model families by name: which one a checkpoint belongs to, and the class that recognises with it."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Family:
    """A kind of model.

    recognizer: ``module:class`` of its `Recognizer`, imported when a checkpoint of the family is loaded.
    model_type: what the checkpoint's config.json says.
    archive:    pattern of single files that only this family has.
    """

    recognizer: str
    model_type: str
    archive: str | None = None

    def owns(self, path: Path) -> bool:
        """Whether the checkpoint in a folder or file belongs to the family."""
        if self.archive is not None and (path.match(self.archive) or next(path.glob(self.archive), None)):
            return True
        return model_type(path) == self.model_type

    def load(self) -> Any:
        """The class of the recogniser."""
        module, _, attribute = self.recognizer.partition(":")
        return getattr(importlib.import_module(module), attribute)


FAMILIES: dict[str, Family] = {
    "conformer": Family("loquent.asr.conformer.recognizer:ConformerRecognizer", "loquent-conformer", "*.nemo"),
    "whisper": Family("loquent.asr.whisper.recognizer:WhisperRecognizer", "whisper"),
}


def family_of(path: Path) -> Family:
    """The family of a checkpoint; Whisper's conversions do not all say what they are, so it takes what is left."""
    return next((family for family in FAMILIES.values() if family.owns(path)), FAMILIES["whisper"])


def model_type(folder: Path) -> str | None:
    """What the config.json in a model's folder says that it is; None if it says nothing or is not there."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values.get("model_type") if isinstance(values, dict) else None
