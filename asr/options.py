"""Options that are given by name, to models of several kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def checked_options(kind: type[T], values: Mapping[str, Any], model: str) -> T:
    """Options of the class ``kind`` (a dataclass); errors say that it is ``model`` ("a Whisper") which has no other.

    Raises:
        ValueError: there is no such option, or a value is wrong.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - set(known)):
        raise ValueError(f"{model} has no option {', '.join(unknown)}; expected some of {', '.join(known)}")
    return kind(**values)
