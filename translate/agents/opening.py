"""Streams for agents, from what a command line or a configuration says."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from loquent.speech.runtime.events import Event, Failure, Translation


def add_arguments(parser: ArgumentParser, speech: bool) -> None:
    """Add the flags of an agent."""
    parser.add_argument("--loquent-model", default=None if speech else "loquent/en-es", help="translation model")
    if speech:
        parser.add_argument("--loquent-recognizer", default="base", help="what hears; alone it translates to English")
        parser.add_argument("--loquent-language", default=None, help="of the speech; by default it is detected")
    parser.add_argument(
        "--loquent-options",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="of the stream, such as policy=wait-k k=3",
    )


def parsed_options(options: Sequence[str]) -> dict[str, Any]:
    """``name=value`` as options of a stream; a value is read as YAML, so numbers are numbers.

    Raises:
        ValueError: one is not of that form.
    """
    import yaml

    found: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise ValueError(f"--loquent-options: expected NAME=VALUE, got {option!r}")
        found[name] = yaml.safe_load(value)
    return found


def committed(events: Sequence[Event], stage: str = "") -> str:
    """The text that events commit.

    Args:
        stage: of a pipeline, the one that translates; any without a name.

    Raises:
        RuntimeError: the stream has failed.
    """
    for event in events:
        if isinstance(event, Failure):
            raise RuntimeError(f"{event.code}: {event.message}")
    return "".join(e.text for e in events if isinstance(e, Translation) and (not stage or e.stage == stage))
