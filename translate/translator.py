"""The public face of translation: texts, and streams of text."""

from __future__ import annotations

import os
from typing import Any

import torch

from loquent.speech.devices import compute_device, use_threads
from loquent.speech.hub import resolve
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Translation
from loquent.speech.runtime.session import Session
from loquent.translate.families import load_translation_model
from loquent.translate.model import TranslationModel
from loquent.translate.task import TranslationTask

DEFAULT_MODEL = "loquent/en-es"


class Translator:
    """A model that translates, offline and simultaneously.

    Args:
        model: of any family.
    """

    def __init__(self, model: TranslationModel) -> None:
        self.model = model
        self.task = TranslationTask(model)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: str | torch.device = "auto",
        threads: int | None = None,
    ) -> Translator:
        """Load a model by name: one that comes with loquent, a folder, or one of the Hugging Face hub (see `resolve`).

        Raises:
            CheckpointError: there is no such model, or it cannot be fetched.
            ValueError: the checkpoint is damaged or no translation model.
        """
        path = resolve(name_or_path).path
        chosen = compute_device(device)
        use_threads(threads)
        return cls(load_translation_model(path, chosen))

    @property
    def source(self) -> str:
        """Code of the language that it translates from."""
        return self.model.source

    @property
    def target(self) -> str:
        """Code of the language that it translates to."""
        return self.model.target

    def translate(self, text: str, **options: Any) -> str:
        """Translate a whole text, sentence by sentence; line breaks stay.

        Args:
            options: of `TranslationOptions`; the policy is "offline" unless given.

        Raises:
            ValueError: an option is wrong.
        """
        lines = text.split("\n")
        session = self.session(**{"policy": "offline", **options})
        translated = []
        for number, line in enumerate(lines):
            events = session.push(line)
            events += session.finish() if number == len(lines) - 1 else session.flush()
            translated.append("".join(one.text for one in events if isinstance(one, Translation)).strip())
            if number < len(lines) - 1:
                session.push("\n")
        return "\n".join(translated)

    def session(self, *, stream: str | None = None, **options: Any) -> Session:
        """Translate a text that comes in pieces: ``push(text)`` gives events, `Translation` among them.

        Args:
            stream: id of its events.
            options: of `TranslationOptions`.
        """
        return Engine(self.task).open(stream=stream, **options)

    def streaming_task(self) -> TranslationTask:
        """The same model for an `Engine` of many streams."""
        return self.task
