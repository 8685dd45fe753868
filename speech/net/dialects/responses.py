"""Speech output in OpenAI's Realtime protocol: a text to be spoken, and the events that tell of its speech."""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Mapping
from typing import Any

from loquent.speech.net.dialect import refuse, shown, string
from loquent.speech.net.messages import Output, Speak, Start
from loquent.speech.net.openai.speech import TOKENS_PER_SECOND
from loquent.speech.net.openai.speech_body import FASTEST, LONGEST_INPUT, OPENAI_VOICES, SLOWEST
from loquent.speech.net.protocol import MAX_ITEMS, MAX_NAME
from loquent.speech.runtime.events import Word

ROLES = {"user": "input_text", "system": "input_text", "assistant": "output_text"}  # and the kind of their text
OUTPUTS = {"audio/pcm": Output("pcm16", 24_000), "audio/pcmu": Output("mulaw", 8000)}


class Response:
    """A text that is being spoken, or was.

    Args:
        text: to speak.
        output: of the session, or of this response: "format", "voice" and "speed".
        metadata: of the client's, told again.

    Attributes:
        item: the assistant's message; its transcript is what was said, or heard.
        status: "in_progress", "completed", "cancelled" or "failed".
        seconds: of speech sent.
        over: whether its end has been told.
    """

    def __init__(self, text: str, output: Mapping[str, Any], conversation: str, metadata: Any) -> None:
        self.id, self.text = new_id("resp"), text
        self.item: dict[str, Any] = {
            "id": new_id("item"),
            "object": "realtime.item",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self.status, self.seconds, self.over = "in_progress", 0.0, False
        self.failure: dict[str, Any] | None = None
        self._about = {
            "id": self.id,
            "object": "realtime.response",
            "conversation_id": conversation,
            "output_modalities": ["audio"],
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "metadata": metadata,
        }
        self._told = 0  # characters of the text that deltas have told
        self._pieces: list[tuple[int, float]] = []  # of what was sent: where in the text it ends, and in seconds
        self._words: list[tuple[str, float]] = []  # and their ends in seconds, of a voice that tells them

    def begun(self) -> list[dict[str, Any]]:
        """The events before its speech."""
        item = dict(self.item)
        return [
            {"type": "response.created", "response": {**self._about, "status": "in_progress", "output": []}},
            {"type": "response.output_item.added", **self._place("output_index"), "item": item},
            {"type": "conversation.item.added", "item": item},
            {"type": "response.content_part.added", **self._place(), "part": {"type": "audio", "transcript": ""}},
        ]

    def word(self, word: Word) -> None:
        """Take up when a word ends."""
        self._words.append((word.text, word.end))

    def piece(self, speech: Mapping[str, Any], packets: bytes) -> list[dict[str, Any]]:
        """The events of a piece of speech, and of the text that it stands for."""
        self.seconds = max(self.seconds, speech["end"])
        said = self._delta(max(speech["span"][1], self._told))
        if speech["text"]:
            self._pieces.append((speech["span"][1], speech["end"]))
        delta = base64.b64encode(packets).decode()
        return [*said, {"type": "response.output_audio.delta", **self._place(), "delta": delta}] if packets else said

    def ended(self) -> list[dict[str, Any]]:
        """The events after all of its speech was sent, or what there was of it."""
        said = [] if self.status != "in_progress" else self._delta(len(self.text))
        if self.status == "in_progress":
            self.status, self.item["content"] = "completed", _audio_content(self.text)
        elif self.status == "failed":
            self.truncate(self.seconds)
        self.over = True
        self.item["status"] = "completed" if self.status == "completed" else "incomplete"
        (content,) = self.item["content"] or _audio_content("")
        part = {"type": "audio", "transcript": content["transcript"]}
        reason = {"reason": "client_cancelled"} if self.status == "cancelled" else {}
        details = {"type": self.status, **reason, **({"error": self.failure} if self.failure else {})}
        status = {"status": self.status, "status_details": None if self.status == "completed" else details}
        words, tokens = len(self.text.split()), math.ceil(self.seconds * TOKENS_PER_SECOND)
        usage = {"input_tokens": words, "output_tokens": tokens, "total_tokens": words + tokens}
        item = dict(self.item)
        return [
            *said,
            {"type": "response.output_audio.done", **self._place()},
            {"type": "response.output_audio_transcript.done", **self._place(), "transcript": part["transcript"]},
            {"type": "response.content_part.done", **self._place(), "part": part},
            {"type": "conversation.item.done", "item": item},
            {"type": "response.output_item.done", **self._place("output_index"), "item": item},
            {"type": "response.done", "response": {**self._about, **status, "output": [item], "usage": usage}},
        ]

    def cancel(self, end: int) -> None:
        """No more is said; what was heard is the text up to character ``end``."""
        if self.status == "in_progress":
            self.status, self.item["content"] = "cancelled", _audio_content(self.text[:end].strip())

    def fail(self, code: str, message: str) -> None:
        """The voice broke down."""
        self.status, self.failure = "failed", {"type": "server_error", "code": code, "message": message}

    def truncate(self, end_s: float) -> None:
        """Cut the transcript down to the words that were heard whole."""
        if self._words:
            heard = "".join(text for text, end in self._words if end <= end_s)
        else:
            heard = self.text[: max((at for at, end in self._pieces if end <= end_s), default=0)]
        self.item["content"] = _audio_content(heard.strip())

    def _delta(self, end: int) -> list[dict[str, Any]]:
        delta, self._told = self.text[self._told : end], end
        said = {"type": "response.output_audio_transcript.delta", **self._place(), "delta": delta}
        return [said] if delta else []

    def _place(self, *names: str) -> dict[str, Any]:
        """Where an event belongs; ``names`` of the indices, by default both and the item's id."""
        indices = dict.fromkeys(names or ("output_index", "content_index"), 0)
        return {"response_id": self.id, **indices, **({} if names else {"item_id": self.item["id"]})}


def new_id(kind: str) -> str:
    """An id that no other thing has."""
    return f"{kind}_{uuid.uuid4().hex}"


def message_item(given: Any) -> dict[str, Any]:
    """A message of the client's, as an item of the conversation.

    Raises:
        MessageRefused: it is none, or has no text.
    """
    if not isinstance(given, dict) or given.get("type") != "message":
        refuse(f"item: this server takes items of type 'message', with text, got {shown(given)}")
    role, content = given.get("role"), given.get("content")
    if role not in [*ROLES]:
        refuse(f"item.role has to be one of {', '.join(ROLES)}, got {shown(role)}")
    if not isinstance(content, list) or not 1 <= len(content) <= MAX_ITEMS:
        refuse(f"item.content has to be a list of parts, got {shown(content)}")
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if len(texts) < len(content):
        refuse("item.content: each part needs a 'text'; audio goes in 'input_audio_buffer.append'")
    text = string("".join(texts), "the text of an item", LONGEST_INPUT)
    return {
        "id": new_id("item") if given.get("id") is None else string(given["id"], "item.id", MAX_NAME),
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": role,
        "content": [{"type": ROLES[role], "text": text}],
    }


def text_of(item: Mapping[str, Any]) -> str:
    """What a message item says."""
    return "".join(part.get("text") or part.get("transcript") or "" for part in item["content"])


def speak(text: str, model: str | None, output: Mapping[str, Any]) -> Speak:
    """What lets a text be spoken, as the settings of the output say."""
    voice, options = output["voice"], {}
    if voice is not None and voice not in OPENAI_VOICES:
        options["voice"] = voice
    if output["speed"] != 1.0:
        options["speed"] = output["speed"]
    return Speak(Start(model=model, options=options, output=OUTPUTS[output["format"]["type"]]), text)


def output_settings(given: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the output, those that are not given as they were before.

    Raises:
        MessageRefused: one is wrong.
    """
    if not isinstance(given, dict | None):
        refuse(f"audio.output has to be an object, got {shown(given)}")
    asked = {name: value for name, value in (given or {}).items() if value is not None}
    form, voice, speed = (asked.get(name, before[name]) for name in ("format", "voice", "speed"))
    if not isinstance(form, dict) or form.get("type") not in [*OUTPUTS]:
        refuse(f"audio.output.format: expected a type of {', '.join(OUTPUTS)}, got {shown(form)}")
    rate = OUTPUTS[form["type"]].sample_rate
    if form.get("rate", rate) != rate:
        refuse(f"audio.output.format.rate: {form['type']} has {rate} Hz here, got {shown(form['rate'])}")
    if isinstance(voice, dict):
        voice = voice.get("id")
    if voice is not None:
        string(voice, "audio.output.voice", MAX_NAME)
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not SLOWEST <= speed <= FASTEST:
        refuse(f"audio.output.speed has to be a number from {SLOWEST} to {FASTEST}, got {shown(speed)}")
    return {"format": form, "voice": voice, "speed": float(speed)}


def _audio_content(transcript: str) -> list[dict[str, Any]]:
    return [{"type": "output_audio", "transcript": transcript}]
