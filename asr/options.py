"""Options that are given by name, to models of several kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from loquent.speech.runtime.options import parse_options
from loquent.speech.text.languages import language_code

T = TypeVar("T")

Mode = Literal["transcribe", "translate"]  # text in the language that is spoken, or in English


def check_language(language: str) -> None:
    """Refuse what is no language.

    Raises:
        ValueError: the text is neither the code nor the English name of a language that any model knows.
    """
    try:
        language_code(language)
    except ValueError as error:
        raise ValueError(f"language: {error}") from error


def checked_options(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Options of the class ``kind``, a dataclass.

    Args:
        values: by name.
        where: as in `parse_options`.

    Raises:
        OptionError: there is no such option, or a value is wrong.
    """
    return parse_options(kind, values, where)
