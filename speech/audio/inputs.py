"""Whatever a recording comes from, opened as one thing: a binary file that can seek."""

from __future__ import annotations

import os
import selectors
import stat
import tempfile
from typing import BinaryIO, TypeAlias

from loquent.speech.audio.errors import AudioError

Source: TypeAlias = str | os.PathLike[str] | BinaryIO


def name_of(source: Source) -> str:
    """What to call a recording in messages: its path in quotes, fit for any terminal."""
    named = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return repr(printable(named)) if isinstance(named, str) else "the audio stream"


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that can be encoded: bytes that are not UTF-8 become U+FFFD."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def open_input(source: Source) -> BinaryIO:
    """Open a recording for reading and seeking.

    Args:
        source: a path (also of a named pipe, or `/dev/stdin`), or a binary file object, which is read from where it
            stands. What cannot seek is first copied to a temporary file, up to its end.

    Returns:
        A file object at its start; ``source`` itself if that is a file object that can seek.

    Raises:
        AudioError: there is no such file, it may not be read, it is empty, a folder, a device or a socket, or nothing
            comes through the pipe.
    """
    name = name_of(source)
    try:
        file = _of_path(source, name) if isinstance(source, str | os.PathLike) else _of_object(source, name)
    except FileNotFoundError as error:
        raise AudioError(f"no such audio file: {name}") from error
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror or error}") from error
    start = file.tell()
    if not file.read(1):
        if file is not source:
            file.close()
        raise AudioError(f"{name} is empty (0 bytes)")
    file.seek(start)
    return file


def _of_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if "\0" in os.fspath(path):
        raise AudioError(f"no such audio file: {name}")
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(f"expected an audio file, got the folder {name}")
    if stat.S_ISFIFO(mode):
        return _of_named_pipe(path, name)
    if not stat.S_ISREG(mode):
        raise AudioError(f"{name} is a device or a socket; expected an audio file or a pipe")
    return open(path, "rb")


def _of_object(source: BinaryIO, name: str) -> BinaryIO:
    return source if source.seekable() else _copy(source, name)


PIPE_WAIT_S = 60.0


def _of_named_pipe(path: str | os.PathLike[str], name: str) -> BinaryIO:
    """A copy of what comes through a named pipe. Opening one in the usual way would wait for a writer for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(PIPE_WAIT_S):
            raise AudioError(
                f"nothing came through the pipe {name} within {PIPE_WAIT_S:g} s; start the program that writes to it"
            )
        os.set_blocking(descriptor, True)
        return _copy(pipe, name)


PIPE_LIMIT = 4 << 30  # bytes; no WAV file is longer, and a pipe may have no end


def _copy(source: BinaryIO, name: str) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (returned)
    size = 0
    try:
        while data := source.read(1 << 20):
            size += len(data)
            if size > PIPE_LIMIT:
                raise AudioError(f"more than {PIPE_LIMIT} bytes came through {name}; record it to a file first")
            file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
