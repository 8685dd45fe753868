"""The fields of requests, checked. A wrong value is refused by the name of its field."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NoReturn

from loquent.speech.net.models import Models, UnknownModel
from loquent.speech.net.uploads import Refused


def refuse(name: str, problem: str) -> NoReturn:
    """Answer 400 and name the field.

    Raises:
        Refused: always.
    """
    raise Refused(400, f"{name}: {problem}", name)


def within(name: str, value: Any, low: float, high: float) -> float:
    """A number between two others, or a text that is one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high:
        refuse(name, f"has to be a number from {low:g} to {high:g}, got {str(value)[:60]!r}")
    return number


def one_of(name: str, value: str, choices: Collection[str]) -> str:
    """One of a few texts."""
    if value not in choices:
        refuse(name, f"{value[:60]!r} is unknown; expected one of {', '.join(choices)}")
    return value


def known_field(name: str, fields: Collection[str]) -> None:
    """Refuse a field that there is not."""
    if name not in fields:
        raise Refused(400, f"unknown field {name[:60]!r}; expected some of {', '.join(fields)}", name)


def model_named(asked: str | None, models: Models, foreign: tuple[str, ...], purpose: str) -> str:
    """The model that a client asks for; see `Models.named`.

    Args:
        models: those that do what is asked.
        purpose: what they are for, if there is none.
    """
    try:
        return models.named(asked, foreign)
    except UnknownModel as error:
        raise Refused(404, str(error) if models else f"this server has no model {purpose}", "model") from error
