"""``loquent translate``: texts, captions, and standard input line by line or word by word."""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loquent.speech.commands.arguments import (
    CommandError,
    UsageError,
    add_device_arguments,
    optional,
    whole_number,
)
from loquent.speech.commands.output import make_folder
from loquent.speech.commands.recordings import shown
from loquent.speech.commands.translation.files import (
    CAPTION_ENDINGS,
    Source,
    names_of,
    progress_bar,
    write_captions,
    write_lines,
    written,
)
from loquent.speech.commands.translation.models import (
    BATCH,
    LATENCIES,
    TRANSLATION_POLICIES,
    add_term_arguments,
    language,
    load_translator,
    sound,
    term_options,
    translation_model_name,
)
from loquent.speech.commands.translation.texts import read_text, stdin_pieces
from loquent.speech.runtime.options import parse_options

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine
    from loquent.speech.runtime.session import Session

FILE_ENDINGS = (".txt", *CAPTION_ENDINGS)
LIVE_OPTIONS = (
    *("policy", "k", "agreement", "held", "votes", "margin", "masked", "bias", "latency"),
    *("most_behind_words", "most_behind_s"),
)
DEFAULT_SOURCE = "en"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "translate",
        help="translate texts and captions",
        description="Translate what is on the command line, text files and captions (srt, vtt), or standard input, "
        "line by line as it comes. With --stream every word is written as soon as it is certain.",
        allow_abbrev=False,
    )
    parser.add_argument("text", nargs="*", default=["-"], metavar="TEXT", help="a text, files, or - for standard input")
    languages = parser.add_argument_group("language")
    languages.add_argument(
        "--from", type=language, dest="source", metavar="LANGUAGE", help="code or name (default: en, or the model's)"
    )
    languages.add_argument(
        "--to", type=language, dest="target", metavar="LANGUAGE", help="code or name (default: the model's)"
    )
    add_term_arguments(languages)
    output = parser.add_argument_group("output")
    output.add_argument("--output-file", "-O", type=Path, metavar="FILE", help="write here; may turn .srt into .vtt")
    output.add_argument(
        "--output-dir", "-o", type=Path, metavar="FOLDER", help="write talk.srt as talk.es.srt into this folder"
    )
    output.add_argument("--encoding", type=_encoding, metavar="NAME", help="of what is read (default: utf-8)")
    output.add_argument("--no-progress", action="store_true", help="no progress bar")
    live = parser.add_argument_group("streaming")
    live.add_argument("--stream", action="store_true", help="translate word by word, and write what is certain")
    live.add_argument(
        "--policy",
        choices=TRANSLATION_POLICIES,
        metavar="POLICY",
        help=f"when a word is written: {', '.join(TRANSLATION_POLICIES)} (default: the model's)",
    )
    live.add_argument("--k", type=whole_number(1), metavar="N", help="wait-k: words read ahead (default: 3)")
    live.add_argument(
        "--agreement", type=int, metavar="N", help="local-agreement: drafts that have to begin alike (default: 2)"
    )
    live.add_argument("--held", type=int, metavar="N", help="hold: pieces at the end that wait (default: 3)")
    live.add_argument("--votes", type=float, metavar="SHARE", help="ralcp: of a beam that has to agree (default: 0.6)")
    live.add_argument("--margin", type=int, metavar="N", help="alignatt: newest pieces not to be attended (default: 2)")
    live.add_argument("--masked", type=int, metavar="N", help="re-translation: words that are not shown (default: 1)")
    live.add_argument("--bias", type=float, metavar="SHARE", help="re-translation: towards what was shown (default: 0)")
    live.add_argument("--latency", choices=LATENCIES, help="learned: of models that were taught several")
    live.add_argument(
        "--most-behind-words", type=int, metavar="N", help="write a word so many words after its source at the latest"
    )
    live.add_argument("--most-behind-s", type=float, metavar="S", help="likewise, in seconds, for text that has times")
    live.add_argument("--drafts", action="store_true", help="on a terminal, show what is not certain yet, too")
    model = add_device_arguments(parser)
    model.add_argument(
        "--model", metavar="NAME", help="name, folder or hub id (default: the one that comes for the languages)"
    )
    model.add_argument(
        "--beam-size", type=optional(whole_number(1), none=1), metavar="N", help="hypotheses followed (default: 1)"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Translate; 1 if a file could not be."""
    texts, files, failures = _sources(arguments.text)
    options = _options(arguments, files)
    if arguments.model is None and arguments.target is None:
        raise UsageError("--to says which language to translate to, such as --to es; or pass a --model")
    target = arguments.target or ""
    name = translation_model_name(arguments.model, arguments.source or DEFAULT_SOURCE, target)
    _check_outputs(arguments, files)
    from loquent.speech.tasks import load_task

    parse_options(load_task("translation options"), options)
    translator = load_translator(name, arguments, arguments.source, arguments.target)
    from loquent.speech.runtime.engine import Engine

    engine = Engine(translator.streaming_task(), capacity=1 if arguments.stream else BATCH)
    for text in texts:
        pieces = stdin_pieces(arguments.encoding) if text == "-" else iter([text, "\n"])
        with written(arguments.output_file) as file:
            if arguments.stream:
                _stream(engine.open(**options), pieces, file)
            else:
                _lines(engine, pieces, file, options)
    if files:
        failures |= _files(arguments, engine, files, options, translator.target)
    for source, reason in failures.items():
        print(f"loquent: {source}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _sources(words: Sequence[str]) -> tuple[list[str], list[Source], dict[str, str]]:
    """The text (in one, as the shell has split it) or standard input, or files; and what is wrong with names of files.

    Raises:
        UsageError: both are named, or something that can only be a file and is not there.
    """
    named = [word for word in words if word != "-" and _names_file(word)]
    if not named:
        if "-" in words and len(words) > 1:
            raise UsageError("'-' is standard input, which is translated alone")
        return [" ".join(words)], [], {}
    if len(named) < len(words):
        other = next(word for word in words if word not in named)
        raise UsageError(f"{other[:60]!r} is no file, and {named[0]!r} is one; translate texts and files one by one")
    files, failures = dict[Path, Source](), dict[str, str]()
    for name in named:
        path = Path(name).expanduser()
        if not path.exists():
            failures[shown(path)] = "no such file"
        elif path.is_dir():
            failures[shown(path)] = "a folder; name the files in it"
        else:
            files.setdefault(path.resolve(), Source(shown(path), path))
    if not files:
        raise CommandError("; ".join(f"{name}: {reason}" for name, reason in failures.items()))
    return [], list(files.values()), failures


def _names_file(word: str) -> bool:
    """Whether a word is the name of a file, there or not: ``talk.srt`` is nothing to translate."""
    try:
        there = bool(word) and Path(word).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long for a file's name, say
        return False
    return there or (not any(letter.isspace() for letter in word) and word.lower().endswith(FILE_ENDINGS))


def _options(arguments: argparse.Namespace, files: Sequence[Source]) -> dict[str, Any]:
    live = {name: getattr(arguments, name) for name in LIVE_OPTIONS if getattr(arguments, name) is not None}
    if arguments.drafts:
        live["drafts"] = True
    if arguments.stream and any(one.captions for one in files):
        raise UsageError("--stream is for texts; captions are translated in whole sentences")
    if live and not arguments.stream:
        raise UsageError(f"--{next(iter(live)).replace('_', '-')} needs --stream")
    options = live if arguments.stream else {"policy": "offline"}
    if arguments.beam_size is not None:
        options["beam_size"] = arguments.beam_size
    return options | term_options(arguments)


def _check_outputs(arguments: argparse.Namespace, files: Sequence[Source]) -> None:
    out = arguments.output_file
    if out is not None and arguments.output_dir is not None:
        raise UsageError("--output-file and --output-dir exclude each other")
    if arguments.output_dir is not None and not files:
        raise UsageError("--output-dir is for files; write a text with --output-file")
    if out is not None and len(files) > 1:
        raise UsageError(f"--output-file takes one of the {len(files)} files; pass --output-dir")
    if out is not None and files and out.exists() and out.samefile(files[0].path):
        raise UsageError(f"--output-file {shown(out)} is what is to be translated; choose another name")
    captions = [one for one in files if one.captions]
    if out is None and arguments.output_dir is None and captions and len(files) > 1:
        raise UsageError(f"captions of {len(files)} files do not fit one stream; pass --output-dir .")
    wanted = out.suffix.lower() if out is not None else ""
    if wanted in CAPTION_ENDINGS and not captions:
        raise UsageError(f"--output-file {shown(out)}: a text has no times for captions; expected .txt")


def _files(
    arguments: argparse.Namespace, engine: Engine, files: Sequence[Source], options: dict[str, Any], target: str
) -> dict[str, str]:
    """Translate every file; returns why those are missing that are."""
    failures: dict[str, str] = {}
    if arguments.output_dir is not None:
        make_folder(arguments.output_dir)
    with progress_bar(files, shown=not arguments.no_progress) as done:
        for number, (source, name) in enumerate(zip(files, names_of(files, target), strict=True)):
            out = arguments.output_file if arguments.output_dir is None else arguments.output_dir / name
            try:
                text = read_text(source.path, arguments.encoding)
                if out is None and len(files) > 1:
                    print("\n" * bool(number) + f"==> {source.name} <==", flush=True)
                if source.captions:
                    write_captions(engine, text, source, out, options, done)
                    continue
                with written(out) as file:
                    if arguments.stream:
                        _stream(engine.open(**options), iter([text]), file)
                    else:
                        write_lines(engine, text.splitlines(), file, options, done)
            except (CommandError, ValueError) as error:
                failures[source.name] = str(error)
    return failures


def _lines(engine: Engine, pieces: Iterator[str], file: TextIO, options: dict[str, Any]) -> None:
    """Translate line by line; those that have come together go in one batch."""
    rest = ""
    try:
        for piece in pieces:
            *lines, rest = (rest + piece).split("\n")
            write_lines(engine, lines, file, options)
    finally:
        if rest:  # the last line has no end, or what comes behind it cannot be read
            write_lines(engine, [rest], file, options)


# -------------------------------------------------------------------------------------------------- words, as they come


def _stream(session: Session, pieces: Iterator[str], file: TextIO) -> None:
    """Write what is committed at once; lines end where those of the source do."""
    from loquent.speech.commands.display import is_terminal

    drawn = session.options.drafts and is_terminal(file)
    writer: _Words | _Drafts = _Drafts(file) if drawn else _Words(file)
    try:
        for piece in pieces:
            first, *following = piece.replace("\r", "").split("\n")
            writer.take(session.push(first))
            for line in following:
                writer.take(session.flush())
                writer.end_line()
                session.feed("\n")
                writer.take(session.push(line))
    finally:  # after Ctrl-C, too, what was read is translated to its end
        if not session.done:
            writer.take(session.finish())
        writer.close()


class _Words:
    """Words behind words."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._begun = file, False

    def take(self, events: Sequence[Any]) -> None:
        for event in sound(events):
            if event.type == "translation":
                self._file.write(event.text if self._begun else event.text.lstrip())
                self._begun = True
        self._file.flush()

    def end_line(self) -> None:
        self._file.write("\n")
        self._file.flush()
        self._begun = False

    def close(self) -> None:
        if self._begun:
            self.end_line()


class _Drafts:
    """For terminals: a sentence a line, and what is not certain yet dim behind it."""

    def __init__(self, file: TextIO) -> None:
        from loquent.speech.commands.display import TerminalDisplay

        self._display = TerminalDisplay(file)

    def take(self, events: Sequence[Any]) -> None:
        for event in sound(events):
            self._display.show(event)

    def end_line(self) -> None:
        self._display.close()

    close = end_line


def _encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise argparse.ArgumentTypeError(f"{name!r} is no encoding; expected a name such as utf-8 or cp1252") from error
