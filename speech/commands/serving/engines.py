"""The engines of a server: each has run before the first visitor comes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from loquent.speech.commands.arguments import UsageError, streaming_task
from loquent.speech.commands.translation.models import load_translator
from loquent.speech.text.words import Text

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine
    from loquent.speech.runtime.task import Task
    from loquent.speech.tasks import RecognizerTask

GATHER_S = 0.02  # a chunk that is complete waits this long for those of other streams
WARM_UP_STREAMS = 4  # that a model is tried with together
WORDS, WORD_S = "The weather is fine today, and we are going to the sea. ", 0.3


def recognizing(recognizer: RecognizerTask, arguments: argparse.Namespace) -> Engine:
    """An engine of a recogniser that has heard a few words."""
    from loquent.speech.audio.files import read_audio

    task = streaming_task(recognizer, arguments)
    with resources.as_file(resources.files("loquent.speech") / "assets" / "sample.flac") as path:
        sample = read_audio(path)
    return _tried(task, arguments, [sample.samples[: 3 * sample.sample_rate]], sample_rate=sample.sample_rate)


def speaking(name: str, arguments: argparse.Namespace, aliases: Mapping[str, str]) -> Engine:
    """An engine of a voice that has spoken once, and has what aliases stand for."""
    from loquent.speech.tasks import load_task

    task = load_task("synthesizer").from_pretrained(name, device=arguments.device).streaming_task()
    engine = _tried(task, arguments, ["One, two, three. "])
    for alias, speaker in aliases.items():
        try:
            engine.open(voice=speaker).close()
        except ValueError as error:
            raise UsageError(f"--voice-alias {alias}={speaker}: {error}") from error
    return engine


def translating(name: str, arguments: argparse.Namespace) -> tuple[tuple[str, str], Engine]:
    """An engine of a translator that has translated once, and the codes of its languages."""
    translator = load_translator(name, arguments)
    words = [Text(f"{word} ", WORD_S * at) for at, word in enumerate(WORDS.split(), start=1)]
    return (translator.source, translator.target), _tried(translator.streaming_task(), arguments, words)


def _tried(task: Task, arguments: argparse.Namespace, packets: Sequence[Any], **options: Any) -> Engine:
    """An engine that has run one stream and then several, so that kernels are compiled, memory is touched, and what a
    step costs is known before the first visitors come."""
    from loquent.speech.runtime.engine import Engine

    engine = Engine(task, capacity=arguments.max_sessions, max_wait_s=GATHER_S)
    for streams in (1, WARM_UP_STREAMS):
        sessions = [engine.open(**options) for _ in range(min(streams, engine.capacity))]
        for packet in packets:
            for session in sessions:
                session.feed(packet)
            while engine.step():
                pass
        for session in sessions:
            session.close()
    return engine
