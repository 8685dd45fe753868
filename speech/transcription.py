"""``POST /v1/audio/transcriptions`` as OpenAI defines it: a file in; json, text, captions, words or a stream out."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from loquent.speech import captions
from loquent.speech.audio import AudioError, blocks
from loquent.speech.connection import Limits
from loquent.speech.engine import EngineFull
from loquent.speech.events import Event, Failure, Word
from loquent.speech.resample import resample
from loquent.speech.session import Session
from loquent.speech.stepper import Stepper

SAMPLE_RATE = 16_000
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")


class Transcriptions:
    """The endpoint. Whole results come from the offline recogniser, streams from a session of an engine."""

    def __init__(self, steppers: Mapping[str, Stepper], transcribe: Callable[..., Any] | None, limits: Limits) -> None:
        self.steppers, self.transcribe, self.limits = steppers, transcribe, limits
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-transcribe")
        self._running = 0

    async def endpoint(self, request: Request) -> Response:
        """Receive the file and answer."""
        if self._running >= self.limits.max_uploads:
            busy = f"{self._running} files are being transcribed; try again later"
            return _error(429, busy, "rate_limit_error")
        self._running += 1
        try:
            return await self._answer(request)
        except _Refused as refusal:
            return _error(refusal.status, str(refusal))
        except HTTPException as error:  # a form that cannot be read
            return _error(error.status_code, error.detail)
        finally:
            self._running -= 1

    def shut_down(self) -> None:
        """Let the worker thread end, after its file under way."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    async def _answer(self, request: Request) -> Response:
        bounded = Request(request.scope, _bounded(request.receive, self.limits.max_upload_bytes))
        async with bounded.form(max_files=1, max_fields=32, max_part_size=65_536) as form:
            wish = self._wish(form)
            if not wish.stream and self.transcribe is None:
                raise _Refused(404, "this server has no offline recogniser; ask for stream=true, or use /v1/stream")
            samples = await self._in_worker(_read, wish.file, self.limits.max_upload_s)
        if wish.stream:
            return self._stream(wish, samples)
        options: dict[str, Any] = {"language": wish.language} if wish.language else {}
        if wish.words:
            options["word_timestamps"] = True
        try:
            result = await self._in_worker(self.transcribe, samples, **options)
        except ValueError as error:
            raise _Refused(400, str(error)) from error
        return _rendered(result, wish, len(samples) / SAMPLE_RATE)

    async def _in_worker(self, function: Any, *args: Any, **options: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: function(*args, **options))

    def _wish(self, form: FormData) -> _Wish:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise _Refused(400, "expected the audio file in the form field 'file' (multipart/form-data)")
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        model = fields.get("model", "whisper-1")
        if model == "whisper-1":  # what clients of OpenAI send unless told otherwise
            model = next(iter(self.steppers))
        if model not in self.steppers:
            raise _Refused(404, f"no model {model!r}; this server has {', '.join(self.steppers)}")
        format = fields.get("response_format", "json")
        if format not in FORMATS:
            raise _Refused(400, f"unknown response_format {format!r}; expected one of {', '.join(FORMATS)}")
        words = "word" in form.getlist("timestamp_granularities[]")
        stream = fields.get("stream", "false").lower() in ("true", "1")
        return _Wish(file.file, model, format, fields.get("language") or None, words, stream)

    def _stream(self, wish: _Wish, samples: np.ndarray) -> Response:
        stepper = self.steppers[wish.model]
        try:
            options: dict[str, Any] = {"language": wish.language} if wish.language else {}
            session = stepper.engine.open(sample_rate=SAMPLE_RATE, **options)
        except EngineFull as full:
            raise _Refused(503, str(full)) from full
        except (ValueError, TypeError) as error:
            raise _Refused(400, str(error)) from error
        return _SessionResponse(stepper, session, samples)


@dataclass(frozen=True)
class _Wish:
    file: BinaryIO
    model: str
    format: str
    language: str | None
    words: bool
    stream: bool


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _bounded(receive: Callable[[], Any], most: int) -> Callable[[], Any]:
    left = most

    async def bounded() -> Message:
        nonlocal left
        message: Message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _Refused(413, f"the upload is longer than the {most} bytes this server takes")
        return message

    return bounded


def _read(file: BinaryIO, longest_s: float) -> np.ndarray:
    parts, duration_s = [], 0.0
    try:
        for block in blocks(file, 10.0):
            duration_s += block.duration_s
            if duration_s > longest_s:
                raise _Refused(413, f"the file is longer than the {longest_s:g} s this server takes")
            parts.append(block.samples)
    except AudioError as error:
        raise _Refused(400, str(error)) from error
    return resample(np.concatenate(parts), block.sample_rate, SAMPLE_RATE)


def _rendered(result: Any, wish: _Wish, duration_s: float) -> Response:
    segments: list[captions.Segment] = list(result.segments)
    if wish.format == "json":
        return JSONResponse({"text": result.text.strip()})
    if wish.format == "text":
        return PlainTextResponse(result.text.strip() + "\n")
    if wish.format in ("srt", "vtt"):
        out = io.StringIO()
        captions.write(wish.format, segments, out)
        return PlainTextResponse(out.getvalue())
    body = {
        "task": "transcribe",
        "language": result.language,
        "duration": round(duration_s, 3),
        "text": result.text.strip(),
        "segments": [{"id": i, "start": s.start, "end": s.end, "text": s.text} for i, s in enumerate(segments)],
    }
    if wish.words:
        words = [word for segment in segments for word in segment.words]
        body["words"] = [{"word": word.text.strip(), "start": word.start, "end": word.end} for word in words]
    return JSONResponse(body)


class _SessionResponse(StreamingResponse):
    """Server-sent events: words as they are committed, then the whole text. However it ends, the slot is freed."""

    def __init__(self, stepper: Stepper, session: Session, samples: np.ndarray) -> None:
        self.stepper, self.session = stepper, session
        super().__init__(self._lines(samples), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stepper.detach(self.session)

    async def _lines(self, samples: np.ndarray) -> AsyncIterator[str]:
        steps: asyncio.Queue[list[Event]] = asyncio.Queue()
        self.stepper.attach(self.session, steps.put_nowait)
        self.session.feed(samples)
        self.session.end()
        self.stepper.wake()
        text = ""
        while not (self.session.done and steps.empty()):
            for event in await steps.get():
                if isinstance(event, Failure):
                    yield _sent({"type": "error", "code": event.code, "message": event.message})
                    return
                if isinstance(event, Word):
                    text += event.text
                    yield _sent({"type": "transcript.text.delta", "delta": event.text})
        yield _sent({"type": "transcript.text.done", "text": text.strip()})


def _sent(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"


def _error(status: int, message: str, kind: str = "invalid_request_error") -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
