"""``loquent speak``: text to speech, from the command line or word by word from standard input."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loquent.speech.captions import FORMATS, CaptionOptions, write
from loquent.speech.commands.arguments import CommandError, UsageError, add_device_arguments, voice_name
from loquent.speech.commands.output import whole_file
from loquent.speech.json_files import read_json_object
from loquent.speech.runtime.options import parse_options
from loquent.speech.transcript import Segment, SegmentBuilder

if TYPE_CHECKING:
    import numpy as np

    from loquent.speech.runtime.events import Event
    from loquent.speech.runtime.session import Session

CONTEXTS = ("words", "sentence")
AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus")
OPTIONS = ("voice", "speed", "context", "seed")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "speak",
        help="read text aloud",
        description="Read text aloud: play it, or write it to a file. Text from standard input is spoken as it comes.",
        allow_abbrev=False,
    )
    parser.add_argument("text", nargs="+", metavar="TEXT", help="what to say; - for standard input")
    output = parser.add_argument_group("output")
    output.add_argument("--output", "-o", metavar="FILE", help=f"write the speech here: {', '.join(AUDIO_ENDINGS)}")
    output.add_argument("--play", action="store_true", help="play it, too; without --output it is played anyway")
    output.add_argument(
        "--save-words", type=Path, metavar="FILE", help=f"write the times of all words: .{', .'.join(FORMATS)}"
    )
    add_voice_arguments(parser)
    return parser


def add_voice_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags that choose the voice and how it speaks."""
    voice = parser.add_argument_group("voice")
    voice.add_argument("--voice", metavar="NAME", help="of the model's voices, or a mixture: anna:0.7+ben:0.3")
    voice.add_argument("--speed", type=float, metavar="FACTOR", help="tempo, from 0.25 to 4 (default: 1)")
    voice.add_argument(
        "--context",
        choices=CONTEXTS,
        help="speak a word once two more are there, or its sentence, which sounds better (default: words)",
    )
    voice.add_argument("--seed", type=int, metavar="N", help="of the noise in the voice (default: 0)")
    voice.add_argument("--ssml", action="store_true", help='the text has SSML tags, such as <break time="500ms"/>')
    voice.add_argument(
        "--lexicon", type=Path, metavar="FILE", help='pronunciations of your own, in JSON: {"word": "phonemes"}'
    )
    model = add_device_arguments(parser)
    model.add_argument(
        "--model",
        metavar="NAME",
        help="name, folder or hub id of a voice (default: loquent/hibari if installed, else loquent/voice)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Speak; after Ctrl-C, tell what was heard."""
    if arguments.output and Path(arguments.output).suffix.lower() not in AUDIO_ENDINGS:
        raise UsageError(f"--output {arguments.output}: expected a name ending in {', '.join(AUDIO_ENDINGS)}")
    if arguments.save_words and arguments.save_words.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"--save-words {arguments.save_words}: expected a name ending in .{', .'.join(FORMATS)}")
    from loquent.speech.tasks import load_task

    if "-" in arguments.text and sys.stdin is None:
        raise CommandError("standard input is closed; there is nothing to read")
    options = voice_options(arguments)
    name = voice_name(arguments.model)
    parse_options(load_task("synthesis options")(name), options)
    synthesizer = load_task("synthesizer").from_pretrained(name, device=arguments.device, threads=arguments.threads)
    session = synthesizer.session(**options)
    with _words_file(arguments.save_words) as words, sinks(arguments, synthesizer.sample_rate) as (outputs, played_s):
        try:
            segments, seconds = _speak(session, _pieces(arguments.text), outputs)
        except KeyboardInterrupt:
            for event in session.interrupt(played_s()):
                if event.type == "interrupted":
                    print(f"loquent: stopped after {event.heard:.1f} s: {event.text}", file=sys.stderr)
            raise
        if not seconds:
            raise CommandError("there is nothing in the text that can be spoken")
        if words:  # one caption a word; json has all words in their sentences. Not every voice tells its words
            timed = all(segment.words for segment in segments)
            layout = CaptionOptions(max_words_per_line=1) if timed else CaptionOptions()
            write(arguments.save_words.suffix.lower().lstrip("."), segments, words, layout, "en")
    if arguments.output:
        print(f"{arguments.output}: {seconds:.1f} s of speech", file=sys.stderr)
    return 0


def voice_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, as options of a stream of speech."""
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    if arguments.ssml:
        options["ssml"] = True
    if arguments.lexicon is not None:
        options["lexicon"] = read_json_object(arguments.lexicon)
    return options


def _pieces(texts: Sequence[str]) -> Iterator[str]:
    """The text, that of standard input as it arrives."""
    for number, text in enumerate(texts):
        if number:
            yield " "
        if text != "-":
            yield text
            continue
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while data := os.read(sys.stdin.fileno(), 1 << 16):
                yield decoder.decode(data)
        except OSError as error:
            raise CommandError(f"cannot read standard input: {error.strerror}") from error
        yield decoder.decode(b"", final=True)


def _speak(
    session: Session, pieces: Iterator[str], sinks: list[Callable[[np.ndarray], None]]
) -> tuple[list[Segment], float]:
    """Hand the speech of a text to the sinks as it is made; returns its segments and its length in seconds."""
    builder, segments, seconds = SegmentBuilder(), list[Segment](), 0.0
    for event in _events(session, pieces):
        if segment := builder.add(event):
            segments.append(segment)
        if event.type == "speech":
            seconds = event.end
            for sink in sinks:
                sink(event.samples)
        elif event.type == "skipped":
            print(f"loquent: not spoken: {event.text!r}: {event.reason}", file=sys.stderr)
        elif event.type == "failure":
            raise CommandError(event.message)
    return segments, seconds


def _events(session: Session, pieces: Iterator[str]) -> Iterator[Any]:
    def stepped() -> Iterator[Event]:
        while session.ready:
            session.engine.step()
            yield from session.drain()

    for piece in pieces:
        session.feed(piece)
        yield from stepped()
    session.end()
    yield from stepped()
    yield from session.drain()


@contextlib.contextmanager
def sinks(
    arguments: argparse.Namespace, sample_rate: int
) -> Iterator[tuple[list[Callable[[np.ndarray], None]], Callable[[], float | None]]]:
    """Where the speech goes, and what tells how much of it has been heard."""
    from loquent.speech.audio.files import AudioWriter
    from loquent.speech.audio.playback import PlaybackError, Player

    with contextlib.ExitStack() as stack:
        outputs: list[Callable[[np.ndarray], None]] = []
        player: Player | None = None
        try:
            if arguments.play or not arguments.output:
                player = stack.enter_context(Player(sample_rate))
                outputs.append(player.write)
        except PlaybackError as error:
            raise CommandError(str(error)) from error
        if arguments.output:
            outputs.append(stack.enter_context(AudioWriter(arguments.output, sample_rate)).write)
        yield outputs, lambda: None if player is None else player.played_s


def _words_file(path: Path | None) -> contextlib.AbstractContextManager[TextIO | None]:
    """Where the times of words go. It is opened before there is something to lose."""
    return contextlib.nullcontext() if path is None else whole_file(path)
