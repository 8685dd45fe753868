"""The command ``loquent``.

Each subcommand is a module with ``add_parser`` and ``run(arguments) -> exit status``, found by name as tasks are: a
task brings commands of its own. Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from loquent.speech.commands.arguments import CommandError, UsageError, explained, normalised
from loquent.speech.runtime.options import OptionError

COMMANDS: dict[str, str] = {  # in the order of the help
    "transcribe": "loquent.speech.commands.transcribe",
    "listen": "loquent.speech.commands.listen",
    "speak": "loquent.speech.commands.speak",
    "translate": "loquent.speech.commands.translate",
    "interpret": "loquent.speech.commands.interpret",
    "corpus": "loquent.speech.commands.corpus",
    "talk": "loquent.speech.commands.talking.talk",
    "serve": "loquent.speech.commands.serve",
    "models": "loquent.speech.commands.models",
    "train": "loquent.speech.commands.train",
}
INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C."""
    # Read when torch is loaded. OpenMP's threads wait in a busy loop for milliseconds by default: as soon as another
    # process wants a core they wait for each other, and everything takes ten times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Modules are what a start makes, hundreds of thousands of objects that stay: the collector need not look through
    # them again and again for what could be freed, least of all at the end.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show is no reason to lose the rest
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("loquent: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    arguments = _parsed(argv)
    if folder := getattr(arguments, "model_dir", None):
        os.environ["HF_HUB_CACHE"] = folder  # read when the hub's package is loaded
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.debug or os.environ.get("LOQUENT_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        text = explained(error, arguments) if isinstance(error, OptionError) else _explained(error)
        print(f"loquent: {text}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | OptionError) else 1


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(_settled(normalised(argv), parser))
    overrides: list[str] | None = getattr(arguments, "overrides", None)
    if overrides is not None and not any(word.startswith("-") for word in rest):
        overrides += rest  # argparse stops taking them at the first flag
    elif rest:
        from loquent.speech.commands.decoding import REFUSED

        flag = rest[0].partition("=")[0]
        if flag in REFUSED:
            parser.error(f"there is no {flag}: {REFUSED[flag]}")
        meant = ""
        if arguments.run.__module__ == COMMANDS["serve"] and not flag.startswith("-"):
            meant = f"; for the model to serve, write --model {rest[0]}"
        parser.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
    return arguments


def _settled(words: list[str], parser: _Parser) -> list[str]:
    """The words of a command line, with what a file and the environment say, where the command takes them."""
    at = next((at for at, word in enumerate(words) if not word.startswith("-")), None)
    if at is None or words[at] not in parser.commands or {"-h", "--help"} & set(words):
        return words
    from loquent.speech.commands.configuration import with_settings

    try:
        return words[: at + 1] + with_settings(words[at + 1 :], parser.commands[words[at]], words[at], os.environ)
    except UsageError as error:
        parser.error(str(error))


def _explained(error: Exception) -> str:
    """One line. Errors that the user can do something about are ours, or about values, files and connections."""
    text = " ".join(str(error).split())
    if isinstance(error, CommandError | ValueError | OSError) and text:
        return text
    return f"unexpected {type(error).__name__}: {text or 'no details'}; --debug shows where it happened"


def _parser() -> _Parser:
    parser = _Parser(
        prog="loquent",
        description="Streaming speech: recordings and microphones to text, text to speech, translation, and a server.",
        epilog="`loquent COMMAND --help` tells more. Flags may be spelled with hyphens or underscores.",
        formatter_class=_help_format,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help="show where an error happened (also LOQUENT_DEBUG=1)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    parser.commands = commands.choices
    for module in COMMANDS.values():
        command = importlib.import_module(module)
        added = command.add_parser(commands)
        added.set_defaults(run=command.run)
        added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _help_format(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=28)


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line; ``commands`` are the parsers of its subcommands."""

    commands: Mapping[str, argparse.ArgumentParser] = {}

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"loquent: {message}; see `{self.prog} --help`\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        print(f"loquent {metadata.version('loquent')}")
        parser.exit()
