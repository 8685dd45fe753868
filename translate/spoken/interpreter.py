"""The public face of interpreting: speech in one language in, captions or speech in another one out.

Each part is a stage of a `Pipeline`: a recogniser and a translator, or a Whisper that translates speech by itself; and,
if it is to be heard, a voice that keeps to the clock of the speaker.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from loquent.asr.recognizer import Recognizer
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.speech.audio.files import Audio, blocks
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.task import Task
from loquent.speech.text.languages import LANGUAGES, language_code
from loquent.translate.spoken.interpretation import RECOGNIZE, SPEAK, TRANSLATE, Interpretation, interpretation_of
from loquent.translate.translator import Translator
from loquent.translate.whisper.task import WhisperTranslationTask
from loquent.tts.synthesizer import Synthesizer
from loquent.tts.voices import SpeakingTask

BLOCK_S = 1.0  # of a recording that is read at a time


class Interpreter:
    """Translates speech while it is spoken.

    Args:
        hearing: what hears and translates, by the names of its stages: a recogniser "recognize" and a translator
            "translate", or a task "translate" that does both.
        voice: what speaks the translation; None for captions alone.
        source, target: codes of the languages; the source may be unknown.
        defaults: options of the streams, where they are not given otherwise.

    Raises:
        ValueError: the voice does not speak the target language, or does not keep to a clock.
    """

    def __init__(
        self,
        hearing: Mapping[str, Task],
        voice: SpeakingTask | None = None,
        *,
        source: str | None,
        target: str,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.tasks: dict[str, Task] = dict(hearing)
        self.source, self.target, self.defaults = source, target, dict(defaults or {})
        if voice is not None:
            check_voice(voice, target)
            self.tasks[SPEAK] = voice
            self.defaults["follow"] = True

    @classmethod
    def from_pretrained(
        cls,
        recognizer: str | os.PathLike[str] = "base",
        translator: str | os.PathLike[str] | None = None,
        voice: str | os.PathLike[str] | None = None,
        *,
        source: str | None = None,
        device: str | torch.device = "auto",
        threads: int | None = None,
        streaming: Mapping[str, Any] | None = None,
    ) -> Interpreter:
        """Load the models by name (see `resolve`).

        Args:
            recognizer: what hears. Without a translator it has to be a Whisper of many languages, which translates into
                English itself.
            translator: of what was recognised.
            voice: that speaks the translation; None for captions alone.
            source: language that is spoken, a code or an English name; by default that of the translator, else it is
                detected.
            streaming: fields of `StreamingOptions`, or those of another recogniser: how audio is turned into text.

        Raises:
            CheckpointError: there is no such model, or it cannot be fetched.
            ValueError: the models do not fit each other, or no voice speaks the target language.
        """
        loading: dict[str, Any] = {"device": device, "threads": threads}
        source = language_code(source) if source else None
        text = None if translator is None else Translator.from_pretrained(translator, **loading)
        if text is not None and source not in (None, text.source):
            raise ValueError(f"source: {str(translator)!r} translates from {text.source}, got {source!r}")
        source, target = (source, "en") if text is None else (text.source, text.target)
        speaking = None
        if voice is not None:
            speaking = Synthesizer.from_pretrained(voice, **loading).task
            check_voice(speaking, target)
        ear = Recognizer.from_pretrained(recognizer, **loading)
        chosen = dict[str, Any]()
        if source is not None and any(field.name == "language" for field in dataclasses.fields(ear.Settings)):
            chosen["language"] = source
        chosen |= streaming or {}
        if text is not None:
            hearing = {RECOGNIZE: ear.streaming_task(**chosen), TRANSLATE: text.streaming_task()}
            return cls(hearing, speaking, source=source, target=target)
        if not (isinstance(ear, WhisperRecognizer) and ear.tokenizer.is_multilingual):
            raise ValueError(
                f"{str(recognizer)!r} does not translate: give a translator, or a recognizer that is a Whisper of many "
                "languages, such as base"
            )
        settings = parse_options(StreamingOptions, {"policy": "alignatt", **chosen})
        hears = WhisperTranslationTask(ear.model, ear.tokenizer, settings)
        return cls({TRANSLATE: hears}, speaking, source=source, target=target)

    def interpret(self, recording: str | os.PathLike[str] | Audio, **options: Any) -> Interpretation:
        """Interpret a whole recording as if it were live.

        Args:
            options: as of `session`.

        Raises:
            AudioError: it cannot be read.
            ValueError: an option is wrong.
        """
        packets: Iterator[Audio] = iter([recording]) if isinstance(recording, Audio) else blocks(recording, BLOCK_S)
        first = next(packets)
        stream = self.session(sample_rate=first.sample_rate, **options)
        events = stream.push(first)
        for packet in packets:
            events += stream.push(packet)
        return interpretation_of(events + stream.finish(), self.tasks[next(reversed(self.tasks))].gives.sample_rate)

    def session(
        self, *, sample_rate: int = 16_000, channels: int = 1, stream: str | None = None, **options: Any
    ) -> Pipeline:
        """Open a stream of live audio: ``push`` packets of any size, then ``finish``.

        Every event of every stage comes out, with its stage: "recognize", "translate", "speak".

        Args:
            sample_rate, channels: of the packets.
            stream: id of its events.
            options: of the stages, each for the first one that has it: such as ``transcript`` of a Whisper that
                translates, ``drafts`` of a translator, ``voice``, ``most_lag_s`` and ``fastest`` of a voice.

        Raises:
            ValueError: an option is wrong.
        """
        engines = {name: Engine(task) for name, task in self.tasks.items()}
        chosen = {**self.defaults, **options}
        return Pipeline.open(engines, sample_rate=sample_rate, channels=channels, stream=stream, **chosen)


def check_voice(voice: SpeakingTask, target: str) -> None:
    """Make sure that a voice can speak a translation.

    Raises:
        ValueError: it does not speak the language, or does not keep to the clock of its text.
    """
    if target not in voice.languages:
        spoken = ", ".join(f"{LANGUAGES.get(code, code)} ({code})" for code in voice.languages)
        raise ValueError(
            f"voice: no voice for {LANGUAGES.get(target, target)} ({target}): this one speaks {spoken}, so only "
            f"translations into {spoken} can be heard; leave the voice out for captions"
        )
    if not any(field.name == "follow" for field in dataclasses.fields(voice.Options)):
        raise ValueError("voice: this one does not keep to the clock of a speaker; take one such as loquent/hibari")
