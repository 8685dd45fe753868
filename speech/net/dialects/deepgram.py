"""Deepgram's live protocol: ``WS /v1/listen?encoding=linear16&sample_rate=16000&…``, audio in, ``Results`` out.

Client: binary audio; ``{"type": "KeepAlive"}``; ``{"type": "Finalize"}``, which lets what was heard so far come out;
``{"type": "CloseStream"}``. Server: ``Results`` (``is_final`` at the end of an utterance, before that only with
``interim_results``), ``UtteranceEnd`` with ``utterance_end_ms``, ``SpeechStarted`` with ``vad_events``, and at the end
``Metadata``.

Where an utterance ends is the server's decision, whatever ``endpointing`` and ``utterance_end_ms`` say. Parameters that
change how text is written (such as ``smart_format``) are taken and have no effect: the model writes as it does.
``diarize`` is for servers that tell speakers apart. ``language`` may name several, of which one is detected.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE
from loquent.speech.net.dialect import Dialect, Phase, integer, refuse, shown, string
from loquent.speech.net.messages import Action, Finish, Renew, Start
from loquent.speech.net.protocol import MAX_CHANNELS, MAX_ITEMS, MAX_NAME
from loquent.speech.runtime.events import Endpoint, Event, Final, Language, Partial, Word

ENCODINGS = {"linear16": "pcm16", "linear32": "float32", "mulaw": "mulaw", "opus": "opus"}  # ours of theirs
OWN_MODELS = ("nova", "flux", "enhanced", "base-", "whisper")  # beginnings of Deepgram's: the server's first model
FEATURES = (  # that nothing here provides
    *("callback", "detect_entities", "diarize_model", "multichannel", "redact", "replace", "search"),
)


class Deepgram(Dialect):
    """A connection of a client of Deepgram's live endpoint."""

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        super().__init__(max_text_bytes, max_audio_bytes)
        self.request_id = str(uuid.uuid4())
        self.created = datetime.datetime.now(datetime.UTC).isoformat()
        self._interim = self._utterance_ends = self._speech_starts = self._speakers = False
        self._language: str | None = None  # that was detected
        self._hash = hashlib.sha256()
        self._frames = 0
        self._model = ""
        self._words: list[Word] = []  # of the utterance under way
        self._said_s = 0.0  # where the last one ended
        self._held: dict[str, Any] | None = None  # a final result, until it is known whether the speaker has stopped

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """Results of utterances; those that are over come with what follows them."""
        said: list[dict[str, Any]] = []
        ends = isinstance(message, Endpoint)
        asked = isinstance(message, dict) and message.get("type") == "renewed"
        if self._held is not None:
            said.append(self._held | {"speech_final": ends or asked, "from_finalize": asked})
            self._held = None
        match message:
            case Partial():
                if self._interim and (text := (message.stable + message.unstable).strip()):
                    said.append(self._result(text, self._said_s, self.offset_s + message.emission_time))
            case Language():
                self._language = message.language
            case Word():
                if self._speech_starts and not self._words:
                    start = round(self.offset_s + message.start, 3)
                    said.append({"type": "SpeechStarted", "channel": [0], "timestamp": start})
                self._words.append(message)
            case Final():
                end = self.offset_s + message.end
                self._held = self._result(message.text.strip(), self.offset_s + message.start, end) | {"is_final": True}
                self._words, self._said_s = [], end
            case Endpoint():
                if self._utterance_ends:
                    said.append({"type": "UtteranceEnd", "channel": [0], "last_word_end": round(self._said_s, 3)})
            case {"type": "ready", "model": name}:
                self._model = name
            case {"type": "renewed"} if not said:
                final = {"is_final": True, "speech_final": True, "from_finalize": True}
                said.append(self._result("", self._said_s, self.offset_s) | final)
            case {"type": "done"}:
                said.append(self._metadata())
            case {"type": "failure", "code": code, "message": why}:
                if self._speakers and why.startswith("speakers: unknown"):
                    why = "diarize: this server does not do that; leave it out"
                said.append({"type": "Error", "variant": code, "description": why, "message": why})
        return [json.dumps(one) for one in said]

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        for name in FEATURES:
            if query.get(name, "false").lower() != "false":
                refuse(f"{name}: this server does not do that; leave it out")
        name = query.get("encoding", "")
        if name not in ENCODINGS:
            refuse(f"encoding: expected one of {', '.join(ENCODINGS)}, got {shown(name)}; no container is read live")
        self._interim, self._speech_starts, self._speakers = (
            _flag(query, name) for name in ("interim_results", "vad_events", "diarize")
        )
        self._utterance_ends = "utterance_end_ms" in query
        model, language = query.get("model", ""), query.get("language", "")
        phrases = [string(phrase, "a keyterm", MAX_NAME) for phrase in _all(query, "keyterm")]
        phrases += [string(phrase.split(":")[0], "a keyword", MAX_NAME) for phrase in _all(query, "keywords")]
        if len(phrases) > MAX_ITEMS:
            refuse(f"keyterm: at most {MAX_ITEMS} are taken, got {len(phrases)}")
        options: dict[str, Any] = {"phrases": phrases} if phrases else {}
        if self._speakers:
            options["speakers"] = True
        if language and language != "multi":
            codes = ",".join(one.split("-")[0] for one in language.split(","))
            options["language"] = string(codes, "language", MAX_NAME)
        rate = query.get("sample_rate")
        return [
            self._opened(
                Start(
                    None if rate is None else _number(rate, "sample_rate", LOWEST_RATE, HIGHEST_RATE),
                    _number(query.get("channels", "1"), "channels", 1, MAX_CHANNELS),
                    ENCODINGS[name],
                    None if not model or model.startswith(OWN_MODELS) else string(model, "model", MAX_NAME),
                    options=options,
                )
            )
        ]

    def _message(self, message: dict[str, Any]) -> Sequence[Action]:
        match message.get("type"):
            case "KeepAlive":
                return []
            case "Finalize":
                return [Renew()] if self.phase is Phase.STREAMING else []
            case "CloseStream":
                return self._close()
            case kind:
                refuse(f"unknown message type {shown(kind)}; expected 'KeepAlive', 'Finalize' or 'CloseStream'")

    def _audio(self, data: bytes) -> Sequence[Action]:
        if not data:  # as older clients end
            return self._close()
        if self.phase is not Phase.STREAMING:
            refuse("nothing may follow 'CloseStream'; open another connection for more")
        self._hash.update(data)
        samples = self._samples(data)
        self._frames += len(samples.samples)
        return [samples]

    def _close(self) -> Sequence[Action]:
        if self.phase is not Phase.STREAMING:
            return []
        self.phase = Phase.FINISHING
        return [Finish()]

    def _result(self, text: str, start: float, end: float) -> dict[str, Any]:
        words = [
            {
                "word": word.text.strip().lower().strip(".,!?;:"),
                "start": round(self.offset_s + word.start, 3),
                "end": round(self.offset_s + word.end, 3),
                "confidence": round(word.confidence, 4),
                "punctuated_word": word.text.strip(),
            }
            | ({} if word.speaker is None or not self._speakers else {"speaker": word.speaker})
            for word in self._words
        ]
        confidence = sum(word.confidence for word in self._words) / max(len(self._words), 1)
        best = {"transcript": text, "confidence": round(confidence, 4), "words": words}
        if self._language is not None:
            best["languages"] = [self._language]
        about = {"request_id": self.request_id, "model_uuid": self.request_id, "model_info": self._described()}
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": round(start, 3),
            "duration": round(max(end - start, 0.0), 3),
            "is_final": False,
            "speech_final": False,
            "from_finalize": False,
            "channel": {"alternatives": [best]},
            "metadata": about,
        }

    def _metadata(self) -> dict[str, Any]:
        rate = self.decoder.sample_rate if self.decoder else 1
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": self._hash.hexdigest(),
            "created": self.created,
            "duration": round(self._frames / rate, 3),
            "channels": self.start.channels,
            "models": [self.request_id],
            "model_info": {self.request_id: self._described()},
        }

    def _described(self) -> dict[str, str]:
        return {"name": self._model, "version": "", "arch": "loquent"}


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("true", "false"):
        refuse(f"{name}: expected true or false, got {shown(value)}")
    return value == "true"


def _number(value: str, name: str, low: int, high: int) -> int:
    return integer(int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value, name, low, high)


def _all(query: Mapping[str, str], name: str) -> list[str]:
    """All values of a parameter that may come several times."""
    several = getattr(query, "getlist", None)
    return several(name) if several else [query[name]] if name in query else []
