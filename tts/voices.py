"""Voices by name: which family a checkpoint belongs to, and what speaks with it."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loquent.speech.json_files import read_json_object
from loquent.speech.runtime.task import Task

if TYPE_CHECKING:
    import torch

DEFAULT_CHUNK_MS = 200


class Speakers(Protocol):
    """What a model knows of who speaks."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names; the first is the default."""


class SpeakingTask(Task, Protocol):
    """A task that speaks text."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of those that it speaks."""

    @property
    def voice(self) -> Speakers:
        """Its model."""


@dataclass(frozen=True)
class VoiceFamily:
    """A kind of voice.

    voice:      ``module:class``, imported when a checkpoint of the family is loaded: a `VoiceModel` with
                ``load(path)`` that is a `torch.nn.Module`, which `SpeechTask` speaks with; or, with ``whole``, a
                `SpeakingTask` of its own with ``load(path, device)``.
    model_type: what the checkpoint's config.json says.
    file:       pattern of files that only this family has.
    options:    ``module:class`` of the options of a stream; to import them takes no time.
    whole:      whether ``voice`` is the whole task.
    """

    voice: str
    model_type: str
    file: str | None = None
    options: str = "loquent.tts.options:SpeechOptions"
    whole: bool = False

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
        return _imported(self.voice)

    def task(self, path: Path, device: torch.device, chunk_ms: int | None = None) -> SpeakingTask:
        """What speaks with a checkpoint.

        Args:
            chunk_ms: speech that is rendered at a time, 200 unless given.

        Raises:
            ValueError: the checkpoint is damaged, or its family chooses ``chunk_ms`` itself.
        """
        voice: Any = self.load()
        if self.whole:
            if chunk_ms is not None:
                raise ValueError(f"chunk_ms: {path} has chunks of its own, got {chunk_ms}")
            task: SpeakingTask = voice.load(path, device)
            return task
        from loquent.tts.frontend.phonemizer import Phonemizer
        from loquent.tts.task import SpeechTask

        model = voice.load(path).to(device)
        return SpeechTask(model, Phonemizer.load(), DEFAULT_CHUNK_MS if chunk_ms is None else chunk_ms)


VOICES: dict[str, VoiceFamily] = {
    "CosyVoice": VoiceFamily(  # before others: there are .onnx files in its folders, too
        "loquent.tts.cosyvoice.task:CosyVoiceTask",
        "cosyvoice",
        "cosyvoice[23].yaml",
        "loquent.tts.cosyvoice.options:CosyVoiceOptions",
        whole=True,
    ),
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


def options_of(name_or_path: str | os.PathLike[str] | None) -> type[Any]:
    """The options of a voice's streams, as far as they can be told without fetching or loading it.

    A voice that is no local folder or file, such as the default one, is taken for one that speaks word by word.
    """
    path = None if name_or_path is None else Path(name_or_path).expanduser()
    found = [family for family in VOICES.values() if path is not None and path.exists() and family.owns(path)]
    options: type[Any] = _imported(found[0].options if found else VoiceFamily.options)
    return options


def _imported(location: str) -> Any:
    module, _, attribute = location.partition(":")
    return getattr(importlib.import_module(module), attribute)
