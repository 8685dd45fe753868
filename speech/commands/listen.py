"""``loquent listen``: live text from a microphone, or from a file played as if it were one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from loquent.speech.commands.arguments import (
    CommandError,
    UsageError,
    add_key_argument,
    add_language_arguments,
    add_model_arguments,
    add_streaming_arguments,
    check_options,
    load_recognizer,
    stream_start_options,
    streaming_options,
    streaming_task,
)
from loquent.speech.commands.translation.translate_to import (
    Asked,
    LiveTranslation,
    add_translate_to_arguments,
    translate_to_options,
    translation_asked,
)

if TYPE_CHECKING:
    from loquent.speech.commands.live import Recognise


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "listen",
        help="write down what a microphone hears, while it is said",
        description="Write down what a microphone hears, while it is said. Text that may still change is dim; in a "
        "pipe each utterance is a line. Ctrl-C ends the stream and writes its last words; a second one kills.",
        allow_abbrev=False,
    )
    source = parser.add_argument_group("source")
    source.add_argument("--microphone", metavar="N", help="number or part of the name of the microphone")
    source.add_argument("--list-devices", action="store_true", help="list the microphones and exit")
    source.add_argument("--file", metavar="FILE", help="play a recording in real time instead")
    server = parser.add_argument_group("server")
    server.add_argument("--server", metavar="URL", help="let a server recognise, such as ws://127.0.0.1:8000")
    add_key_argument(parser, "key that the server asks for")
    add_language_arguments(parser)
    add_translate_to_arguments(parser)
    add_streaming_arguments(parser)
    add_model_arguments(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Listen until the file or Ctrl-C ends it, which is the usual way and no failure."""
    from loquent.speech.audio.sources import MicrophoneError

    try:
        return _list_microphones() if arguments.list_devices else _listen(arguments)
    except MicrophoneError as error:
        raise CommandError(str(error)) from error


def _listen(arguments: argparse.Namespace) -> int:
    if arguments.file and arguments.microphone:
        raise UsageError("--file and --microphone exclude each other")
    asked = translation_asked(arguments, remote=bool(arguments.server))
    if not arguments.server:
        check_options(arguments, stream=stream_start_options(arguments))
    from loquent.speech.audio.sources import file_source, microphone_source
    from loquent.speech.commands.display import live_display
    from loquent.speech.commands.live import follow
    from loquent.speech.commands.translation.side_by_side import bilingual_display

    if arguments.file:
        source = file_source(arguments.file, realtime=True)
    else:
        chosen = arguments.microphone
        source = microphone_source(int(chosen) if chosen and chosen.isdigit() else chosen)
    recognise = _remote(arguments, asked) if arguments.server else _local(arguments, asked)
    print(f"Listening to {source.name}; Ctrl-C ends it.", file=sys.stderr)
    display = live_display(sys.stdout) if asked is None else bilingual_display(sys.stdout)
    try:
        follow(source, recognise, [display.show])
    finally:
        display.close()
    return 0


def _local(arguments: argparse.Namespace, asked: Asked | None) -> Recognise:
    from loquent.speech.commands.display import is_terminal
    from loquent.speech.commands.live import LocalRecognition
    from loquent.speech.runtime.engine import Engine

    engine = Engine(streaming_task(load_recognizer(arguments), arguments))
    translation = None if asked is None else LiveTranslation(asked, arguments, drafts=is_terminal(sys.stdout))
    return LocalRecognition(engine, translation, **stream_start_options(arguments))


def _remote(arguments: argparse.Namespace, asked: Asked | None) -> Recognise:
    from loquent.speech.commands.live import remotely

    if options := streaming_options(arguments):
        names = " and ".join("--" + name.replace("_", "-") for name in options)
        raise UsageError(f"{names} cannot be chosen with --server: they are the server's")
    scheme, separator, address = arguments.server.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme) if separator else "ws"
    if scheme not in ("ws", "wss"):
        raise UsageError(f"--server is a URL such as ws://127.0.0.1:8000, got {arguments.server!r}")
    url = f"{scheme}://{address if separator else arguments.server}"
    options = stream_start_options(arguments)
    if len(arguments.adapters) > 1:
        raise UsageError(f"--adapter {arguments.adapters[1]} is one too many: a stream has one")
    if arguments.adapters:
        options["adapter"] = arguments.adapters[0]
    if asked is not None:
        if arguments.translate_model:
            raise UsageError("--translate-model cannot be chosen with --server: the models are the server's")
        options |= {"translate_to": asked.target} | translate_to_options(arguments)
    return remotely(url, model=arguments.model, token=arguments.api_key, **options)


def _list_microphones() -> int:
    from loquent.speech.audio.sources import list_microphones

    microphones = list_microphones()
    for one in microphones:
        mark = "*" if one.default else " "
        print(f"{mark} {one.index:3}  {one.name}  ({one.channels} channels, {one.sample_rate} Hz)")
    if not microphones:
        print("loquent: no microphone found; plug one in, or use --file", file=sys.stderr)
    return 0 if microphones else 1
