"""Answers of the endpoints of OpenAI's API: errors, models, and transcriptions in every format."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from loquent.speech import captions
from loquent.speech.net.openai.form import TranscriptionRequest
from loquent.speech.runtime.events import Failure
from loquent.speech.transcript import Segment

DECODING = ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")  # numbers in a segment


def error_answer(
    status: int, message: str, param: str | None = None, kind: str = "invalid_request_error", code: str | None = None
) -> JSONResponse:
    """An error in OpenAI's shape; ``param`` names the field that is wrong."""
    headers = {"Connection": "close"} if status == 408 else None  # or what is still to come would be waited for
    field = param and param.encode(errors="replace").decode()  # half a surrogate pair could not be sent
    error = {"message": message, "type": kind, "param": field, "code": code}
    return JSONResponse({"error": error}, status, headers)


def model_description(name: str) -> dict[str, Any]:
    """A model as ``/v1/models`` lists it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "loquent"}


def transcription_answer(result: Any, request: TranscriptionRequest, duration_s: float) -> Response:
    """A transcription in the format that was asked for.

    Args:
        result: with ``text``, ``language`` and ``segments`` (`transcript.Segment`).
        duration_s: of the recording, in seconds.
    """
    text, segments = result.text.strip(), list(result.segments)
    # As whisper-1 is paid for; of translations OpenAI does not tell it.
    usage = {} if request.translate else {"usage": {"type": "duration", "seconds": round(duration_s, 3)}}
    if request.format == "json":
        logprobs = {"logprobs": told_logprobs(segments)} if request.logprobs else {}
        return JSONResponse({"text": text} | logprobs | usage)
    if request.format == "text":
        return PlainTextResponse(text + "\n")
    if request.format in ("srt", "vtt"):
        out = io.StringIO()
        captions.write(request.format, segments, out)
        return PlainTextResponse(out.getvalue())
    body = {
        "task": "translate" if request.translate else "transcribe",
        "language": "en" if request.translate else result.language,
        "duration": round(duration_s, 3),
        "text": text,
        "segments": [_segment(number, segment) for number, segment in enumerate(segments)],
        **usage,
    }
    if request.words:
        words = [word for segment in segments for word in segment.words]
        body["words"] = [{"word": word.text.strip(), "start": word.start, "end": word.end} for word in words]
    return JSONResponse(body)


def told_logprobs(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """The tokens of segments whose log-probabilities were asked for."""
    tokens = [token for segment in segments for token in segment.logprobs or ()]
    return [{"token": token.text, "logprob": round(token.logprob, 6), "bytes": token.bytes} for token in tokens]


def failure_event(failure: Failure) -> dict[str, Any]:
    """The last message of a stream that fails; OpenAI's client raises what is under ``error``."""
    error = {"message": failure.message, "type": "server_error", "param": None, "code": failure.code}
    return {"type": "error", "code": failure.code, "message": failure.message, "error": error}


def sent_event(message: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(message)}\n\n"


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """A segment; what the recogniser does not know is null."""
    names = ("seek", "start", "end", "text", "tokens", *DECODING)
    return {"id": number} | {name: getattr(segment, name) for name in names}
