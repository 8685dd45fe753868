"""Keys of a server: who may use it, by name, and how much of it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loquent.speech.runtime.options import OptionError, parse_options

LARGEST = 1_048_576  # bytes of a file of keys
SHORTEST = 16  # characters of a key in a file: what is shorter could be guessed


@dataclass(frozen=True)
class Key:
    """Who presents a key, and what the key allows.

    name:             in logs and metrics, instead of the key.
    digest:           SHA-256 of the key, in hexadecimal.
    admin:            whether models may be loaded and unloaded with it.
    connections:      websockets and requests at a time; None: as many as the server takes.
    streams:          at a time, likewise; so is a request for speech or words as they come, and a channel heard apart.
    uploads_a_minute: files sent to be transcribed, likewise.
    max_duration_s:   of audio in a stream; None: as the server's limits say.
    """

    name: str
    digest: str = field(repr=False)
    admin: bool = False
    connections: int | None = None
    streams: int | None = None
    uploads_a_minute: int | None = None
    max_duration_s: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]{0,64}", self.name, re.ASCII):
            raise ValueError(f"the name of a key has letters, digits, '.', '_' and '-', at most 64: got {self.name!r}")
        if self.digest and not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError(f"sha256 of the key {self.name!r} has to have 64 hexadecimal digits")
        for limit in ("connections", "streams", "uploads_a_minute", "max_duration_s"):
            value = getattr(self, limit)
            if value is not None and not value > 0:
                raise ValueError(f"{limit} of the key {self.name!r} has to be positive, got {value}")


NOBODY = Key("", "")  # who uses a server without keys


class KeyLimited(Exception):
    """A key is used as much as it may be."""


class Keys:
    """The keys of a server, and how they are used.

    Every key is compared, and in constant time: how long an answer takes tells nothing about the keys.

    Args:
        keys: none at all: everybody may use the server.
        clock: monotonic seconds.

    Raises:
        ValueError: two have the same name, or are the same.
    """

    def __init__(self, keys: Iterable[Key] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._clock = tuple(keys), clock
        for what in ("name", "digest"):
            twice = [one for one, count in Counter(getattr(key, what) for key in self._keys).items() if count > 1]
            if twice:
                names = ", ".join(key.name for key in self._keys if getattr(key, what) in twice)
                raise ValueError(f"two keys have the same {'value' if what == 'digest' else what}: {names}")
        self._in_use: Counter[tuple[str, str]] = Counter()
        self._uploads: dict[str, deque[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def has_admin(self) -> bool:
        """Whether any key may load and unload models."""
        return any(key.admin for key in self._keys)

    def find(self, presented: str) -> Key | None:
        """The key that somebody presents."""
        if not self._keys:
            return NOBODY
        digest, found = digest_of(presented), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    @contextlib.contextmanager
    def use(self, key: Key, what: str, count: int = 1) -> Iterator[None]:
        """Count some of a key's ``connections`` or ``streams`` while they last.

        Raises:
            KeyLimited: it would have more than it may.
        """
        most, counted = getattr(key, what), (key.name, what)
        there = self._in_use[counted]
        if most is not None and there + count > most:
            raise KeyLimited(
                f"the key '{key.name}' has {there} {what} open and may have {most}, so {count} more cannot be; "
                "close some first"
            )
        self._in_use[counted] += count
        try:
            yield
        finally:
            self._in_use[counted] -= count

    def upload(self, key: Key) -> None:
        """Count an upload.

        Raises:
            KeyLimited: there were as many in the last minute as there may be.
        """
        if key.uploads_a_minute is None:
            return
        now, times = self._clock(), self._uploads.setdefault(key.name, deque())
        while times and now - times[0] >= 60:
            times.popleft()
        if len(times) >= key.uploads_a_minute:
            wait_s = 60 - (now - times[0])
            raise KeyLimited(
                f"the key '{key.name}' may send {key.uploads_a_minute} files a minute; try again in {wait_s:.0f} s"
            )
        times.append(now)


def digest_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def checked_key(key: str) -> str:
    """A key as clients can present it.

    Raises:
        ValueError: it is not printable ASCII, as HTTP headers are.
    """
    if not (key.isascii() and key.isprintable() and key):
        raise ValueError("the token has to be printable ASCII, as HTTP headers are")
    return key


def read_keys(file: Path) -> list[Key]:
    """The keys of a YAML file: a list of names with a ``key`` or its ``sha256``, and the limits of `Key`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none of keys; the message names the file and the key, never its value.
    """
    import yaml

    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, at most {LARGEST} are read")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise ValueError(f"{file} is not YAML") from error  # what the parser says may show a key
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file}: expected a list of keys, each with a name and a key")
    try:
        return [_key(entry, f"key {number}") for number, entry in enumerate(entries, 1)]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _key(entry: Any, where: str) -> Key:
    if not isinstance(entry, dict):
        raise OptionError(f"{where}: expected names with values")
    values = dict(entry)
    if ("key" in values) == ("sha256" in values):
        raise OptionError(f"{where}: give either the key or its sha256")
    if "key" in values:
        plain = values.pop("key")
        if not isinstance(plain, str) or len(plain) < SHORTEST:
            raise OptionError(
                f"{where}: a key is a text of at least {SHORTEST} characters; quote it if it has digits only"
            )
        values["digest"] = digest_of(checked_key(plain))
    else:
        values["digest"] = values.pop("sha256")
    if not values.get("name"):
        raise OptionError(f"{where}: has no name")
    if not isinstance(values["digest"], str):
        raise OptionError(f"{where}: sha256 has to be a text")
    return parse_options(Key, values, where)
