"""Tasks by name: how the command line and the server reach models that this package does not import."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from loquent.speech.audio.errors import AudioError
    from loquent.speech.runtime.task import Task
    from loquent.speech.transcript import Segment, Transcript


class TaskError(ValueError):
    """There is no such task, or what it needs is not installed."""


class RecognizerTask(Protocol):
    """What commands and servers ask of the task "recognizer", a class with ``from_pretrained``."""

    batch: int  # windows that go through the model at once

    def segments(
        self, sources: Iterable[str | os.PathLike[str]], *, progress: Any = None, **options: Any
    ) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
        """Transcribe recordings: each segment as it becomes final, then the recording's transcript or its error."""

    def transcribe(self, source: Any, **options: Any) -> Transcript:
        """Transcribe one recording."""

    @property
    def live_adapter(self) -> str | None:
        """Name of the adapter that streams go through by default, and recordings do not."""

    def add_adapter(self, name: str, adapter: str | os.PathLike[str], *, default: bool = False) -> None:
        """Offer an adapter to streams, which choose it by name; by default, those that choose none."""

    def streaming_task(self, **options: Any) -> Task:
        """The same model for an `Engine`."""


class TranslatorTask(Protocol):
    """What commands ask of the task "translator", a class with ``from_pretrained``."""

    @property
    def source(self) -> str:
        """Code of the language that it translates from."""

    @property
    def target(self) -> str:
        """Code of the language that it translates to."""

    def streaming_task(self) -> Task:
        """What an `Engine` runs."""


@dataclass(frozen=True)
class TaskEntry:
    """Where a task lives: ``module:attribute``, and the extra that installs what it needs beyond loquent itself.

    needs: packages of the extra that are imported when the task is at work, too late to hear that they are missing.
    """

    location: str
    extra: str | None = None
    needs: tuple[str, ...] = ()


TASKS: dict[str, TaskEntry] = {
    "recognizer": TaskEntry("loquent.asr:Recognizer"),
    "recognition options": TaskEntry("loquent.asr.options:check_options"),
    "synthesizer": TaskEntry("loquent.tts:Synthesizer"),
    "synthesis options": TaskEntry("loquent.tts.voices:options_of"),
    "translator": TaskEntry("loquent.translate:Translator"),
    "translation options": TaskEntry("loquent.translate:TranslationOptions"),
    "interpreter": TaskEntry("loquent.translate.spoken.interpreter:Interpreter"),
    "recipes": TaskEntry("loquent.recipes.catalogue:described_recipes", extra="train"),
    "training": TaskEntry("loquent.recipes.train:train", extra="train", needs=("accelerate", "tensorboard")),
}


def load_task(name: str) -> Any:
    """Import the class of a task.

    Raises:
        TaskError: no task has that name, or a package it needs is missing; the message says how to install it.
    """
    if name not in TASKS:
        raise TaskError(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    entry = TASKS[name]
    module, _, attribute = entry.location.partition(":")
    try:
        for package in entry.needs:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"no package {package!r}", name=package)
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        wanted = f".[{entry.extra}]" if entry.extra else "."
        raise TaskError(
            f"{name} needs the package {error.name!r}, which is not installed; "
            f'in a checkout of loquent: pip install "{wanted}"'
        ) from error
