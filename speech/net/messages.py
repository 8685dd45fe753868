"""The messages of the native protocol as values: what a client asks for, and how a server refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np

CLOSE_CODES = {
    "bad_message": 1007,  # not JSON, unknown type, wrong field, wrong order
    "bad_audio": 1007,  # a cut frame, NaN, what is no Opus packet
    "bad_text": 1007,  # a time that goes back
    "too_large": 1009,  # a message longer than the limits in "ready"
    "bad_options": 1008,  # the model does not take these options
    "unknown_model": 1008,
    "unknown_session": 1008,  # there is none of this token and key, or not any more
    "moved": 1008,  # the session goes on over another connection
    "unauthorized": 1008,
    "handshake_timeout": 1008,  # no "start" in time
    "idle_timeout": 1008,  # neither input nor messages for too long
    "too_long": 1008,  # the stream reached its longest duration
    "slow_reader": 1008,  # the client does not read its events
    "busy": 1013,  # all streams are taken: try again later
    "overloaded": 1013,  # the server cannot keep up with the input
    "shutting_down": 1001,
    "restarting": 1012,  # the session waits: resume it
    "internal": 1011,
}


@dataclass(frozen=True)
class Output:
    """How speech travels to the client.

    encoding:    one of `codecs.ENCODINGS`.
    sample_rate: in Hz; None: the model's own, or the next one that the encoding can have.
    """

    encoding: str = "pcm16"
    sample_rate: int | None = None


@dataclass(frozen=True)
class Start:
    """Open a stream."""

    sample_rate: int | None = None  # Hz; None: the model's own
    channels: int = 1
    encoding: str = "pcm16"
    model: str | None = None  # None: the server's first
    token: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    output: Output = Output()
    acknowledge: bool = False  # tell how much of the input has been processed
    multichannel: bool = False  # every channel is a stream of its own; else they are mixed
    resumable: bool = False  # keep the stream when the connection is lost

    @property
    def streams(self) -> int:
        """How many it asks for."""
        return self.channels if self.multichannel else 1

    def to_dict(self) -> dict[str, Any]:
        """The message a client sends; fields left to their defaults are left out."""
        values = {name: value for name, value in vars(self).items() if value is not None and value != {}}
        if self.output == Output():
            del values["output"]
        else:
            values["output"] = {name: value for name, value in asdict(self.output).items() if value is not None}
        for name in ("acknowledge", "multichannel", "resumable"):
            if not values[name]:
                del values[name]
        return {"type": "start"} | values


@dataclass(frozen=True)
class Resume:
    """Go on with a stream; ``received``: by source, how many of its events the client has."""

    session: str = field(repr=False)
    received: Mapping[str, int]
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Acknowledge:
    """The client has so many events of each stage, and they need not be kept for it."""

    received: Mapping[str, int]


@dataclass(frozen=True)
class Samples:
    """Audio: (frames, channels), int16 or float32."""

    samples: np.ndarray


@dataclass(frozen=True)
class TextPiece:
    """Text, and the time in seconds of the speech that it stands for."""

    text: str
    time_s: float | None = None


@dataclass(frozen=True)
class Flush:
    """Let the text so far come to its end without waiting for more."""


@dataclass(frozen=True)
class Interrupt:
    """Stop speaking; ``played_s`` seconds of the stream's speech were heard (None: all that was sent)."""

    played_s: float | None = None


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


@dataclass(frozen=True)
class Renew:
    """Let what was heard so far come out, and go on with a stream that knows nothing of it."""


@dataclass(frozen=True)
class Say:
    """Tell the client something, once everything before has been taken."""

    message: Mapping[str, Any]


@dataclass(frozen=True)
class Speak:
    """Say a text in one of the server's voices, beside the stream; an `Interrupt` is then about this speech."""

    start: Start
    text: str


Action: TypeAlias = (
    Start
    | Resume
    | Acknowledge
    | Samples
    | TextPiece
    | Flush
    | Interrupt
    | Mark
    | Configure
    | Renew
    | Say
    | Speak
    | Finish
    | Fail
)
