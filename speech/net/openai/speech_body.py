"""The body of ``POST /v1/audio/speech``: its fields, checked. A wrong value is refused by the field's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loquent.speech.audio.encoders import FILE_FORMATS
from loquent.speech.net.models import OPENAI_VOICE_MODELS, Models
from loquent.speech.net.openai.fields import known_field, model_named, one_of, refuse, within
from loquent.speech.net.uploads import Refused

# OpenAI's own, of which clients have to choose one: where the model has no voice of that name, its default.
OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
FORMATS = tuple(FILE_FORMATS)
STREAM_FORMATS = ("audio", "sse")
SLOWEST, FASTEST = 0.25, 4.0
LONGEST_INPUT = 4096  # characters
FIELDS = {
    "input": "The text to speak.",
    "model": "A name from `/v1/models`; one of OpenAI's, or none, is the server's first model that speaks.",
    "voice": "A voice of the model's, or an object with its `id`; OpenAI's own names stand for its default voice.",
    "response_format": "How to encode the speech.",
    "speed": "Factor of tempo.",
    "stream_format": "The file as it is made, or server-sent events with pieces of it.",
    "instructions": "How to speak; has no effect on a model that takes no instructions.",
}


@dataclass(frozen=True)
class SpeechRequest:
    """What a client asks for.

    options: of the stream, by name; those that the model has not got are still among them.
    """

    text: str
    model: str
    format: str
    events: bool  # server-sent ones
    options: Mapping[str, Any]


def parse_body(body: bytes, models: Models) -> SpeechRequest:
    """Check a body.

    Args:
        models: that may be asked for; the first is the default.

    Raises:
        Refused: with the name of the field that is missing, unknown or wrong.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected a JSON object as body: {error}") from error
    if not isinstance(fields, dict):
        raise Refused(400, f"expected a JSON object as body, got {type(fields).__name__}")
    for name in fields:
        known_field(name, FIELDS)
    text = _text(fields, "input")
    if not text or not text.strip():
        refuse("input", "is missing or blank; give the text to speak")
    options: dict[str, Any] = {}
    if voice := _voice(fields):
        options["voice"] = voice
    if instructions := _text(fields, "instructions"):
        options["instructions"] = instructions
    if (speed := fields.get("speed")) is not None:
        if isinstance(speed, str):
            refuse("speed", f"has to be a number, got the text {speed[:60]!r}")
        options["speed"] = within("speed", speed, SLOWEST, FASTEST)
    return SpeechRequest(
        text,
        model_named(_text(fields, "model"), models, OPENAI_VOICE_MODELS, "that speaks"),
        one_of("response_format", _text(fields, "response_format") or "mp3", FORMATS),
        one_of("stream_format", _text(fields, "stream_format") or "audio", STREAM_FORMATS) == "sse",
        options,
    )


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        refuse(name, f"has to be a text, got {json.dumps(value)[:60]}")
    if value and len(value) > LONGEST_INPUT:
        refuse(name, f"may have {LONGEST_INPUT} characters, got {len(value)}")
    return value


def _voice(fields: Mapping[str, Any]) -> str | None:
    voice = fields.get("voice")
    if isinstance(voice, dict):
        if voice.keys() != {"id"} or not isinstance(voice["id"], str):
            refuse("voice", "has to be a name, or an object with an 'id' and nothing else")
        fields = {"voice": voice["id"]}
    return _text(fields, "voice")
