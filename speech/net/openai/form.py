"""The form that a file comes in to be transcribed or translated: its fields, checked.

A wrong value is refused by the name of its field.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import FormData, UploadFile

from loquent.speech.audio.endpoint import FILTERED_SPEECH, SpeechOptions
from loquent.speech.net.models import OPENAI_MODELS, Models
from loquent.speech.net.openai.fields import known_field, model_named, one_of, refuse, within
from loquent.speech.net.recordings import Job
from loquent.speech.net.uploads import Refused

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("segment", "word")
INCLUDED = ("logprobs",)
HIGHEST_TEMPERATURE = 1.0
TEMPERATURE_STEP = 0.2  # Whisper's
LONGEST_TEXT = 10_000  # characters of a field
VAD_SETTINGS = ("threshold", "silence_duration_ms", "prefix_padding_ms")  # of a `server_vad` object
LONGEST_MS = 60_000  # of silence or padding
LOWEST_THRESHOLD = 0.01  # of the probability of speech
FIELDS = {
    "file": "The recording, in any format that the server reads.",
    "model": "A name from `/v1/models`; one of OpenAI's, or none, is the server's first model.",
    "language": "Code or name; what the server was started with, or detected, if it is missing.",
    "prompt": "Text before the recording: names, spelling, style.",
    "response_format": "How to answer.",
    "temperature": "Of the sampling, 0 being the most probable text; it rises while the result looks wrong.",
    "timestamp_granularities": "What `verbose_json` has times of besides segments.",
    "include": "`logprobs`: the log-probability of every token, in `json` and in streams.",
    "stream": "Answer with server-sent events.",
    "chunking_strategy": "`auto`, or an object of type `server_vad`: leave out pauses.",
}
TRANSLATION_FIELDS = ("file", "model", "prompt", "response_format", "temperature")  # those of a translation


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a client asks for.

    job: the file, and the options of the offline recogniser.
    logprobs: whether to tell those of tokens.
    """

    job: Job
    model: str
    format: str
    words: bool
    stream: bool
    logprobs: bool
    translate: bool


def parse_form(form: FormData, models: Models, translate: bool = False) -> TranscriptionRequest:
    """Check a form.

    Args:
        models: that may be asked for; the first is the default.
        translate: whether the text is to be English, whatever is spoken.

    Raises:
        Refused: with the name of the field that is missing, unknown or wrong.
    """
    file, fields = form.get("file"), _grouped(form)
    if not isinstance(file, UploadFile):
        raise Refused(400, "expected the audio file in the form field 'file' (multipart/form-data)", "file")
    for name in fields:
        known_field(name, TRANSLATION_FIELDS if translate else FIELDS)
    stream = _choice(fields, "stream", ("false", "true"), aliases={"0": "false", "1": "true"}) == "true"
    format = _choice(fields, "response_format", FORMATS) or "json"
    if stream and format not in ("json", "text"):
        refuse("response_format", f"{format!r} cannot be had with stream=true; leave one of them out")
    granularities = _several(fields, "timestamp_granularities", GRANULARITIES)
    if granularities and format != "verbose_json":
        refuse("timestamp_granularities", f"needs response_format 'verbose_json', got {format!r}")
    logprobs = bool(_several(fields, "include", INCLUDED))
    if logprobs and format != "json":
        refuse("include", f"needs response_format 'json', got {format!r}")
    chosen: dict[str, tuple[str, Any]] = {}
    if "word" in granularities:
        chosen["word_timestamps"] = ("timestamp_granularities", True)
    if logprobs:
        chosen["token_logprobs"] = ("include", True)
    if prompt := _text(fields, "prompt"):
        chosen["initial_prompt"] = ("prompt", prompt)
    if temperature := _number(fields, "temperature", 0.0, HIGHEST_TEMPERATURE):
        chosen["temperatures"] = ("temperature", _rising(temperature))
    if strategy := fields.get("chunking_strategy", []):
        chosen["vad_filter"] = ("chunking_strategy", True)
        if (speech := _speech(strategy)) is not None:
            chosen["speech"] = ("chunking_strategy", speech)
    if language := _text(fields, "language"):
        chosen["language"] = ("language", language)
    if translate:
        chosen["task"] = ("model", "translate")
    options = {name: value for name, (_, value) in chosen.items()}
    return TranscriptionRequest(
        Job(file.file, options, {name: field for name, (field, _) in chosen.items()}),
        model_named(_single(fields, "model"), models, OPENAI_MODELS, "for files"),
        format,
        "word" in granularities,
        stream,
        logprobs,
        translate,
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


def _several(fields: Mapping[str, list[str]], name: str, choices: Collection[str]) -> list[str]:
    return [one_of(name, value, choices) for value in fields.get(name, [])]


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


def _speech(values: list[str]) -> SpeechOptions | None:
    """What is taken for speech where pauses are left out; None: what usually is, as with "auto"."""
    if values == ["auto"]:
        return None
    strategy: dict[str, Any] = {}
    for value in values:
        try:
            part = json.loads(value)
        except (ValueError, RecursionError):
            part = None
        if not isinstance(part, dict):
            refuse("chunking_strategy", f"has to be 'auto' or an object of type 'server_vad', got {value[:60]!r}")
        strategy |= part
    if strategy.pop("type", None) != "server_vad":
        refuse("chunking_strategy", "the type of the object is unknown; expected 'server_vad'")
    if others := strategy.keys() - VAD_SETTINGS:
        refuse("chunking_strategy", f"{min(others)[:60]!r} is unknown; expected some of {', '.join(VAD_SETTINGS)}")
    if not strategy:
        return None

    def setting(name: str, usual: float, most: float) -> float:
        return within("chunking_strategy", strategy[name], 0, most) if name in strategy else usual

    usual = FILTERED_SPEECH
    threshold = max(setting("threshold", usual.start_threshold, 1.0), LOWEST_THRESHOLD)
    silence_s = setting("silence_duration_ms", 1000 * usual.min_silence_s, LONGEST_MS) / 1000
    padding_s = setting("prefix_padding_ms", 1000 * usual.padding_s, LONGEST_MS) / 1000
    return replace(
        usual,
        start_threshold=threshold,
        end_threshold=min(usual.end_threshold, threshold),
        min_silence_s=silence_s,
        padding_s=min(padding_s, silence_s),  # more would reach into what is left out
    )
