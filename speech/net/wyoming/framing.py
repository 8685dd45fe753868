r"""Wyoming's events on the wire, sans-I/O: a line of JSON, then as many bytes as it says.

::

    {"type": "…", "data": {…}, "data_length": …, "payload_length": …}\n
    <data_length bytes of JSON, an object whose entries join "data">
    <payload_length bytes, mostly audio>

All but ``type`` may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loquent.speech.net.dialect import MessageRefused, json_object, refuse, shown, string
from loquent.speech.net.protocol import MAX_NAME


@dataclass(frozen=True)
class WyomingEvent:
    """A message, in either direction."""

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """As it is sent; the data follows the line, as clients bound the length of lines."""
        data = json.dumps(self.data).encode() if self.data else b""
        lengths = {"data_length": len(data), "payload_length": len(self.payload)}
        header = {"type": self.type, **{name: length for name, length in lengths.items() if length}}
        return json.dumps(header).encode() + b"\n" + data + self.payload


class Framer:
    """Bytes in, in pieces of any size, and events out.

    What waits is an event that is not complete, and at most one piece more if `take` is called until it returns None.

    Args:
        max_text_bytes: longest line, and longest data after it, in bytes.
        max_payload_bytes: longest payload, in bytes.
    """

    def __init__(self, max_text_bytes: int, max_payload_bytes: int) -> None:
        self.max_text_bytes, self.max_payload_bytes = max_text_bytes, max_payload_bytes
        self._buffer = bytearray()
        self._searched = 0  # bytes that have no end of a line
        self._header: dict[str, Any] | None = None  # of the event under way

    def feed(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data

    def take(self) -> WyomingEvent | None:
        """The next event, if it is there.

        Raises:
            MessageRefused: it is none, or too long; nothing that follows can be told apart.
        """
        if self._header is None:
            line = self._line()
            if line is None:
                return None
            self._header = self._checked(json_object(_decoded(line)))
        header = self._header
        data_length, payload_length = header["data_length"], header["payload_length"]
        if len(self._buffer) < data_length + payload_length:
            return None
        data = header["data"]
        if data_length:
            data = {**data, **json_object(_decoded(self._cut(data_length)))}
        self._header = None
        return WyomingEvent(header["type"], data, self._cut(payload_length))

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if max(end, len(self._buffer) if end < 0 else 0) > self.max_text_bytes:
            raise MessageRefused(f"the line of an event may have {self.max_text_bytes} bytes", "too_large")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        self._searched = 0
        return self._cut(end + 1)

    def _cut(self, length: int) -> bytes:
        cut = bytes(self._buffer[:length])
        del self._buffer[:length]
        return cut

    def _checked(self, header: dict[str, Any]) -> dict[str, Any]:
        data = header.get("data")
        if not isinstance(data, dict | None):
            refuse(f"'data' has to be an object, got {shown(data)}")
        return {
            "type": string(header.get("type"), "the 'type' of an event", MAX_NAME),
            "data": data or {},
            "data_length": _length(header.get("data_length"), "data_length", self.max_text_bytes),
            "payload_length": _length(header.get("payload_length"), "payload_length", self.max_payload_bytes),
        }


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MessageRefused(f"expected a line of JSON in UTF-8, got {data[:20]!r}: {error.reason}") from error


def _length(value: Any, name: str, most: int) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(f"'{name}' has to be a number of bytes, got {shown(value)}")
    if value > most:
        raise MessageRefused(f"'{name}' may be {most}, got {shown(value)}; send less at a time", "too_large")
    return value
