"""The native wire protocol, sans-I/O: binary messages are audio, text messages are JSON objects with a ``type``.

Client -> server::

    {"type": "start", "sample_rate": 48000, "channels": 1, "encoding": "pcm16", "model": "…", "token": "…",
     "options": {…}, "output": {"encoding": "opus", "sample_rate": 24000}, "acknowledge": true}
    <binary: samples in that encoding, whole frames, any number of them; of "opus" one packet>
    {"type": "text", "text": "…", "time_s": 1.5}     input of models that take text, in pieces of any kind
    {"type": "flush"}                 end the word under way, and let the text so far come out
    {"type": "marker", "id": "…"}     echoed as an event once all input before it has been processed
    {"type": "configure", "options": {…}}     from the next chunk on, where the model allows it
    {"type": "interrupt", "played_s": 2.5}    stop speaking; answered by the event "interrupted"
    {"type": "finish"}                nothing follows; the rest of the events comes, then "done"

Server -> client::

    {"type": "ready", "stream": …, "model": …, "takes": {…}, "gives": {…}, "limits": {…}, …}
    events (`loquent.speech.runtime.events.Event.to_dict`)
    {"type": "speech", …, "encoding": …, "sample_rate": …, "packets": [bytes of each packet]}
    <binary: the packets of the "speech" before it, in a row>
    {"type": "acknowledged", "position": …}          input processed so far, in samples or characters, if asked for
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
from typing import Any, NoReturn

from loquent.speech.audio.codecs import ENCODINGS, Decoder, decoder
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE
from loquent.speech.net.messages import (
    Action,
    Configure,
    Fail,
    Finish,
    Flush,
    Interrupt,
    Mark,
    Output,
    Samples,
    Start,
    TextPiece,
)

MAX_CHANNELS = 8
MAX_NAME = 128  # characters of a marker id, a model's or an option's name
MAX_OPTIONS = 64
MAX_ITEMS = 1000  # of an option that is a list or an object
MAX_TEXT = 4096  # characters of an option's value, or of a token


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

    Attributes:
        takes: "audio" or "text", once the stream is open: other input is refused.
        start: what the client asked for.
    """

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        self.max_text_bytes, self.max_audio_bytes = max_text_bytes, max_audio_bytes
        self.phase = Phase.WAITING
        self.takes: str | None = None
        self.start = Start()
        self.decoder: Decoder | None = None

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
        match message.get("type"):
            case "start":
                return self._open(message)
            case "text":
                return self._text_piece(message)
            case "flush":
                self._expect(Phase.STREAMING, "'flush'")
                self._expect_port("text", "'flush'")
                _only(message, "flush", {"type"})
                return Flush()
            case "marker":
                self._expect(Phase.STREAMING, "a marker")
                _only(message, "marker", {"type", "id"})
                return Mark(_name(message.get("id"), "the marker's 'id'"))
            case "configure":
                self._expect(Phase.STREAMING, "'configure'")
                _only(message, "configure", {"type", "options"})
                return Configure(_options(message.get("options")))
            case "interrupt":
                if self.phase is not Phase.FINISHING:  # what is still being said may be interrupted
                    self._expect(Phase.STREAMING, "'interrupt'")
                _only(message, "interrupt", {"type", "played_s"})
                return Interrupt(_seconds(message.get("played_s"), "'played_s'"))
            case "finish":
                self._expect(Phase.STREAMING, "'finish'")
                _only(message, "finish", {"type"})
                self.phase = Phase.FINISHING
                return Finish()
            case kind:
                _refuse(f"unknown message type {_shown(kind)}; expected {_KINDS}")

    def _open(self, message: dict[str, Any]) -> Action:
        self._expect(Phase.WAITING, "'start'")
        known = {"type", "sample_rate", "channels", "encoding", "model", "token", "options", "output", "acknowledge"}
        _only(message, "start", known)
        rate = message.get("sample_rate")
        acknowledge = message.get("acknowledge", False)
        if not isinstance(acknowledge, bool):
            _refuse(f"'acknowledge' has to be true or false, got {_shown(acknowledge)}")
        self.start = Start(
            sample_rate=None if rate is None else _integer(rate, "sample_rate", LOWEST_RATE, HIGHEST_RATE),
            channels=_integer(message.get("channels", 1), "channels", 1, MAX_CHANNELS),
            encoding=_encoding(message.get("encoding", "pcm16")),
            model=None if message.get("model") is None else _name(message["model"], "'model'"),
            token=None if message.get("token") is None else _string(message["token"], "'token'", MAX_TEXT),
            options=_options(message.get("options", {})),
            output=_output(message.get("output", {})),
            acknowledge=acknowledge,
        )
        usual = 48_000 if self.start.encoding == "opus" else 16_000
        try:
            self.decoder = decoder(self.start.encoding, self.start.sample_rate or usual, self.start.channels)
        except AudioError as error:
            _refuse(str(error))
        self.phase = Phase.STREAMING
        return self.start

    def _text_piece(self, message: dict[str, Any]) -> Action:
        self._expect(Phase.STREAMING, "text")
        self._expect_port("text", "text")
        _only(message, "text", {"type", "text", "time_s"})
        text = message.get("text")
        if not isinstance(text, str):
            _refuse(f"'text' has to be a string, got {_shown(text)}")
        if text:
            _string(text, "'text'", self.max_text_bytes)
        return TextPiece(text, _seconds(message.get("time_s"), "'time_s'"))

    def _binary(self, data: bytes) -> Action:
        self._expect(Phase.STREAMING, "audio")
        self._expect_port("audio", "audio")
        if len(data) > self.max_audio_bytes:
            raise _Refused(
                "too_large",
                f"got an audio message of {len(data)} bytes, at most {self.max_audio_bytes} are taken; send less",
            )
        assert self.decoder is not None, "made by 'start'"
        try:
            return Samples(self.decoder.decode(data))
        except AudioError as error:
            raise _Refused("bad_audio", str(error)) from error

    def _expect_port(self, kind: str, what: str) -> None:
        if self.takes not in (None, kind):
            other = "binary messages of audio" if self.takes == "audio" else 'messages of type "text"'
            _refuse(f"got {what}, but this model takes {self.takes}; send {other}")

    def _expect(self, phase: Phase, what: str) -> None:
        if self.phase is phase:
            return
        advice = {
            Phase.WAITING: 'send {"type": "start", …} first',
            Phase.STREAMING: "the stream has been started already; open another connection for another stream",
            Phase.FINISHING: "nothing may follow 'finish'; open another connection for more",
        }
        _refuse(f"got {what} while {self.phase.value}; {advice[self.phase]}")


_KINDS = "'start', 'text', 'flush', 'marker', 'configure', 'interrupt' or 'finish'"


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


def _seconds(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        _refuse(f"{what} has to be a number of seconds from 0 on, got {_shown(value)}")
    return float(value)


def _encoding(value: Any) -> str:
    if not isinstance(value, str) or value not in ENCODINGS:
        _refuse(f"'encoding' {_shown(value)} is unknown; expected one of {', '.join(map(repr, ENCODINGS))}")
    return value


def _output(value: Any) -> Output:
    if not isinstance(value, dict):
        _refuse(f"'output' has to be an object, got {_shown(value)}")
    _only(value, "output", {"encoding", "sample_rate"})
    encoding, rate = _encoding(value.get("encoding", "pcm16")), value.get("sample_rate")
    if rate is None:
        return Output(encoding)
    rates = ENCODINGS[encoding].rates
    if rates is not None and rate not in rates:
        _refuse(f"{encoding} cannot have {_shown(rate)} Hz; expected one of {', '.join(map(str, rates))}")
    return Output(encoding, _integer(rate, "output.sample_rate", LOWEST_RATE, HIGHEST_RATE))


def _options(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_OPTIONS:
        _refuse(f"'options' has to be an object of at most {MAX_OPTIONS} entries, got {_shown(value)}")
    for name, option in value.items():
        if not name.isidentifier() or len(name) > MAX_NAME or name in ("sample_rate", "channels", "stream"):
            _refuse(f"{_shown(name)} is no option's name; the audio's format belongs beside 'options', not into it")
        items = list(option.values()) if isinstance(option, dict) else option if isinstance(option, list) else [option]
        if len(items) > MAX_ITEMS:
            _refuse(f"option '{name}' has {len(items)} items; at most {MAX_ITEMS} are taken")
        for key in option if isinstance(option, dict) else ():
            _string(key, f"a name in option '{name}'", MAX_NAME)
        for item in items:
            if isinstance(item, str) and item:
                _string(item, f"option '{name}'", MAX_TEXT)
            elif isinstance(item, float) and not math.isfinite(item):
                _refuse(f"option '{name}' is not a finite number")  # such as 1e999
            elif isinstance(item, int) and abs(item) >= 2**63:
                _refuse(f"option '{name}' does not fit into 64 bits")
            elif not isinstance(item, str | int | float | None):
                kind = "objects" if isinstance(item, dict) else "lists"
                _refuse(
                    f"option '{name}' has to be a string, number, boolean, null, or a list or object of these, "
                    f"not of {kind}"
                )
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
