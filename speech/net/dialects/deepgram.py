"""Deepgram's live protocol: ``WS /v1/listen?encoding=linear16&sample_rate=16000&…``, audio in, ``Results`` out.

Client: binary audio; ``{"type": "KeepAlive"}``; ``{"type": "Finalize"}``, which lets what was heard so far come out;
``{"type": "CloseStream"}``. Server: ``Results`` (``is_final`` at the end of an utterance, before that only with
``interim_results``), ``UtteranceEnd`` with ``utterance_end_ms``, ``SpeechStarted`` with ``vad_events``, and at the end
``Metadata``. With ``multichannel`` every channel is heard by itself; ``channel_index`` says which one a result is of.

Where an utterance ends is the server's decision, whatever ``endpointing`` and ``utterance_end_ms`` say. Parameters that
change how text is written (such as ``smart_format``) are taken and have no effect: the model writes as it does.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loquent.speech.audio.resample import HIGHEST_RATE, LOWEST_RATE
from loquent.speech.net.dialect import Dialect, Phase, integer, refuse, shown, string
from loquent.speech.net.messages import Action, Finish, Renew, Start
from loquent.speech.net.models import DEEPGRAM_MODELS
from loquent.speech.net.protocol import MAX_CHANNELS, MAX_ITEMS, MAX_NAME
from loquent.speech.runtime.channels import channel_of
from loquent.speech.runtime.events import Endpoint, Event, Final, Partial, Word
from loquent.speech.transcript import WordTiming

ENCODINGS = {"linear16": "pcm16", "linear32": "float32", "mulaw": "mulaw", "opus": "opus"}  # ours of theirs
FEATURES = (  # that nothing here provides
    *("callback", "detect_entities", "diarize", "diarize_model", "redact", "replace", "search"),
)


@dataclass
class _Channel:
    """What was heard in a channel, or in all of them if they are mixed."""

    index: int
    words: list[Word] = field(default_factory=list)  # of the utterance under way
    said_s: float = 0.0  # where the last one ended
    held: dict[str, Any] | None = None  # a final result, until it is known whether the speaker has stopped


class Deepgram(Dialect):
    """A connection of a client of Deepgram's live endpoint."""

    foreign_models = DEEPGRAM_MODELS

    def __init__(self, max_text_bytes: int = 65_536, max_audio_bytes: int = 1_048_576) -> None:
        super().__init__(max_text_bytes, max_audio_bytes)
        self.request_id = str(uuid.uuid4())
        self.created = datetime.datetime.now(datetime.UTC).isoformat()
        self._interim = self._utterance_ends = self._speech_starts = False
        self._hash = hashlib.sha256()
        self._frames = 0
        self._model = ""
        self._channels = [_Channel(0)]

    def told(self, message: Event | dict[str, Any]) -> Sequence[str]:
        """Results of utterances; those that are over come with what follows them in their channel."""
        match message:
            case Event():
                channel = self._channels[channel_of(message) if self.start.multichannel else 0]
                said = [*self._settled(channel, ends=isinstance(message, Endpoint)), *self._heard(channel, message)]
            case {"type": "renewed"}:
                said = [result for channel in self._channels for result in self._finalized(channel)]
            case _:
                said = [result for channel in self._channels for result in self._settled(channel)]
        match message:
            case {"type": "ready", "model": name}:
                self._model = name
            case {"type": "done"}:
                said.append(self._metadata())
            case {"type": "failure", "code": code, "message": why}:
                said.append({"type": "Error", "variant": code, "description": why, "message": why})
        return [json.dumps(one) for one in said]

    def _heard(self, channel: _Channel, event: Event) -> list[dict[str, Any]]:
        """What an event is told by."""
        match event:
            case Partial():
                if self._interim and (text := (event.stable + event.unstable).strip()):
                    return [self._result(channel, text, channel.said_s, self.offset_s + event.emission_time)]
            case Word():
                channel.words.append(event)
                if self._speech_starts and len(channel.words) == 1:
                    start = round(self.offset_s + event.start, 3)
                    return [{"type": "SpeechStarted", "channel": self._index(channel), "timestamp": start}]
            case Final():
                end = self.offset_s + event.end
                result = self._result(channel, event.text.strip(), self.offset_s + event.start, end)
                channel.held = result | {"is_final": True}
                channel.words, channel.said_s = [], end
            case Endpoint() if self._utterance_ends:
                last = round(channel.said_s, 3)
                return [{"type": "UtteranceEnd", "channel": self._index(channel), "last_word_end": last}]
        return []

    def _settled(self, channel: _Channel, ends: bool = False, asked: bool = False) -> list[dict[str, Any]]:
        """The result of an utterance that is over, now that it is known whether the speaker has stopped."""
        if channel.held is None:
            return []
        result, channel.held = channel.held | {"speech_final": ends or asked, "from_finalize": asked}, None
        return [result]

    def _finalized(self, channel: _Channel) -> list[dict[str, Any]]:
        """The result that "Finalize" asked for; it is empty if there was nothing left to say."""
        final = {"is_final": True, "speech_final": True, "from_finalize": True}
        empty = self._result(channel, "", channel.said_s, self.offset_s) | final
        return self._settled(channel, asked=True) or [empty]

    def _query(self, query: Mapping[str, str]) -> Sequence[Action]:
        for name in FEATURES:
            if query.get(name, "false").lower() != "false":
                refuse(f"{name}: this server does not do that; leave it out")
        name = query.get("encoding", "")
        if name not in ENCODINGS:
            refuse(f"encoding: expected one of {', '.join(ENCODINGS)}, got {shown(name)}; no container is read live")
        self._interim, self._speech_starts = (flag(query, name) for name in ("interim_results", "vad_events"))
        self._utterance_ends = "utterance_end_ms" in query
        model = query.get("model", "")
        phrases, language = asked_phrases(query), asked_language(query)
        options: dict[str, Any] = {"phrases": phrases} if phrases else {}
        if language:
            options["language"] = language
        rate, channels = query.get("sample_rate"), _number(query.get("channels", "1"), "channels", 1, MAX_CHANNELS)
        apart = flag(query, "multichannel")
        if apart:
            self._channels = [_Channel(index) for index in range(channels)]
        return [
            self._opened(
                Start(
                    None if rate is None else _number(rate, "sample_rate", LOWEST_RATE, HIGHEST_RATE),
                    channels,
                    ENCODINGS[name],
                    None if not model else string(model, "model", MAX_NAME),
                    options=options,
                    multichannel=apart,
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

    def _result(self, channel: _Channel, text: str, start: float, end: float) -> dict[str, Any]:
        words = [told_word(word, self.offset_s) for word in channel.words]
        confidence = sum(word.confidence for word in channel.words) / max(len(words), 1)
        best = {"transcript": text, "confidence": round(confidence, 4), "words": words}
        model = model_description(self._model)
        about = {"request_id": self.request_id, "model_uuid": self.request_id, "model_info": model}
        return {
            "type": "Results",
            "channel_index": self._index(channel),
            "start": round(start, 3),
            "duration": round(max(end - start, 0.0), 3),
            "is_final": False,
            "speech_final": False,
            "from_finalize": False,
            "channel": {"alternatives": [best]},
            "metadata": about,
        }

    def _index(self, channel: _Channel) -> list[int]:
        return [channel.index, len(self._channels)]

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
            "model_info": {self.request_id: model_description(self._model)},
        }


def model_description(name: str) -> dict[str, str]:
    """A model as the metadata name it."""
    return {"name": name, "version": "", "arch": "loquent"}


def told_word(word: Word | WordTiming, offset_s: float = 0.0) -> dict[str, Any]:
    """A word of a result; ``offset_s`` is what was heard before the times that it has."""
    return {
        "word": word.text.strip().lower().strip(".,!?;:"),
        "start": round(offset_s + word.start, 3),
        "end": round(offset_s + word.end, 3),
        "confidence": round(word.confidence or 0.0, 4),
        "punctuated_word": word.text.strip(),
    }


def asked_language(query: Mapping[str, str]) -> str | None:
    """The language that is spoken, without its region; None: the client does not know."""
    language = query.get("language", "")
    return None if language in ("", "multi") else string(language.split("-")[0], "language", MAX_NAME)


def asked_phrases(query: Mapping[str, str]) -> list[str]:
    """Words that are likely to be said; how likely is not asked."""
    phrases = [string(phrase, "a keyterm", MAX_NAME) for phrase in _all(query, "keyterm")]
    phrases += [string(phrase.split(":")[0], "a keyword", MAX_NAME) for phrase in _all(query, "keywords")]
    if len(phrases) > MAX_ITEMS:
        refuse(f"keyterm: at most {MAX_ITEMS} are taken, got {len(phrases)}")
    return phrases


def flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is true or false; false if it is missing."""
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
