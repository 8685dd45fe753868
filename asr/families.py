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
    options:    ``module:class`` of the options of recordings, of a streaming task and of one of its streams; to import
                these takes no time, so that options can be checked before a model is loaded.
    model_type: what the checkpoint's config.json says.
    archive:    pattern of single files that only this family has.
    """

    recognizer: str
    options: tuple[str, str, str]
    model_type: str
    archive: str | None = None

    def owns(self, path: Path) -> bool:
        """Whether the checkpoint in a folder or file belongs to the family."""
        if self.archive is not None and (path.match(self.archive) or next(path.glob(self.archive), None)):
            return True
        return model_type(path) == self.model_type

    def load(self) -> Any:
        """The class of the recogniser."""
        return _imported(self.recognizer)

    def option_classes(self) -> tuple[type[Any], type[Any], type[Any]]:
        """The classes of ``options``."""
        recordings, task, stream = map(_imported, self.options)
        return recordings, task, stream


FAMILIES: dict[str, Family] = {
    "conformer": Family(
        "loquent.asr.conformer.recognizer:ConformerRecognizer",
        (
            "loquent.asr.conformer.options:ConformerTranscribeOptions",
            "loquent.asr.conformer.options:ConformerOptions",
            "loquent.asr.conformer.options:ConformerStreamOptions",
        ),
        "loquent-conformer",
        "*.nemo",
    ),
    "whisper": Family(
        "loquent.asr.whisper.recognizer:WhisperRecognizer",
        (
            "loquent.asr.whisper.offline.options:TranscribeOptions",
            "loquent.asr.whisper.live.options:StreamingOptions",
            "loquent.asr.whisper.live.options:WhisperStreamOptions",
        ),
        "whisper",
    ),
}


def family_named(name: str) -> Family | None:
    """The family of the model of that name, as far as it can be told without fetching or loading it."""
    from loquent.speech.hub import HUB_NAMES, PACKAGES, SHIPPED, resolve

    if name in SHIPPED:
        return family_of(resolve(name).path)
    if (path := Path(name).expanduser()).exists():
        return family_of(path)
    return FAMILIES["whisper"] if name in PACKAGES or name in HUB_NAMES else None


def _imported(location: str) -> Any:
    module, _, attribute = location.partition(":")
    return getattr(importlib.import_module(module), attribute)


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
