"""Texts that a command line names: read with the encoding that they have, or an error that says what is wrong."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from loquent.speech.commands.arguments import CommandError
from loquent.speech.commands.recordings import shown

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: Path, encoding: str | None = None) -> str:
    """A file's text; a byte order mark tells its encoding, which is else UTF-8.

    Raises:
        CommandError: it cannot be read, or has another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {shown(path)}: {error.strerror}") from error
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding or marked)
    except UnicodeDecodeError as error:
        raise CommandError(_wrong(shown(path), error, content, 0)) from error


def stdin_pieces(encoding: str | None = None) -> Iterator[str]:
    """Standard input as it arrives.

    Raises:
        CommandError: it cannot be read, or has another encoding; what comes before that has been given out.
    """
    if sys.stdin is None:
        raise CommandError("standard input is closed; there is nothing to read")
    decoder = codecs.getincrementaldecoder(encoding or "utf-8-sig")()
    total, data = 0, b"the first"
    while data:
        try:
            data = os.read(sys.stdin.fileno(), 1 << 16)
        except OSError as error:
            raise CommandError(f"cannot read standard input: {error.strerror}") from error
        total += len(data)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(encoding or "utf-8-sig")
            raise CommandError(_wrong("standard input", error, error.object, total - len(error.object))) from error
        if text:
            yield text


def _wrong(name: str, error: UnicodeDecodeError, content: bytes, before: int) -> str:
    where = f"the byte 0x{content[error.start]:02x} at position {before + error.start}"
    what = f"{name} is not {error.encoding.upper()}: {where} is {error.reason}"
    return f"{what}; tell its encoding, such as --encoding cp1252"
