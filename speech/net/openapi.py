"""``/openapi.json``: what the server offers over HTTP, described from the constants that it works by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loquent.speech.audio.encoders import FILE_FORMATS
from loquent.speech.net.deepgram import prerecorded
from loquent.speech.net.openai import speech_body
from loquent.speech.net.openai.answers import DECODING
from loquent.speech.net.openai.form import (
    FIELDS,
    FORMATS,
    GRANULARITIES,
    HIGHEST_TEMPERATURE,
    INCLUDED,
    LONGEST_MS,
    TRANSLATION_FIELDS,
)

_KINDS: dict[str, dict[str, Any]] = {
    "file": {"type": "string", "format": "binary"},
    "response_format": {"type": "string", "enum": list(FORMATS), "default": "json"},
    "temperature": {"type": "number", "minimum": 0, "maximum": HIGHEST_TEMPERATURE, "default": 0},
    "timestamp_granularities": {"type": "array", "items": {"type": "string", "enum": list(GRANULARITIES)}},
    "include": {"type": "array", "items": {"type": "string", "enum": list(INCLUDED)}},
    "stream": {"type": "boolean", "default": False},
    "chunking_strategy": {
        "oneOf": [
            {"type": "string", "enum": ["auto"]},
            {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"type": "string", "enum": ["server_vad"]},
                    "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                    "silence_duration_ms": {"type": "number", "minimum": 0, "maximum": LONGEST_MS},
                    "prefix_padding_ms": {"type": "number", "minimum": 0, "maximum": LONGEST_MS},
                },
                "additionalProperties": False,
            },
        ]
    },
}
_SPEECH_KINDS: dict[str, dict[str, Any]] = {
    "input": {"type": "string", "pattern": r"\S", "maxLength": speech_body.LONGEST_INPUT},
    "voice": {
        "oneOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"id": {"type": "string"}},
                "required": ["id"],
                "additionalProperties": False,
            },
        ]
    },
    "response_format": {"type": "string", "enum": list(speech_body.FORMATS), "default": "mp3"},
    "speed": {"type": "number", "minimum": speech_body.SLOWEST, "maximum": speech_body.FASTEST, "default": 1},
    "stream_format": {"type": "string", "enum": list(speech_body.STREAM_FORMATS), "default": "audio"},
}
_LISTEN_KINDS: dict[str, dict[str, Any]] = {
    "model": {"type": "string"},
    "language": {"type": "string"},
    "keyterm": {"type": "array", "items": {"type": "string"}},
    "keywords": {"type": "array", "items": {"type": "string"}},
    "utt_split": {
        "type": "number",
        "minimum": 0,
        "maximum": prerecorded.LONGEST_PAUSE_S,
        "default": prerecorded.PAUSE_S,
    },
}
_ERRORS = {
    "400": "A field is wrong; `param` names it.",
    "401": "The token is missing or wrong.",
    "403": "Pages of this origin may not use the server.",
    "404": "There is no such model or file, or no model that does this.",
    "408": "The request is too slow.",
    "413": "The file is too large or too long.",
    "429": "Too many files at a time.",
    "503": "All streams are in use, or the server is shutting down.",
}


def description(version: str, guarded: bool) -> dict[str, Any]:
    """The description, as OpenAPI 3.1.

    Args:
        guarded: whether clients have to present a token.
    """
    security: list[dict[str, list[str]]] = [{"token": []}] if guarded else []
    return {
        "openapi": "3.1.0",
        "info": {"title": "loquent", "version": version, "description": "Streams of speech go over WS /v1/stream."},
        "paths": {
            "/": {"get": _operation("page", "A page with a microphone.", "text/html")},
            "/page/{name}": {
                "get": _operation("pageFile", "A file that the page is made of.", "*/*", errors=("404",))
                | {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
            },
            "/health": {
                "get": _operation("health", "Whether streams can be opened.", "application/json", _any())
                | {"responses": _answers("application/json", _any()) | {"503": {"description": "They cannot."}}}
            },
            "/ready": {
                "get": _operation("ready", "Whether there is room for a stream.", "application/json", _any())
                | {"responses": _answers("application/json", _any()) | {"503": {"description": "There is none."}}}
            },
            "/metrics": {"get": _operation("metrics", "For Prometheus.", "text/plain") | {"security": security}},
            "/openapi.json": {
                "get": _operation("openapi", "This description.", "application/json", _any()) | {"security": security}
            },
            "/v1/offer": {
                "get": _operation("offer", "What clients can choose from.", "application/json", _any())
                | {"security": security}
            },
            "/v1/models": {
                "get": _operation("listModels", "The models.", "application/json", _ref("ModelList"))
                | {"security": security}
            },
            "/v1/models/{model}": {
                "get": _operation(
                    "retrieveModel", "One model.", "application/json", _ref("Model"), ("401", "403", "404")
                )
                | {"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]}
                | {"security": security}
            },
            "/v1/audio/transcriptions": {"post": _transcription() | {"security": security}},
            "/v1/audio/translations": {"post": _translation() | {"security": security}},
            "/v1/listen": {"post": _listen() | {"security": security}},
            "/v1/audio/speech": {"post": _speech() | {"security": security}},
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}} if guarded else {},
        },
    }


def _transcription() -> dict[str, Any]:
    events: dict[str, dict[str, Any]] = {"text/event-stream": {}}
    return _of_file("createTranscription", "Transcribe a file.", FIELDS, events)


def _translation() -> dict[str, Any]:
    fields = {name: FIELDS[name] for name in TRANSLATION_FIELDS}
    return _of_file("createTranslation", "Write in English what is said in a file.", fields, {})


def _of_file(name: str, summary: str, fields: Mapping[str, str], besides: dict[str, Any]) -> dict[str, Any]:
    properties = {name: _KINDS.get(name, {"type": "string"}) | {"description": text} for name, text in fields.items()}
    form = {"type": "object", "required": ["file"], "properties": properties, "additionalProperties": False}
    answers = {
        "application/json": {"schema": {"anyOf": [_ref("Transcription"), _ref("VerboseTranscription")]}},
        "text/plain": {"schema": {"type": "string"}},
        **besides,
    }
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {"200": {"description": "The text.", "content": answers}} | _errors(tuple(_ERRORS)),
    }


def _listen() -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "description": text, "schema": _LISTEN_KINDS.get(name, {"type": "boolean"})}
        for name, text in prerecorded.PARAMETERS.items()
    ]
    sound = {"schema": {"type": "string", "format": "binary"}}
    answers = {"200": {"description": "The text.", "content": {"application/json": {"schema": _ref("Listened")}}}}
    errors = {"application/json": {"schema": _ref("ListenError")}}
    refusals = {status: {"description": why, "content": errors} for status, why in _ERRORS.items()}
    return {
        "operationId": "listen",
        "summary": "Transcribe a file, as Deepgram does.",
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"audio/*": sound, "application/octet-stream": sound}},
        "responses": answers | refusals,
    }


def _speech() -> dict[str, Any]:
    kinds, fields = _SPEECH_KINDS, speech_body.FIELDS
    properties = {name: kinds.get(name, {"type": "string"}) | {"description": text} for name, text in fields.items()}
    for name in properties.keys() - {"input", "speed"}:  # null and an empty text are as good as nothing
        properties[name] = {"anyOf": [properties[name], {"enum": [None, ""]}]}
    properties["speed"] = {"anyOf": [properties["speed"], {"type": "null"}]}
    body = {"type": "object", "required": ["input"], "properties": properties, "additionalProperties": False}
    sound = {"schema": {"type": "string", "format": "binary"}}
    answers: dict[str, Any] = {format.media_type: sound for format in FILE_FORMATS.values()}
    answers["text/event-stream"] = {}
    errors = tuple(status for status in _ERRORS if status not in ("413", "429"))
    return {
        "operationId": "createSpeech",
        "summary": "Speak a text.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "The speech.", "content": answers}} | _errors(errors),
    }


def _operation(
    name: str, summary: str, media: str, schema: dict[str, Any] | None = None, errors: tuple[str, ...] = ()
) -> dict[str, Any]:
    answers = _answers(media, schema or {"type": "string"}) | _errors(errors)
    return {"operationId": name, "summary": summary, "responses": answers}


def _answers(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "The answer.", "content": {media: {"schema": schema}}}}


def _errors(statuses: tuple[str, ...]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Error")}}
    return {status: {"description": _ERRORS[status], "content": content} for status in statuses}


def _schemas() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    number = {"type": "number"}
    model = {"id": text, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": text}
    segment: dict[str, Any] = {"id": {"type": "integer"}, "start": number, "end": number, "text": text}
    segment["seek"] = {"type": ["integer", "null"]}
    segment["tokens"] = {"type": ["array", "null"], "items": {"type": "integer"}}
    segment |= {name: {"type": ["number", "null"]} for name in DECODING}
    word = {"word": text, "start": number, "end": number}
    verbose = {
        "task": text,
        "language": {"type": ["string", "null"]},
        "duration": number,
        "text": text,
        "segments": {"type": "array", "items": _object(segment)},
    }
    logprob = {"token": text, "logprob": number, "bytes": {"type": "array", "items": {"type": "integer"}}}
    usage = _object({"type": {"const": "duration"}, "seconds": number})
    nullable = {"type": ["string", "null"]}
    error = {"message": text, "type": text, "param": nullable, "code": nullable}
    return {
        "Model": _object(model),
        "ModelList": _object({"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}),
        "Transcription": {
            "type": "object",
            "required": ["text"],
            "properties": {
                "text": text,
                "logprobs": {"type": "array", "items": _object(logprob)},
                "usage": usage,
            },
        },
        "VerboseTranscription": {
            "type": "object",
            "required": list(verbose),
            "properties": verbose | {"words": {"type": "array", "items": _object(word)}, "usage": usage},
        },
        "Listened": _object({"metadata": _any(), "results": _any()}),
        "ListenError": _object({"err_code": text, "err_msg": text, "request_id": text}),
        "Error": _object({"error": _object(error)}),
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _any() -> dict[str, Any]:
    return {"type": "object"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
