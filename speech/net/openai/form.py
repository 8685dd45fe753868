"""The form of ``POST /v1/audio/transcriptions``: its fields, checked. A wrong value is refused by the field's name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from starlette.datastructures import FormData, UploadFile

from loquent.speech.net.openai.fields import known_field, model_named, one_of, refuse, within
from loquent.speech.net.uploads import Refused

ALIAS = "whisper-1"  # what clients of OpenAI send unless told otherwise: the server's first model
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("segment", "word")
HIGHEST_TEMPERATURE = 1.0
TEMPERATURE_STEP = 0.2  # Whisper's
LONGEST_TEXT = 10_000  # characters of a field
FIELDS = {
    "file": "The recording, in any format that the server reads.",
    "model": f"A name from `/v1/models`; `{ALIAS}`, or none, is the server's first model.",
    "language": "Code or name, or several to detect one of; what the server was started with, or any, if it is missing.",
    "prompt": "Text before the recording: names, spelling, style.",
    "response_format": "How to answer.",
    "temperature": "Of the sampling, 0 being the most probable text; it rises while the result looks wrong.",
    "timestamp_granularities": "What `verbose_json` has times of besides segments.",
    "stream": "Answer with server-sent events, from a live session.",
    "chunking_strategy": "`auto`, or an object of type `server_vad`: leave out pauses.",
}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client asks for.

    options: of the offline recogniser, by its own names.
    of_field: the name of the field that each option comes from.
    """

    file: BinaryIO
    model: str
    format: str
    language: str | None
    words: bool
    stream: bool
    options: Mapping[str, Any]
    of_field: Mapping[str, str]


def parse_form(form: FormData, models: Collection[str]) -> TranscriptionRequest:
    """Check a form.

    Args:
        models: names that may be asked for; the first is the default.

    Raises:
        Refused: with the name of the field that is missing, unknown or wrong.
    """
    file, fields = form.get("file"), _grouped(form)
    if not isinstance(file, UploadFile):
        raise Refused(400, "expected the audio file in the form field 'file' (multipart/form-data)", "file")
    for name in fields:
        known_field(name, FIELDS)
    stream = _choice(fields, "stream", ("false", "true"), aliases={"0": "false", "1": "true"}) == "true"
    format = _choice(fields, "response_format", FORMATS) or "json"
    if stream and format not in ("json", "text"):
        refuse("response_format", f"{format!r} cannot be had with stream=true; leave one of them out")
    granularities = [
        one_of("timestamp_granularities", v, GRANULARITIES) for v in fields.get("timestamp_granularities", [])
    ]
    if granularities and format != "verbose_json":
        refuse("timestamp_granularities", f"needs response_format 'verbose_json', got {format!r}")
    chosen: dict[str, tuple[str, Any]] = {}
    if "word" in granularities:
        chosen["word_timestamps"] = ("timestamp_granularities", True)
    if prompt := _text(fields, "prompt"):
        chosen["initial_prompt"] = ("prompt", prompt)
    if temperature := _number(fields, "temperature", 0.0, HIGHEST_TEMPERATURE):
        chosen["temperatures"] = ("temperature", _rising(temperature))
    if _leaves_out_pauses(fields.get("chunking_strategy", [])):
        chosen["vad_filter"] = ("chunking_strategy", True)
    if language := _text(fields, "language"):
        chosen["language"] = ("language", language)
    return TranscriptionRequest(
        file.file,
        model_named(_single(fields, "model"), models, (ALIAS,), "no model for files"),
        format,
        language,
        "word" in granularities,
        stream,
        {name: value for name, (_, value) in chosen.items()},
        {name: field for name, (field, _) in chosen.items()},
    )


def _grouped(form: FormData) -> dict[str, list[str]]:
    """Values by field. Lists come as ``name``, ``name[]`` or ``name[0]``, and objects as ``name[key]`` or as JSON."""
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, str):
            if name != "file":
                raise Refused(400, f"field {name!r} has to be a text, not a file", name)
            continue
        base, _, key = name.partition("[")
        key = key.removesuffix("]")
        if base == "chunking_strategy" and key:
            value = json.dumps({key: value})
        fields.setdefault(base, []).append(value)
    return fields


def _single(fields: Mapping[str, list[str]], name: str) -> str | None:
    values = fields.get(name, [])
    if len(values) > 1:
        refuse(name, f"has {len(values)} values; give one")
    return values[0] if values and values[0] else None


def _text(fields: Mapping[str, list[str]], name: str) -> str | None:
    value = _single(fields, name)
    if value is not None and len(value) > LONGEST_TEXT:
        refuse(name, f"may have {LONGEST_TEXT} characters, got {len(value)}")
    return value


def _number(fields: Mapping[str, list[str]], name: str, low: float, high: float) -> float | None:
    value = _single(fields, name)
    return None if value is None else within(name, value, low, high)


def _choice(
    fields: Mapping[str, list[str]], name: str, choices: Collection[str], aliases: Mapping[str, str] | None = None
) -> str | None:
    value = _single(fields, name)
    if value is None:
        return None
    return one_of(name, (aliases or {}).get(value, value.lower() if aliases else value), choices)


def _rising(first: float) -> tuple[float, ...]:
    """A temperature and those to try in turn while the result looks wrong: one alone may write a word without end."""
    steps = int((HIGHEST_TEMPERATURE - first) / TEMPERATURE_STEP + 1e-6)
    return tuple(round(first + TEMPERATURE_STEP * step, 6) for step in range(steps + 1))


def _leaves_out_pauses(values: list[str]) -> bool:
    """Whether pauses are to be left out; what else a ``server_vad`` object asks for has to be plausible."""
    if not values or values == ["auto"]:
        return bool(values)
    strategy: dict[str, Any] = {}
    for value in values:
        try:
            part = json.loads(value)
        except (ValueError, RecursionError):
            part = None
        if not isinstance(part, dict):
            refuse("chunking_strategy", f"has to be 'auto' or an object of type 'server_vad', got {value[:60]!r}")
        strategy |= part
    if strategy.get("type") != "server_vad":
        refuse("chunking_strategy", f"type {str(strategy.get('type'))[:60]!r} is unknown; expected 'server_vad'")
    if others := strategy.keys() - {"type"}:
        name = min(others)
        refuse("chunking_strategy", f"{name[:60]!r} cannot be set here; give {{'type': 'server_vad'}} alone, or 'auto'")
    return True
