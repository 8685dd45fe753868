"""OpenAI's Realtime protocol: ``WS /v1/realtime``, and with ``?intent=transcription`` sessions that do not speak.

Client: ``session.update``, ``input_audio_buffer.append`` (base64), ``.commit`` and ``.clear``. Server:
``session.created`` and ``.updated``, ``input_audio_buffer.speech_started``, ``.speech_stopped`` and ``.committed``,
``conversation.item.input_audio_transcription.delta`` and ``.completed``, ``error``.

The stream begins with the first audio. Its deltas are committed words, so they come while an item is being spoken,
before it is "committed" in the sense of the protocol. With ``turn_detection`` an item ends where the recogniser ends an
utterance; without it, and whenever a client likes, ``commit`` ends it. A wrong message is answered by ``error``, and
the connection stays.

Sessions of type "realtime" speak, too: ``conversation.item.create`` and ``response.create``, answered by the events of
a `responses.Response`; ``response.cancel``, ``conversation.item.truncate``, ``.retrieve`` and ``.delete``. No model
makes up an answer here: a response says the text that it is given.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loquent.speech.net.dialect import Dialect, MessageRefused, Phase, integer, refuse, shown, string
from loquent.speech.net.dialects.responses import Response, message_item, new_id, output_settings, speak, text_of
from loquent.speech.net.messages import Action, Interrupt, Renew, Say, Start
from loquent.speech.net.models import OPENAI_MODELS
from loquent.speech.net.openai.speech_body import LONGEST_INPUT
from loquent.speech.net.protocol import MAX_NAME, MAX_TEXT
from loquent.speech.runtime.events import Endpoint, Event, Failure, Interrupted, Word

FORMATS = {"audio/pcm": ("pcm16", 24_000), "audio/pcmu": ("mulaw", 8000)}  # encoding and usual rate of each
TURNS = ("server_vad", "semantic_vad")
NO_ANSWERS = {"create_response": False, "interrupt_response": False}  # the client says what, and when
TRY_LATER = ("busy", "shutting_down")
MOST_ITEMS = 100  # of a conversation, to be retrieved
TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Realtime(Dialect):
    """A connection of a client of OpenAI's Realtime API."""

    may_wait, foreign_models = True, OPENAI_MODELS

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        # Audio comes as text, a third longer than it is.
        super().__init__(max(max_text_bytes, max_audio_bytes * 4 // 3 + MAX_TEXT), max_audio_bytes)
        self.session = _session("transcription")
        self._conversation = new_id("conv")
        self._voice: str | None = None
        self._items: dict[str, dict[str, Any]] = {}  # of the conversation, the newest last
        self._unspoken = ""  # text of the newest item
        self._response: Response | None = None
        self._asked = Start(24_000)
        self._item, self._previous = new_id("item"), ""
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
            case {"type": "speaking" | "said" | "spoken" | "unspoken"}:
                return self._events(self._told_of_response(message))
            case {"type": "failure", "code": code, "message": why}:
                last = self._completed() if self._transcript and not self._discarded else []
                return [*last, *self._events([_error("server_error", why, code)])]
            case dict() if "." in message["type"] or message["type"] == "error":
                said.append(message)
            case _:
                pass
        return self._events(said)

    def spoken(self, speech: Mapping[str, Any], packets: bytes) -> Sequence[str | bytes]:
        """The deltas of a response; speech of a recogniser's own is not sent."""
        return [] if self._response is None else self._events(self._response.piece(speech, packets))

    def _told_of_response(self, message: Event | dict[str, Any]) -> list[dict[str, Any]]:
        response = self._response
        assert response is not None, "made with the action that asks for it"
        match message:
            case {"type": "speaking"}:
                self._unspoken = "" if response.text == self._unspoken else self._unspoken
                self._keep(response.item)
                return response.begun()
            case {"type": "spoken"}:
                return [] if response.over else response.ended()
            case {"type": "unspoken", "code": code, "message": why}:
                self._response = None
                return [_error("server_error" if code in TRY_LATER else "invalid_request_error", why, code)]
            case {"event": Word() as word}:
                response.word(word)
            case {"event": Interrupted(span=(_, end))}:
                response.cancel(end)
            case {"event": Failure(code=code, message=why)}:
                response.fail(code, why)
        return []

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        match query.get("intent"):
            case "transcription":
                self._asked = Start(24_000, model=_model(query.get("model")))
            case None:
                self.session, self._voice = _session("realtime"), _model(query.get("model"))
            case intent:
                refuse(f"intent: expected 'transcription' or none, got {shown(intent)}")
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
            case kind if self.session["type"] == "transcription":
                refuse(f"unknown message type {shown(kind)} in a transcription session")
            case "conversation.item.create":
                return self._create(message_item(message.get("item")))
            case "conversation.item.retrieve":
                return [Say({"type": "conversation.item.retrieved", "item": self._kept(message.get("item_id"))})]
            case "conversation.item.delete":
                item = self._items.pop(self._kept(message.get("item_id"))["id"])
                return [Say({"type": "conversation.item.deleted", "item_id": item["id"]})]
            case "conversation.item.truncate":
                return self._truncate(message)
            case "response.create":
                return self._respond(message.get("response") or {})
            case "response.cancel":
                response = self._response
                if response is None or response.over or message.get("response_id", response.id) != response.id:
                    raise MessageRefused("no such response is under way", "response_cancel_not_active")
                return [Interrupt()]
            case kind:
                refuse(f"unknown message type {shown(kind)}")

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
            return [Say(self._refusal(refusal))]

    def _refusal(self, refusal: MessageRefused) -> dict[str, Any]:
        return _error("invalid_request_error", str(refusal), refusal.code, self._event)

    def _append(self, audio: Any) -> Sequence[Action]:
        try:
            data = base64.b64decode(audio, validate=True)
        except (TypeError, ValueError, binascii.Error):
            refuse(f"'audio' has to be base64, got {shown(audio)}")
        if self.phase is Phase.STREAMING:
            return [self._samples(data)]
        start = self._opened(self._asked)
        try:
            return [start, self._samples(data)]
        except MessageRefused as refusal:  # the stream is open all the same
            return [start, Say(self._refusal(refusal))]

    def _create(self, item: dict[str, Any]) -> Sequence[Action]:
        if item["id"] in self._items:
            refuse(f"item.id: there is an item {shown(item['id'])} already")
        place = {"previous_item_id": next(reversed(self._items), None), "item": item}
        self._keep(item)
        self._unspoken = text_of(item)
        return [Say({"type": f"conversation.item.{what}", **place}) for what in ("added", "done")]

    def _keep(self, item: dict[str, Any]) -> None:
        self._items[item["id"]] = item
        if len(self._items) > MOST_ITEMS:
            del self._items[next(iter(self._items))]

    def _kept(self, id: Any) -> dict[str, Any]:
        item = self._items.get(id) if isinstance(id, str) else None
        if item is None:
            refuse(f"item_id: there is no item {shown(id)}; the newest {MOST_ITEMS} are kept")
        return item

    def _respond(self, asked: Any) -> Sequence[Action]:
        """Speak what the response is given, or the newest item if no response has, or else the instructions."""
        if self._response is not None and not self._response.over:
            why = "a response is under way; wait for 'response.done', or cancel it"
            raise MessageRefused(why, "conversation_already_has_active_response")
        if not isinstance(asked, dict):
            refuse(f"'response' has to be an object, got {shown(asked)}")
        if asked.get("output_modalities", ["audio"]) != ["audio"]:
            refuse("response.output_modalities: responses are speech, that is ['audio']")
        given, instructions = asked.get("input") or [], asked.get("instructions") or ""
        if not isinstance(given, list):
            refuse(f"response.input has to be a list of items, got {shown(given)}")
        text = text_of(message_item(given[-1])) if given else self._unspoken or instructions
        if not text:
            refuse("there is nothing to speak: create an item with a text first, or give 'input' or 'instructions'")
        text = string(text, "what is to be spoken", LONGEST_INPUT)
        audio = asked.get("audio") or {}
        if not isinstance(audio, dict):
            refuse(f"response.audio has to be an object, got {shown(audio)}")
        output = output_settings(audio.get("output"), self.session["audio"]["output"])
        metadata = asked.get("metadata")
        if not isinstance(metadata, dict | None) or not all(
            isinstance(value, str) and len(value) <= MAX_TEXT for value in (metadata or {}).values()
        ):
            refuse(f"response.metadata has to be an object of texts, got {shown(metadata)}")
        self._response = Response(text, output, self._conversation, metadata)
        return [speak(text, self._voice, output)]

    def _truncate(self, message: dict[str, Any]) -> Sequence[Action]:
        response, item = self._response, self._kept(message.get("item_id"))
        if response is None or response.item is not item:
            refuse("item_id: only the newest response can be truncated")
        heard_ms = integer(message.get("audio_end_ms"), "audio_end_ms", 0, round(1000 * response.seconds) + 1)
        told = {"type": "conversation.item.truncated", "item_id": item["id"], "content_index": 0}
        if response.over:
            response.truncate(heard_ms / 1000)
        return [*([] if response.over else [Interrupt(heard_ms / 1000)]), Say({**told, "audio_end_ms": heard_ms})]

    def _update(self, session: Any) -> None:
        """Take up a session's settings; those of the audio are fixed once there is some."""
        if not isinstance(session, dict):
            refuse(f"'session' has to be an object, got {shown(session)}")
        kind = session.get("type", self.session["type"])
        if kind not in ("transcription", "realtime"):
            refuse(f"session.type: expected 'transcription' or 'realtime', got {shown(kind)}")
        now = self.session if kind == self.session["type"] else _session(kind)
        audio = session.get("audio") or {}
        if not isinstance(audio, dict) or not isinstance(audio.get("input", {}), dict):
            refuse("session.audio and session.audio.input have to be objects")
        given = audio.get("input", {})
        settings = {name: given.get(name, value) for name, value in now["audio"]["input"].items()}
        asked = self._start(settings)
        if self.phase is Phase.STREAMING and asked != self._asked:
            refuse("the format, the model and the language are fixed once there is audio; open another connection")
        turns = settings["turn_detection"]
        if turns is not None and (not isinstance(turns, dict) or turns.get("type") not in TURNS):
            refuse(f"turn_detection has to be null or of type 'server_vad', got {shown(turns)}")
        changed = {**now, "audio": {**now["audio"], "input": settings}}
        if kind == "realtime":
            settings["turn_detection"] = None if turns is None else {**turns, **NO_ANSWERS}
            changed["audio"]["output"] = output_settings(audio.get("output"), now["audio"]["output"])
            if session.get("output_modalities", ["audio"]) != ["audio"] or session.get("tools"):
                refuse("session: responses are speech, that is output_modalities ['audio'], and there are no tools")
        self._asked, self.session = asked, changed

    def _start(self, settings: Mapping[str, Any]) -> Start:
        form, transcription = settings["format"], settings["transcription"]
        if not isinstance(form, dict) or form.get("type") not in [*FORMATS]:
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
        self._previous, self._item, self._transcript = self._item, new_id("item"), ""
        return said

    def _events(self, said: Sequence[dict[str, Any]]) -> list[str]:
        """Events with ids: their own, and that of the item under way."""
        own = {"event_id": new_id("event")}
        item = {"item_id": self._item}
        about_items = ("input_audio_buffer.speech", "input_audio_buffer.committed", TRANSCRIPTION)
        return [json.dumps(own | (item if one["type"].startswith(about_items) else {}) | one) for one in said]


def _session(kind: str) -> dict[str, Any]:
    """What a session begins with."""
    form, turns = {"type": "audio/pcm", "rate": 24_000}, {"type": "server_vad"}
    heard = {"format": form, "transcription": None, "turn_detection": turns, "noise_reduction": None}
    if kind == "transcription":
        named = {"type": kind, "id": new_id("sess"), "object": "realtime.transcription_session"}
        return {**named, "audio": {"input": heard}}
    return {
        "type": kind,
        "id": new_id("sess"),
        "object": "realtime.session",
        "output_modalities": ["audio"],
        "tools": [],
        "audio": {
            "input": {**heard, "turn_detection": {**turns, **NO_ANSWERS}},
            "output": {"format": form, "voice": None, "speed": 1.0},
        },
    }


def _model(name: Any) -> str | None:
    if not name:
        return None
    return string(name, "'model'", MAX_NAME)


def _error(kind: str, message: str, code: str, event: str = "") -> dict[str, Any]:
    return {
        "type": "error",
        "error": {"type": kind, "code": code, "message": message, "param": None, "event_id": event or None},
    }
