"""OpenAI's Realtime protocol, transcription sessions: ``WS /v1/realtime?intent=transcription``.

Client: ``session.update`` with a session of type "transcription", ``input_audio_buffer.append`` (base64), ``.commit``
and ``.clear``. Server: ``session.created`` and ``.updated``, ``input_audio_buffer.speech_started``,
``.speech_stopped`` and ``.committed``, ``conversation.item.input_audio_transcription.delta`` and ``.completed``,
``error``.

The stream begins with the first audio. Its deltas are committed words, so they come while an item is being spoken,
before it is "committed" in the sense of the protocol. With ``turn_detection`` an item ends where the recogniser ends an
utterance; without it, and whenever a client likes, ``commit`` ends it. A wrong message is answered by ``error``, and
the connection stays.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loquent.speech.net.dialect import Dialect, MessageRefused, Phase, refuse, shown, string
from loquent.speech.net.messages import Action, Renew, Say, Start
from loquent.speech.net.models import OPENAI_MODELS
from loquent.speech.net.protocol import MAX_NAME, MAX_TEXT
from loquent.speech.runtime.events import Endpoint, Event, Word

FORMATS = {"audio/pcm": ("pcm16", 24_000), "audio/pcmu": ("mulaw", 8000)}  # encoding and usual rate of each
TURNS = ("server_vad", "semantic_vad")
TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Realtime(Dialect):
    """A connection of a client of OpenAI's Realtime API."""

    foreign_models = OPENAI_MODELS

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        # Audio comes as text, a third longer than it is.
        super().__init__(max(max_text_bytes, max_audio_bytes * 4 // 3 + MAX_TEXT), max_audio_bytes)
        self.session: dict[str, Any] = {
            "type": "transcription",
            "id": _id("sess"),
            "object": "realtime.transcription_session",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "transcription": None,
                    "turn_detection": {"type": "server_vad"},
                    "noise_reduction": None,
                }
            },
        }
        self._asked = Start(24_000)
        self._item, self._previous = _id("item"), ""
        self._transcript = ""  # of the item under way
        self._begin_s = self._end_s = 0.0
        self._discarded = False  # whether the item under way was cleared
        self._event = ""  # the client's id of its message

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """The events of the protocol that say so."""
        said: list[dict[str, Any]] = []
        match message:
            case Word() if not self._discarded:
                self._end_s = self.offset_s + message.end
                if not self._transcript:
                    self._begin_s = self.offset_s + message.start
                    if self._detects_turns:
                        start_ms = round(1000 * self._begin_s)
                        said.append({"type": "input_audio_buffer.speech_started", "audio_start_ms": start_ms})
                delta = message.text if self._transcript else message.text.lstrip()
                self._transcript += delta
                said.append({"type": f"{TRANSCRIPTION}.delta", "content_index": 0, "delta": delta})
            case Endpoint() if self._detects_turns and self._transcript:
                stopped_ms = round(1000 * (self.offset_s + message.time))
                said.append({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": stopped_ms})
                return [*self._events(said), *self._completed()]
            case {"type": "renewed"}:
                if not self._discarded:
                    return self._completed()
                self._discarded, self._transcript = False, ""
                said.append({"type": "input_audio_buffer.cleared"})
            case {"type": "failure", "code": code, "message": why}:
                last = self._completed() if self._transcript and not self._discarded else []
                return [*last, *self._events([_error("server_error", why, code)])]
            case dict() if "." in message["type"] or message["type"] == "error":
                said.append(message)
            case _:
                pass
        return self._events(said)

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        if query.get("intent", "transcription") != "transcription":
            refuse(f"intent: expected 'transcription', got {shown(query['intent'])}")
        self._asked = Start(24_000, model=_model(query.get("model")))
        return [Say({"type": "session.created", "session": self.session})]

    def _message(self, message: dict[str, Any]) -> Sequence[Action]:
        event = message.get("event_id")
        self._event = string(event, "'event_id'", MAX_TEXT) if event is not None else ""
        match message.get("type"):
            case "session.update" | "transcription_session.update":
                self._update(message.get("session"))
                return [Say({"type": "session.updated", "session": self.session})]
            case "input_audio_buffer.append":
                return self._append(message.get("audio"))
            case "input_audio_buffer.commit":
                if self.phase is not Phase.STREAMING:
                    refuse("the buffer is empty; append audio before 'commit'")
                return [Renew()]
            case "input_audio_buffer.clear":
                if self.phase is not Phase.STREAMING:
                    return [Say({"type": "input_audio_buffer.cleared"})]
                self._discarded = True
                return [Renew()]
            case kind:
                refuse(f"unknown message type {shown(kind)}; this server has transcription sessions")

    def _audio(self, data: bytes) -> Sequence[Action]:
        refuse("audio goes in 'input_audio_buffer.append', as base64")

    def _guarded(self, receive: Callable[[Any], Sequence[Action]], message: Any) -> list[Action]:
        """What is wrong is said, and the connection stays."""
        if self.phase is Phase.CLOSED:
            return []
        self._event = ""
        try:
            return list(receive(message))
        except MessageRefused as refusal:
            return [Say(_error("invalid_request_error", str(refusal), refusal.code, self._event))]

    def _append(self, audio: Any) -> Sequence[Action]:
        try:
            data = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error):
            refuse(f"'audio' has to be base64, got {shown(audio)}")
        started = [] if self.phase is Phase.STREAMING else [self._opened(self._asked)]
        return [*started, self._samples(data)]

    def _update(self, session: Any) -> None:
        """Take up a session's settings; those of the audio are fixed once there is some."""
        if not isinstance(session, dict):
            refuse(f"'session' has to be an object, got {shown(session)}")
        if session.get("type", "transcription") != "transcription":
            refuse(f"session.type: this server has sessions of type 'transcription', got {shown(session['type'])}")
        given = session.get("audio", {}).get("input", {}) if isinstance(session.get("audio", {}), dict) else None
        if not isinstance(given, dict):
            refuse("session.audio.input has to be an object")
        settings = {**self.session["audio"]["input"], **given}
        asked = self._start(settings)
        if self.phase is Phase.STREAMING and asked != self._asked:
            refuse("the format, the model and the language are fixed once there is audio; open another connection")
        turns = settings["turn_detection"]
        if turns is not None and (
            not isinstance(turns, dict) or turns.get("type") not in ("server_vad", "semantic_vad")
        ):
            refuse(f"turn_detection has to be null or of type 'server_vad', got {shown(turns)}")
        self._asked = asked
        self.session = {**self.session, "audio": {"input": settings}}

    def _start(self, settings: Mapping[str, Any]) -> Start:
        form, transcription = settings["format"], settings["transcription"]
        if not isinstance(form, dict) or form.get("type") not in FORMATS:
            refuse(f"format: expected a type of {', '.join(FORMATS)}, got {shown(form)}")
        encoding, rate = FORMATS[form["type"]]
        if form.get("rate", rate) != rate:
            refuse(f"format.rate: {form['type']} has {rate} Hz here, got {shown(form['rate'])}")
        if transcription is None:
            return Start(rate, encoding=encoding, model=self._asked.model)
        if not isinstance(transcription, dict):
            refuse(f"transcription has to be null or an object, got {shown(transcription)}")
        options = {
            name: string(transcription[name], f"transcription.{name}", MAX_TEXT)
            for name in ("language", "prompt")
            if transcription.get(name)
        }
        model = _model(transcription.get("model")) or self._asked.model
        return Start(rate, encoding=encoding, model=model, options=options)

    @property
    def _detects_turns(self) -> bool:
        return self.session["audio"]["input"]["turn_detection"] is not None

    def _completed(self) -> Sequence[str]:
        """The end of the item under way; the next one begins."""
        seconds = round(max(self._end_s - self._begin_s, 0.0), 3)
        committed = {"type": "input_audio_buffer.committed", "previous_item_id": self._previous or None}
        completed = {
            "type": f"{TRANSCRIPTION}.completed",
            "content_index": 0,
            "transcript": self._transcript,
            "usage": {"type": "duration", "seconds": seconds},
        }
        said = self._events([committed, completed])
        self._previous, self._item, self._transcript = self._item, _id("item"), ""
        return said

    def _events(self, said: Sequence[dict[str, Any]]) -> list[str]:
        """Events with ids: their own, and that of the item under way."""
        own = {"event_id": _id("event")}
        item = {"item_id": self._item}
        about_items = ("input_audio_buffer.speech", "input_audio_buffer.committed", TRANSCRIPTION)
        return [json.dumps(own | (item if one["type"].startswith(about_items) else {}) | one) for one in said]


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _model(name: Any) -> str | None:
    if not name:
        return None
    return string(name, "'model'", MAX_NAME)


def _error(kind: str, message: str, code: str, event: str = "") -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": kind, "code": code, "message": message, "param": None, "event_id": event or None},
    }
