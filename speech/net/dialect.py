"""What a websocket speaks, sans-I/O: messages in, actions out, and what is to be told as messages."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, NoReturn, Protocol

from loquent.speech.audio.codecs import Decoder, decoder
from loquent.speech.audio.errors import AudioError
from loquent.speech.net.messages import Action, Fail, Samples, Start
from loquent.speech.runtime.events import Event


class Phase(enum.Enum):
    """Where a connection is in its life."""

    WAITING = "waiting for start"
    STREAMING = "streaming"
    FINISHING = "finishing"
    CLOSED = "closed"


class MessageRefused(Exception):
    """A message that is not what it should be; ``code`` is one of `messages.CLOSE_CODES`."""

    def __init__(self, message: str, code: str = "bad_message") -> None:
        super().__init__(message)
        self.code = code


class Socket(Protocol):
    """What a connection uses of Starlette's `WebSocket`, for what stands in for one."""

    scope: MutableMapping[str, Any]

    @property
    def query_params(self) -> Mapping[str, str]:
        """Of the URL."""

    async def accept(self) -> None:
        """Begin."""

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message, as in ASGI."""

    async def send_text(self, data: str) -> None:
        """Send a text message; raises `WebSocketDisconnect` if the client is gone."""

    async def send_bytes(self, data: bytes) -> None:
        """Likewise, a binary one."""

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Say that nothing follows."""


class Dialect:
    """The server's end of one connection. Whatever comes in, nothing is raised.

    Subclasses say what the messages mean (`_query`, `_message`, `_audio`) and how events are told (`told`).

    Args:
        max_text_bytes: longest text message, in bytes of UTF-8.
        max_audio_bytes: longest binary message, in bytes.

    Attributes:
        takes: "audio" or "text", once the stream is open: other input is refused.
        start: what the client asked for.
        offset_s: seconds of audio before the stream, if it goes on after another one (see `messages.Renew`).
        foreign_models: beginnings of the names that the models of the protocol's own service have; they stand for the
            server's first model, unless it has that name, or an alias.
        may_wait: whether a client may wait with the start of a stream as long as with any other message.
        carries_speech: whether streams may speak.
    """

    foreign_models: ClassVar[tuple[str, ...]] = ()
    may_wait = carries_speech = False

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        self.max_text_bytes, self.max_audio_bytes = max_text_bytes, max_audio_bytes
        self.phase = Phase.WAITING
        self.takes: str | None = None
        self.start = Start()
        self.offset_s = 0.0
        self.decoder: Decoder | None = None

    def receive_query(self, query: Mapping[str, str]) -> list[Action]:
        """Take the parameters of the URL."""
        return self._guarded(self._query, query)

    def receive(self, message: Mapping[str, Any]) -> list[Action]:
        """Take a message, as in ASGI."""
        text = message.get("text")
        return self.receive_binary(message["bytes"]) if text is None else self.receive_text(text)

    def receive_text(self, text: str) -> list[Action]:
        """Take a text message."""
        return self._guarded(self._text, text)

    def receive_binary(self, data: bytes) -> list[Action]:
        """Take a binary message."""
        return self._guarded(self._binary, data)

    def fail(self, code: str, message: str) -> Fail:
        """End the connection for a reason outside of the protocol; ``code`` is one of `messages.CLOSE_CODES`."""
        self.phase = Phase.CLOSED
        return Fail(code, message)

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """The messages by which the client is told of an event, or of something that is not one.

        Args:
            message: an event, or what `Connection` says besides, in the native protocol: "ready", "acknowledged",
                "renewed", "failure" and "done". After `messages.Speak`: "speaking", "said" with an "event" that is no
                `Speech`, and "spoken" once all has been sent; or "unspoken" with "code" and "message".
        """
        raise NotImplementedError

    def spoken(self, speech: Mapping[str, Any], packets: bytes) -> Sequence[str | bytes]:
        """The messages by which the client is sent speech.

        Args:
            speech: the event with the form of its packets, in the native protocol.
        """
        return json.dumps(speech), packets

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        return []

    def _message(self, message: dict[str, Any]) -> Sequence[Action]:
        raise NotImplementedError

    def _audio(self, data: bytes) -> Sequence[Action]:
        return [self._samples(data)]

    def _opened(self, start: Start) -> Start:
        """Take up what the client asks for; the stream is open."""
        usual = 48_000 if start.encoding == "opus" else 16_000
        try:
            self.decoder = decoder(start.encoding, start.sample_rate or usual, start.channels)
        except AudioError as error:
            raise MessageRefused(str(error)) from error
        self.start, self.phase = start, Phase.STREAMING
        return start

    def _samples(self, data: bytes) -> Samples:
        assert self.decoder is not None, "made by `_opened`"
        try:
            return Samples(self.decoder.decode(data))
        except AudioError as error:
            raise MessageRefused(str(error), "bad_audio") from error

    def _guarded(self, receive: Callable[[Any], Sequence[Action]], message: Any) -> list[Action]:
        if self.phase is Phase.CLOSED:
            return []
        try:
            return list(receive(message))
        except MessageRefused as refusal:
            return [self.fail(refusal.code, str(refusal))]

    def _text(self, text: str) -> Sequence[Action]:
        # A character takes at least one byte: the first test spares encoding what is far too long.
        if len(text) > self.max_text_bytes or len(text.encode(errors="replace")) > self.max_text_bytes:
            most = f"a text message may have {self.max_text_bytes} bytes; audio goes in binary"
            raise MessageRefused(most, "too_large")
        return self._message(json_object(text))

    def _binary(self, data: bytes) -> Sequence[Action]:
        if len(data) > self.max_audio_bytes:
            raise MessageRefused(
                f"got an audio message of {len(data)} bytes, at most {self.max_audio_bytes} are taken; send less",
                "too_large",
            )
        return self._audio(data)


def json_object(text: str) -> dict[str, Any]:
    """Parse a message.

    Raises:
        MessageRefused: it is no JSON object.
    """
    try:
        message = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        refuse(f"expected a JSON object, got {shown(text)}: {error}")
    if not isinstance(message, dict):
        refuse(f"expected a JSON object, got {shown(message)}")
    return message


def refuse(message: str) -> NoReturn:
    """Refuse a message.

    Raises:
        MessageRefused: always.
    """
    raise MessageRefused(message)


def integer(value: Any, name: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        refuse(f"'{name}' has to be an integer from {low} to {high}, got {shown(value)}")
    return value


def string(value: Any, what: str, longest: int) -> str:
    """A text that is not empty, and could be sent again."""
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        refuse(f"{what} has to be a string of 1 to {longest} characters, got {shown(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        refuse(f"{what} has half of a surrogate pair: {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as it appears in a message: short, printable."""
    # Only the start is formatted, as what was sent may be long; containers are named by kind.
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    if isinstance(value, str):
        return ascii(value) if len(value) <= 60 else f"{value[:60]!a}… ({len(value)} characters)"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "an integer of more than 64 bits"
    return json.dumps(value)


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
