"""Reads JSON files that others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or nested too deeply; the message names the file.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also for text that is not UTF-8, and numbers of too many digits
        raise ValueError(f"{file} is not JSON: {error}") from error


def read_json_object(file: Path) -> dict[str, Any]:
    """The names and values of a JSON file; errors are those of `read_json`, or ValueError for another kind of value."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds a {type(values).__name__}, expected an object")
    return values
