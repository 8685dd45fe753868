"""Voices by name: which family a checkpoint belongs to, and the class that speaks with it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loquent.speech.json_files import read_json_object


@dataclass(frozen=True)
class VoiceFamily:
    """A kind of voice.

    voice:      ``module:class`` of its `VoiceModel`, imported when a checkpoint of the family is loaded. The class has
                ``load(path)`` and is a `torch.nn.Module`.
    model_type: what the checkpoint's config.json says.
    file:       pattern of files that only this family has.
    """

    voice: str
    model_type: str
    file: str | None = None

    def owns(self, path: Path) -> bool:
        """Whether the checkpoint in a folder or file belongs to the family."""
        if self.file is not None and (path.match(self.file) or next(path.glob(self.file), None)):
            return True
        try:
            return read_json_object(path / "config.json").get("model_type") == self.model_type
        except (OSError, ValueError):
            return False

    def load(self) -> Any:
        """The class of the voice."""
        module, _, attribute = self.voice.partition(":")
        return getattr(importlib.import_module(module), attribute)


VOICES: dict[str, VoiceFamily] = {
    "hibari": VoiceFamily("loquent.tts.hibari.voice:HibariVoice", "hibari", "*.onnx"),
    "flow voice": VoiceFamily("loquent.tts.flow_voice.voice:FlowVoice", "loquent-voice"),
}


def family_of(path: Path) -> VoiceFamily:
    """The family of a checkpoint.

    Raises:
        ValueError: it is no voice.
    """
    for family in VOICES.values():
        if family.owns(path):
            return family
    raise ValueError(f"{str(path)!r} is no voice: expected one of the families {', '.join(VOICES)}")
