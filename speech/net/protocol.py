"""The native wire protocol, sans-I/O: binary messages are PCM, text messages are JSON objects with a ``type``.

Client -> server::

    {"type": "start", "sample_rate": 48000, "channels": 1, "encoding": "pcm16",
     "model": "…", "token": "…", "options": {…}}
    <binary: interleaved little-endian samples, whole frames, any number of them>
    {"type": "marker", "id": "…"}     echoed as an event once all audio before it has been processed
    {"type": "configure", "options": {…}}     from the next chunk on, where the model allows it
    {"type": "finish"}                nothing follows; the rest of the events comes, then "done"

Server -> client::

    {"type": "ready", "stream": …, "sample_rate": …, "model": …, "limits": {…}}
    events (`loquent.speech.runtime.events.Event.to_dict`)
    {"type": "failure", "code": …, "message": …}     and the connection is closed with the code in `CLOSE_CODES`
    {"type": "done"}                                  and the connection is closed with 1000

All fields of "start" but ``type`` are optional. Instead of sending it, a client may put ``sample_rate``, ``channels``,
``encoding`` and ``model`` into the query of the URL.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import numpy as np

from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE

CLOSE_CODES = {
    "bad_message": 1007,  # not JSON, unknown type, wrong field, wrong order
    "bad_audio": 1007,  # a cut frame, NaN
    "too_large": 1009,  # a message longer than the limits in "ready"
    "bad_options": 1008,  # the model does not take these options
    "unknown_model": 1008,
    "unauthorized": 1008,
    "handshake_timeout": 1008,  # no "start" in time
    "idle_timeout": 1008,  # neither audio nor messages for too long
    "too_long": 1008,  # the stream reached its longest duration
    "slow_reader": 1008,  # the client does not read its events
    "busy": 1013,  # all streams are taken: try again later
    "overloaded": 1013,  # the server cannot keep up with the audio
    "shutting_down": 1001,
    "internal": 1011,
}
ENCODINGS: dict[str, np.dtype[Any]] = {"pcm16": np.dtype("<i2"), "float32": np.dtype("<f4")}
MAX_CHANNELS = 8
MAX_NAME = 128  # characters of a marker id, a model's or an option's name
MAX_OPTIONS = 64
MAX_ITEMS = 1000  # of an option that is a list
MAX_TEXT = 4096  # characters of an option's value, or of a token


@dataclass(frozen=True)
class Start:
    """Open a stream."""

    sample_rate: int | None = None  # Hz; None: the model's own
    channels: int = 1
    encoding: str = "pcm16"
    model: str | None = None  # None: the server's first
    token: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The message a client sends; fields left to their defaults are left out."""
        values = {name: value for name, value in vars(self).items() if value is not None and value != {}}
        return {"type": "start"} | values


@dataclass(frozen=True)
class Audio:
    """Samples (frames, channels), int16 or float32."""

    samples: np.ndarray


@dataclass(frozen=True)
class Mark:
    """Echo ``id`` once everything before it has been processed."""

    id: str


@dataclass(frozen=True)
class Configure:
    """Change options of the stream under way."""

    options: Mapping[str, Any]


@dataclass(frozen=True)
class Finish:
    """End the stream."""


@dataclass(frozen=True)
class Fail:
    """Send the failure and close; nothing more is accepted."""

    code: str
    message: str

    @property
    def close_code(self) -> int:
        """WebSocket close code (RFC 6455, section 7.4)."""
        return CLOSE_CODES[self.code]

    def to_dict(self) -> dict[str, Any]:
        """The message a server sends."""
        return {"type": "failure", "code": self.code, "message": self.message}


Action: TypeAlias = Start | Audio | Mark | Configure | Finish | Fail


class Phase(enum.Enum):
    """Where a connection is in its life."""

    WAITING = "waiting for start"
    STREAMING = "streaming"
    FINISHING = "finishing"
    CLOSED = "closed"


class ServerProtocol:
    """The server's end of one connection: messages in, actions out. Whatever comes in, nothing is raised.

    Args:
        max_text_bytes: longest text message, in bytes of UTF-8.
        max_audio_bytes: longest binary message, in bytes.
    """

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        self.max_text_bytes, self.max_audio_bytes = max_text_bytes, max_audio_bytes
        self.phase = Phase.WAITING
        self._start = Start()

    def receive_query(self, query: Mapping[str, str]) -> list[Action]:
        """Take the parameters of the URL; they stand for "start" when any of its fields is among them."""
        fields = {name: query[name] for name in ("sample_rate", "channels", "encoding", "model") if name in query}
        if not fields:
            return []
        message: dict[str, Any] = {"type": "start", **fields}
        for name in fields.keys() & {"sample_rate", "channels"}:
            # A text that is no number is kept, for the check to name it.
            if fields[name].isascii() and fields[name].isdigit() and len(fields[name]) < 10:
                message[name] = int(fields[name])
        return self._guarded(self._message, message)

    def receive_text(self, text: str) -> list[Action]:
        """Take a text message."""
        return self._guarded(self._text, text)

    def receive_binary(self, data: bytes) -> list[Action]:
        """Take a binary message."""
        return self._guarded(self._binary, data)

    def fail(self, code: str, message: str) -> Fail:
        """End the connection for a reason outside of the protocol; ``code`` is one of `CLOSE_CODES`."""
        self.phase = Phase.CLOSED
        return Fail(code, message)

    def _guarded(self, receive: Any, message: Any) -> list[Action]:
        if self.phase is Phase.CLOSED:
            return []
        try:
            return [receive(message)]
        except _Refused as refusal:
            return [self.fail(refusal.code, str(refusal))]

    def _text(self, text: str) -> Action:
        # A character takes at least one byte: the first test spares encoding what is far too long.
        if len(text) > self.max_text_bytes or len(text.encode(errors="replace")) > self.max_text_bytes:
            raise _Refused("too_large", f"a text message may have {self.max_text_bytes} bytes; audio goes in binary")
        try:
            message = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            _refuse(f"expected a JSON object, got {_shown(text)}: {error}")
        if not isinstance(message, dict):
            _refuse(f"expected a JSON object with a 'type', got {_shown(message)}")
        return self._message(message)

    def _message(self, message: dict[str, Any]) -> Action:
        kind = message.get("type")
        if kind == "start":
            return self._open(message)
        if kind == "marker":
            self._expect(Phase.STREAMING, "a marker")
            _only(message, "marker", {"type", "id"})
            return Mark(_name(message.get("id"), "the marker's 'id'"))
        if kind == "configure":
            self._expect(Phase.STREAMING, "'configure'")
            _only(message, "configure", {"type", "options"})
            return Configure(_options(message.get("options")))
        if kind == "finish":
            self._expect(Phase.STREAMING, "'finish'")
            _only(message, "finish", {"type"})
            self.phase = Phase.FINISHING
            return Finish()
        _refuse(f"unknown message type {_shown(kind)}; expected 'start', 'marker', 'configure' or 'finish'")

    def _open(self, message: dict[str, Any]) -> Action:
        self._expect(Phase.WAITING, "'start'")
        _only(message, "start", {"type", "sample_rate", "channels", "encoding", "model", "token", "options"})
        encoding = message.get("encoding", "pcm16")
        if not isinstance(encoding, str) or encoding not in ENCODINGS:
            _refuse(f"'encoding' {_shown(encoding)} is unknown; expected 'pcm16' (little-endian int16) or 'float32'")
        rate = message.get("sample_rate")
        self._start = Start(
            sample_rate=None if rate is None else _integer(rate, "sample_rate", LOWEST_RATE, HIGHEST_RATE),
            channels=_integer(message.get("channels", 1), "channels", 1, MAX_CHANNELS),
            encoding=encoding,
            model=None if message.get("model") is None else _name(message["model"], "'model'"),
            token=None if message.get("token") is None else _string(message["token"], "'token'", MAX_TEXT),
            options=_options(message.get("options", {})),
        )
        self.phase = Phase.STREAMING
        return self._start

    def _binary(self, data: bytes) -> Action:
        self._expect(Phase.STREAMING, "audio")
        if len(data) > self.max_audio_bytes:
            raise _Refused(
                "too_large",
                f"got an audio message of {len(data)} bytes, at most {self.max_audio_bytes} are taken; send less",
            )
        dtype, channels = ENCODINGS[self._start.encoding], self._start.channels
        frame = dtype.itemsize * channels
        if len(data) % frame:
            raise _Refused(
                "bad_audio",
                f"got an audio message of {len(data)} bytes; expected a multiple of {frame} "
                f"({self._start.encoding}, {channels} channels): send whole frames, without a file header",
            )
        samples = np.frombuffer(data, dtype).reshape(-1, channels)
        # A magnitude beyond this is not audio, and its power would overflow.
        if samples.dtype.kind == "f" and not np.all(np.abs(samples) <= 1e4):
            raise _Refused("bad_audio", "expected float32 samples in about [-1, 1], got others; divide int16 by 32768")
        return Audio(samples)

    def _expect(self, phase: Phase, what: str) -> None:
        if self.phase is phase:
            return
        advice = {
            Phase.WAITING: 'send {"type": "start", "sample_rate": …} first',
            Phase.STREAMING: "the stream has been started already; open another connection for another stream",
            Phase.FINISHING: "nothing may follow 'finish'; open another connection for more audio",
        }
        _refuse(f"got {what} while {self.phase.value}; {advice[self.phase]}")


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _refuse(message: str) -> NoReturn:
    raise _Refused("bad_message", message)


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _only(message: dict[str, Any], kind: str, known: set[str]) -> None:
    if unknown := message.keys() - known:
        _refuse(f"unknown field {_shown(min(unknown))} in '{kind}'; expected {', '.join(sorted(known))}")


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _refuse(f"'{name}' has to be an integer from {low} to {high}, got {_shown(value)}")
    return value


def _string(value: Any, what: str, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        _refuse(f"{what} has to be a string of 1 to {longest} characters, got {_shown(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        _refuse(f"{what} has half of a surrogate pair: {_shown(value)}")
    return value


def _name(value: Any, what: str) -> str:
    return _string(value, what, MAX_NAME)


def _options(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_OPTIONS:
        _refuse(f"'options' has to be an object of at most {MAX_OPTIONS} entries, got {_shown(value)}")
    for name, option in value.items():
        if not name.isidentifier() or len(name) > MAX_NAME or name in ("sample_rate", "channels", "stream"):
            _refuse(f"{_shown(name)} is no option's name; the audio's format belongs beside 'options', not into it")
        items = option if isinstance(option, list) else [option]
        if len(items) > MAX_ITEMS:
            _refuse(f"option '{name}' has {len(items)} items; at most {MAX_ITEMS} are taken")
        for item in items:
            if isinstance(item, str) and item:
                _string(item, f"option '{name}'", MAX_TEXT)
            elif isinstance(item, float) and not math.isfinite(item):
                _refuse(f"option '{name}' is not a finite number")  # such as 1e999
            elif isinstance(item, int) and abs(item) >= 2**63:
                _refuse(f"option '{name}' does not fit into 64 bits")
            elif not isinstance(item, str | int | float | None):
                kind = "an object" if isinstance(item, dict) else "a list of lists"
                _refuse(f"option '{name}' has to be a string, number, boolean, null or list of these, not {kind}")
    return value


def _shown(value: Any) -> str:
    """A value as it appears in a message: short, printable."""
    # Only the start is formatted, as what was sent may be long; containers are named by kind.
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    if isinstance(value, str):
        return ascii(value) if len(value) <= 60 else f"{value[:60]!a}… ({len(value)} characters)"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "an integer of more than 64 bits"
    return json.dumps(value)
