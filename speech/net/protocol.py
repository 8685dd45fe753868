"""The native wire protocol, sans-I/O: binary messages are audio, text messages are JSON objects with a ``type``.

Client -> server::

    {"type": "start", "sample_rate": 48000, "channels": 1, "encoding": "pcm16", "model": "…", "token": "…",
     "options": {…}, "output": {"encoding": "opus", "sample_rate": 24000}, "acknowledge": true,
     "multichannel": false}
    <binary: samples in that encoding, whole frames, any number of them; of "opus" one packet>
    {"type": "text", "text": "…", "time_s": 1.5}     input of models that take text, in pieces of any kind
    {"type": "flush"}                 end the word under way, and let the text so far come out
    {"type": "marker", "id": "…"}     echoed as an event once all input before it has been processed
    {"type": "configure", "options": {…}}     from the next chunk on, where the model allows it
    {"type": "interrupt", "played_s": 2.5}    stop speaking; answered by the event "interrupted"
    {"type": "finish"}                nothing follows; the rest of the events comes, then "done"
    {"type": "resume", "session": "…", "received": 12, "token": "…"}     instead of "start": go on with a stream
    {"type": "acknowledge", "received": 12}     events of the stream that need not be kept for this client

Server -> client::

    {"type": "ready", "stream": …, "model": …, "takes": {…}, "gives": {…}, "limits": {…}, …}
    events (`loquent.speech.runtime.events.Event.to_dict`)
    {"type": "speech", …, "encoding": …, "sample_rate": …, "packets": [bytes of each packet]}
    <binary: the packets of the "speech" before it, in a row>
    {"type": "acknowledged", "position": …}          input processed so far, in samples or characters, if asked for
    {"type": "saved", "position": …, "messages": …}  input that need not be sent again, of a stream that can be resumed
    {"type": "failure", "code": …, "message": …}     and the connection is closed with the code in `CLOSE_CODES`
    {"type": "done"}                                  and the connection is closed with 1000

All fields of "start" but ``type`` are optional. Instead of sending it, a client may put ``sample_rate``, ``channels``,
``encoding`` and ``model`` into the query of the URL.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from loquent.speech.audio.codecs import ENCODINGS
from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE
from loquent.speech.net.dialect import Dialect, Phase, integer, refuse, shown, string
from loquent.speech.net.messages import (
    Acknowledge,
    Action,
    Configure,
    Finish,
    Flush,
    Interrupt,
    Mark,
    Output,
    Resume,
    Start,
    TextPiece,
)
from loquent.speech.runtime.events import Event

MAX_CHANNELS = 8
MAX_NAME = 128  # characters of a marker id, a model's or an option's name
MAX_OPTIONS = 64
MAX_ITEMS = 1000  # of an option that is a list or an object
MAX_SOURCES = 16  # of events: stages of a pipeline, of each channel
MAX_TEXT = 4096  # characters of an option's value, or of a token
_NO_OPTIONS = ("sample_rate", "channels", "multichannel", "stream")


class ServerProtocol(Dialect):
    """The server's end of one connection: messages in, actions out. Whatever comes in, nothing is raised."""

    carries_speech = True

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """One JSON object; in ASCII, as half a surrogate pair could not be sent as UTF-8."""
        return [json.dumps(message.to_dict() if isinstance(message, Event) else message)]

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        """The parameters of the URL stand for "start" when any of its fields is among them."""
        fields = {name: query[name] for name in ("sample_rate", "channels", "encoding", "model") if name in query}
        if not fields:
            return []
        message: dict[str, Any] = {"type": "start", **fields}
        for name in fields.keys() & {"sample_rate", "channels"}:
            # A text that is no number is kept, for the check to name it.
            if fields[name].isascii() and fields[name].isdigit() and len(fields[name]) < 10:
                message[name] = int(fields[name])
        return self._message(message)

    def _message(self, message: dict[str, Any]) -> Sequence[Action]:
        return [self._action(message)]

    def _action(self, message: dict[str, Any]) -> Action:
        match message.get("type"):
            case "start":
                return self._open(message)
            case "resume":
                self._expect(Phase.WAITING, "'resume'")
                _only(message, "resume", {"type", "session", "received", "token"})
                token = None if message.get("token") is None else string(message["token"], "'token'", MAX_TEXT)
                return Resume(_name(message.get("session"), "'session'"), _received(message.get("received", 0)), token)
            case "acknowledge":
                if self.phase is not Phase.FINISHING:
                    self._expect(Phase.STREAMING, "'acknowledge'")
                _only(message, "acknowledge", {"type", "received"})
                return Acknowledge(_received(message.get("received")))
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
                refuse(f"unknown message type {shown(kind)}; expected {_KINDS}")

    def _open(self, message: dict[str, Any]) -> Action:
        self._expect(Phase.WAITING, "'start'")
        _only(message, "start", {"type", *(field.name for field in dataclasses.fields(Start))})
        rate = message.get("sample_rate")
        start = Start(
            sample_rate=None if rate is None else integer(rate, "sample_rate", LOWEST_RATE, HIGHEST_RATE),
            channels=integer(message.get("channels", 1), "channels", 1, MAX_CHANNELS),
            encoding=_encoding(message.get("encoding", "pcm16")),
            model=None if message.get("model") is None else _name(message["model"], "'model'"),
            token=None if message.get("token") is None else string(message["token"], "'token'", MAX_TEXT),
            options=_options(message.get("options", {})),
            output=_output(message.get("output", {})),
            acknowledge=_truth(message, "acknowledge"),
            multichannel=_truth(message, "multichannel"),
            resumable=_truth(message, "resumable"),
        )
        if start.resumable and start.encoding == "opus":
            refuse("a stream of Opus cannot be resumed, as its decoder cannot; send pcm16, float32 or mulaw")
        return self._opened(start)

    def _text_piece(self, message: dict[str, Any]) -> Action:
        self._expect(Phase.STREAMING, "text")
        self._expect_port("text", "text")
        _only(message, "text", {"type", "text", "time_s"})
        text = message.get("text")
        if not isinstance(text, str):
            refuse(f"'text' has to be a string, got {shown(text)}")
        if text:
            string(text, "'text'", self.max_text_bytes)
        return TextPiece(text, _seconds(message.get("time_s"), "'time_s'"))

    def _audio(self, data: bytes) -> Sequence[Action]:
        self._expect(Phase.STREAMING, "audio")
        self._expect_port("audio", "audio")
        return [self._samples(data)]

    def _expect_port(self, kind: str, what: str) -> None:
        if self.takes not in (None, kind):
            other = "binary messages of audio" if self.takes == "audio" else 'messages of type "text"'
            refuse(f"got {what}, but this model takes {self.takes}; send {other}")

    def _expect(self, phase: Phase, what: str) -> None:
        if self.phase is phase:
            return
        advice = {
            Phase.WAITING: 'send {"type": "start", …} first',
            Phase.STREAMING: "the stream has been started already; open another connection for another stream",
            Phase.FINISHING: "nothing may follow 'finish'; open another connection for more",
        }
        refuse(f"got {what} while {self.phase.value}; {advice[self.phase]}")


_KINDS = "'start', 'text', 'flush', 'marker', 'configure', 'interrupt', 'finish', 'resume' or 'acknowledge'"


def _only(message: dict[str, Any], kind: str, known: set[str]) -> None:
    if unknown := message.keys() - known:
        refuse(f"unknown field {shown(min(unknown))} in '{kind}'; expected {', '.join(sorted(known))}")


def _name(value: Any, what: str) -> str:
    return string(value, what, MAX_NAME)


def _received(value: Any) -> dict[str, int]:
    """Numbers of events by source; of a stream that is its only source, a number alone."""
    values = value if isinstance(value, dict) else {"": value}
    if len(values) > MAX_SOURCES or any(len(source) > MAX_NAME for source in values):
        refuse(f"'received' has at most {MAX_SOURCES} numbers, by names of at most {MAX_NAME} characters")
    return {source: integer(count, "received", 0, 2**44) for source, count in values.items()}


def _seconds(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        refuse(f"{what} has to be a number of seconds from 0 on, got {shown(value)}")
    return float(value)


def _truth(message: dict[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if not isinstance(value, bool):
        refuse(f"'{name}' has to be true or false, got {shown(value)}")
    return value


def _encoding(value: Any) -> str:
    if not isinstance(value, str) or value not in ENCODINGS:
        refuse(f"'encoding' {shown(value)} is unknown; expected one of {', '.join(map(repr, ENCODINGS))}")
    return value


def _output(value: Any) -> Output:
    if not isinstance(value, dict):
        refuse(f"'output' has to be an object, got {shown(value)}")
    _only(value, "output", {"encoding", "sample_rate"})
    encoding, rate = _encoding(value.get("encoding", "pcm16")), value.get("sample_rate")
    if rate is None:
        return Output(encoding)
    rates = ENCODINGS[encoding].rates
    if rates is not None and rate not in rates:
        refuse(f"{encoding} cannot have {shown(rate)} Hz; expected one of {', '.join(map(str, rates))}")
    return Output(encoding, integer(rate, "output.sample_rate", LOWEST_RATE, HIGHEST_RATE))


def _options(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_OPTIONS:
        refuse(f"'options' has to be an object of at most {MAX_OPTIONS} entries, got {shown(value)}")
    for name, option in value.items():
        if not name.isidentifier() or len(name) > MAX_NAME or name in _NO_OPTIONS:
            refuse(f"{shown(name)} is no option's name; the audio's format belongs beside 'options', not into it")
        items = list(option.values()) if isinstance(option, dict) else option if isinstance(option, list) else [option]
        if len(items) > MAX_ITEMS:
            refuse(f"option '{name}' has {len(items)} items; at most {MAX_ITEMS} are taken")
        for key in option if isinstance(option, dict) else ():
            string(key, f"a name in option '{name}'", MAX_NAME)
        for item in items:
            if isinstance(item, str) and item:
                string(item, f"option '{name}'", MAX_TEXT)
            elif isinstance(item, float) and not math.isfinite(item):
                refuse(f"option '{name}' is not a finite number")  # such as 1e999
            elif isinstance(item, int) and abs(item) >= 2**63:
                refuse(f"option '{name}' does not fit into 64 bits")
            elif not isinstance(item, str | int | float | None):
                kind = "objects" if isinstance(item, dict) else "lists"
                refuse(
                    f"option '{name}' has to be a string, number, boolean, null, or a list or object of these, "
                    f"not of {kind}"
                )
    return value
