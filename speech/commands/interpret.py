"""``loquent interpret``: speech in one language in, speech in another one out, and captions of both."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import loquent.speech.commands.speak as speaking
from loquent.speech.commands.arguments import CommandError, UsageError, add_device_arguments, model_name, voice_name
from loquent.speech.commands.translation.models import (
    add_term_arguments,
    language,
    term_options,
    translation_model_name,
)


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "interpret",
        help="speak in another language what is said",
        description="Speak in another language what a recording or a microphone says, while it is said, and write it "
        "down. To English from the many languages of a Whisper; from English to those with a model and a voice. "
        "Ctrl-C ends the stream and says its last words; a second one kills.",
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="recording (default: the microphone)")
    parser.add_argument("--microphone", metavar="N", help="number or part of the name of the microphone")
    languages = parser.add_argument_group("language")
    languages.add_argument(
        "--from",
        type=language,
        dest="source",
        metavar="LANGUAGE",
        help="code or name (default: the model's, or detect it)",
    )
    languages.add_argument(
        "--to", type=language, dest="target", default="en", metavar="LANGUAGE", help="code or name (default: en)"
    )
    add_term_arguments(languages)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", "-o", metavar="FILE", help=f"write the speech here: {', '.join(speaking.AUDIO_ENDINGS)}"
    )
    output.add_argument("--play", action="store_true", help="play it, too; without --output it is played anyway")
    voice = parser.add_argument_group("voice")
    voice.add_argument("--speak", metavar="NAME", help="voice: name, folder or hub id; none: captions alone")
    voice.add_argument("--voice", metavar="NAME", help="of its speakers, or a mixture: anna:0.7+ben:0.3")
    model = add_device_arguments(parser)
    model.add_argument("--model", metavar="NAME", help="recogniser: name, folder or hub id; see `loquent models`")
    model.add_argument(
        "--translate-model",
        metavar="NAME",
        help="of text (default: by the languages; to English the recogniser itself)",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Interpret until the recording or Ctrl-C ends it."""
    if arguments.file and arguments.microphone:
        raise UsageError("FILE and --microphone exclude each other")
    if arguments.output and Path(arguments.output).suffix.lower() not in speaking.AUDIO_ENDINGS:
        raise UsageError(f"--output {arguments.output}: expected a name ending in {', '.join(speaking.AUDIO_ENDINGS)}")
    silent = arguments.speak == "none"
    if silent and (arguments.output or arguments.play or arguments.voice):
        raise UsageError("--speak none makes captions alone: there is no speech to write, to play or to choose")
    translator = _translator(arguments)
    options: dict[str, Any] = term_options(arguments) | ({"voice": arguments.voice} if arguments.voice else {})
    if translator is None and ("glossary" in options or "keep" in options):
        raise UsageError("--glossary and --keep are for models of text; here the recogniser itself translates")
    from loquent.speech.tasks import load_task

    wanted = argparse.Namespace(model=arguments.model, language=arguments.source, task=_task(translator))
    interpreter = load_task("interpreter").from_pretrained(
        model_name(wanted),
        translator,
        None if silent else voice_name(arguments.speak),
        source=arguments.source,
        device=arguments.device,
        threads=arguments.threads,
    )
    _interpret(arguments, interpreter, options, silent, translator is not None)
    return 0


def _task(translator: str | None) -> str:
    return "transcribe" if translator else "translate"


def _translator(arguments: argparse.Namespace) -> str | None:
    """Name of the model of text; None if the recogniser itself translates."""
    if arguments.source == arguments.target:
        raise UsageError(f"--to {arguments.target}: that is the language of the speech")
    if arguments.target == "en" and not arguments.translate_model:
        return None
    return translation_model_name(
        arguments.translate_model, arguments.source or "en", arguments.target, "translate-model"
    )


def _interpret(
    arguments: argparse.Namespace, interpreter: Any, options: dict[str, Any], silent: bool, bilingual: bool
) -> None:
    import contextlib

    from loquent.speech.audio.sources import MicrophoneError, file_source, microphone_source
    from loquent.speech.bilingual import SPEECH, TRANSLATION
    from loquent.speech.commands.display import live_display
    from loquent.speech.commands.live import follow, through
    from loquent.speech.commands.translation.side_by_side import bilingual_display
    from loquent.speech.runtime.events import Event

    played = not silent and (arguments.play or not arguments.output)
    chosen = arguments.microphone
    try:
        source = (
            file_source(arguments.file, realtime=played)
            if arguments.file
            else microphone_source(int(chosen) if chosen and chosen.isdigit() else chosen)
        )
    except MicrophoneError as error:
        raise CommandError(str(error)) from error
    stream = interpreter.session(sample_rate=source.sample_rate, channels=source.channels, **options)
    display = bilingual_display(sys.stdout) if bilingual else live_display(sys.stdout)

    def shown(event: Event) -> None:
        if bilingual or event.stage == TRANSLATION:
            display.show(event)

    listeners = [shown]
    with contextlib.ExitStack() as stack:
        stack.callback(display.close)
        if not silent:
            sinks, _ = stack.enter_context(speaking.sinks(arguments, stream.gives.sample_rate))
            said = Timed(sinks, stream.gives.sample_rate)
            listeners.append(lambda event: said.show(event) if event.stage == SPEECH else None)
        print(f"Listening to {source.name}; Ctrl-C ends it.", file=sys.stderr)
        follow(source, lambda packets: through(stream, packets), listeners)


class Timed:
    """Hands speech on with the silence before it, so that all of it is heard at its time.

    Args:
        sinks: what takes samples.
        sample_rate: in Hz.
    """

    def __init__(self, sinks: list[Any], sample_rate: int) -> None:
        self._sinks, self._rate, self._given = sinks, sample_rate, 0

    def show(self, event: Any) -> None:
        """Take up an event."""
        if event.type != "speech":
            return
        import numpy as np

        gap = max(0, round(event.start * self._rate) - self._given)
        samples = np.concatenate([np.zeros(gap, np.float32), event.samples])
        self._given += len(samples)
        for sink in self._sinks:
            sink(samples)
