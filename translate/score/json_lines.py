"""Logs as files of one JSON object a line, which may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any


class LogError(ValueError):
    """A log that cannot be read; the message names the file, the line, and what is wrong with it."""


def read_json_lines(path: str | PathLike[str], take: Callable[[dict[str, Any]], None]) -> None:
    """Hand each object of a file to ``take``; empty lines are passed over.

    Raises:
        LogError: a line is no JSON object, or ``take`` raised ValueError.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError(f"expected a JSON object, got {line[:40].decode(errors='replace')}")
                take(values)
            except (ValueError, ArithmeticError, RecursionError) as error:
                raise LogError(f"{path}, line {number}: {error}") from error


def write_json_lines(path: str | PathLike[str], lines: list[dict[str, Any]]) -> None:
    """Write a file, as SimulEval and simulstream do."""
    Path(path).write_text("".join(json.dumps(values) + "\n" for values in lines), encoding="utf-8", newline="\n")


def text(values: dict[str, Any], name: str) -> str:
    """A field of an object that has to be a string."""
    if not isinstance(values.get(name), str):
        raise _unexpected(values, name, "a string")
    return values[name]


def number(values: dict[str, Any], name: str) -> float:
    """A field of an object that has to be a number."""
    if not _is_number(values.get(name)):
        raise _unexpected(values, name, "a number")
    return values[name]


def count(values: dict[str, Any], name: str) -> int:
    """A field of an object that has to be a whole number."""
    if not _is_number(values.get(name)) or not isinstance(values[name], int):
        raise _unexpected(values, name, "a whole number")
    return values[name]


def numbers(values: dict[str, Any], name: str) -> tuple[float, ...]:
    """A field of an object that has to be a list of numbers."""
    if not isinstance(values.get(name), list) or not all(map(_is_number, values[name])):
        raise _unexpected(values, name, "a list of numbers")
    return tuple(values[name])


def texts(values: dict[str, Any], name: str) -> tuple[str, ...]:
    """A field of an object that has to be a list of strings."""
    if not isinstance(values.get(name), list) or not all(isinstance(value, str) for value in values[name]):
        raise _unexpected(values, name, "a list of strings")
    return tuple(values[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unexpected(values: dict[str, Any], name: str, expected: str) -> ValueError:
    got = f"got {json.dumps(values[name])[:80]}" if name in values else "it is not there"
    return ValueError(f"{name}: expected {expected}, {got}")
