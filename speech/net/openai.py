"""``POST /v1/audio/transcriptions`` as OpenAI defines it: a file in; json, text, captions, words or a stream out."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from loquent.speech import captions
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import AudioReader, to_mono_float32
from loquent.speech.audio.resample import resample_blocks
from loquent.speech.net.limits import Limits
from loquent.speech.net.models import Model
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure, Word
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream
from loquent.speech.transcript import Segment

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")


class Transcriptions:
    """The endpoint, as an ASGI application.

    Whole results come from the offline recogniser, streams from a session of an engine. A file counts as one of
    ``max_uploads`` until the last byte of its answer is sent; it waits on disk, and is decoded when its turn comes.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        scheduler: Scheduler,
        transcribe: Callable[..., Any] | None,
        limits: Limits,
    ) -> None:
        self.models = {
            name: one for name, one in models.items() if one.takes.kind == "audio" and one.gives.kind == "text"
        }
        self.scheduler, self.transcribe, self.limits = scheduler, transcribe, limits
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-transcribe")
        self._stopping = threading.Event()
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the file and answer."""
        send = _impatient(send, self.limits.send_timeout_s)
        if self._running >= self.limits.max_uploads:
            busy = f"{self._running} files are being transcribed; try again later"
            return await _error(429, busy, "rate_limit_error")(scope, receive, send)
        self._running += 1
        try:
            response = await self._respond(Request(scope, _bounded(receive, self.limits)))
            await response(scope, receive, send)
        except ClientDisconnect:
            log.info("a client left before it had its transcription")
        except _NotRead:
            log.warning("a client did not read its transcription for %g s", self.limits.send_timeout_s)
        finally:
            self._running -= 1

    def shut_down(self) -> None:
        """Let the worker thread end, after the window under way."""
        self._stopping.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except _Refused as refusal:
            return _error(refusal.status, str(refusal))
        except HTTPException as error:  # a form that cannot be read
            return _error(error.status_code, error.detail)

    async def _answer(self, http: Request) -> Response:
        form = await self._received(http)
        try:
            request = self._parsed(form)
            if request.stream:
                samples = await self._in_worker(self._read, request.file)
            elif self.transcribe is None:
                raise _Refused(404, "this server has no offline recogniser; ask for stream=true, or use /v1/stream")
            else:
                result, duration_s = await self._in_worker(self._transcribed, request)
        finally:
            await form.close()
        return self._stream(request, samples) if request.stream else _rendered(result, request, duration_s)

    async def _received(self, request: Request) -> FormData:
        limits = self.limits
        try:
            async with asyncio.timeout(limits.max_upload_s):  # enough for whoever sends while he speaks
                return await request.form(max_files=1, max_fields=32, max_part_size=65_536)
        except TimeoutError:
            allowed = f"{limits.idle_timeout_s:g} s without any bytes, {limits.max_upload_s:g} s in all"
            raise _Refused(408, f"the upload is too slow; it may take {allowed}") from None

    async def _in_worker(self, function: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)

    def _transcribed(self, request: _Request) -> tuple[Any, float]:
        """The result, and the length of the recording in seconds."""
        assert self.transcribe is not None
        samples = self._read(request.file)
        options: dict[str, Any] = {"language": request.language} if request.language else {}
        if request.words:
            options["word_timestamps"] = True
        try:
            return self.transcribe(samples, progress=self._go_on, **options), len(samples) / SAMPLE_RATE
        except ValueError as error:
            raise _Refused(400, str(error)) from error

    def _read(self, file: BinaryIO) -> np.ndarray:
        """The samples at 16 kHz. At the file's own rate no more than a second is held."""
        samples, longest_s = array("f"), self.limits.max_upload_s
        try:
            with AudioReader(file) as reader:
                blocks = (to_mono_float32(block, reader.channels) for block in reader.blocks(1.0))
                for part in resample_blocks(blocks, reader.sample_rate, SAMPLE_RATE, reader.name):
                    self._go_on()
                    samples.frombytes(part.tobytes())
                    if len(samples) > longest_s * SAMPLE_RATE:
                        raise _Refused(413, f"the file is longer than the {longest_s:g} s this server takes")
        except AudioError as error:
            raise _Refused(400, str(error)) from error
        return np.frombuffer(samples, np.float32)

    def _go_on(self, *progress: object) -> None:
        if self._stopping.is_set():
            raise _Refused(503, "the server is shutting down")

    def _parsed(self, form: FormData) -> _Request:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise _Refused(400, "expected the audio file in the form field 'file' (multipart/form-data)")
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        model = fields.get("model", "whisper-1")
        if model == "whisper-1":  # what clients of OpenAI send unless told otherwise
            model = next(iter(self.models), model)
        if model not in self.models:
            raise _Refused(404, f"no model {model!r}; this server has {', '.join(self.models)}")
        format = fields.get("response_format", "json")
        if format not in FORMATS:
            raise _Refused(400, f"unknown response_format {format!r}; expected one of {', '.join(FORMATS)}")
        words = "word" in form.getlist("timestamp_granularities[]")
        stream = fields.get("stream", "false").lower() in ("true", "1")
        return _Request(file.file, model, format, fields.get("language") or None, words, stream)

    def _stream(self, request: _Request, samples: np.ndarray) -> Response:
        options: dict[str, Any] = {"language": request.language} if request.language else {}
        try:
            stream = self.models[request.model].open(sample_rate=SAMPLE_RATE, **options)
        except EngineFull as full:
            raise _Refused(503, str(full)) from full
        except (ValueError, TypeError) as error:
            raise _Refused(400, str(error)) from error
        return _EventStream(self.scheduler, stream, samples, self.limits.buffer_s)


@dataclass(frozen=True)
class _Request:
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


class _NotRead(Exception):
    """The client does not read its answer."""


def _bounded(receive: Receive, limits: Limits) -> Receive:
    """Refuses a body that is too long; a TimeoutError if it stops coming."""
    left = limits.max_upload_bytes

    async def bounded() -> Message:
        nonlocal left
        async with asyncio.timeout(limits.idle_timeout_s):
            message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _Refused(413, f"the upload is longer than the {limits.max_upload_bytes} bytes this server takes")
        return message

    return bounded


def _impatient(send: Send, timeout_s: float) -> Send:
    async def impatient(message: Message) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await send(message)
        except TimeoutError:
            raise _NotRead from None

    return impatient


def _rendered(result: Any, request: _Request, duration_s: float) -> Response:
    segments: list[Segment] = list(result.segments)
    if request.format == "json":
        return JSONResponse({"text": result.text.strip()})
    if request.format == "text":
        return PlainTextResponse(result.text.strip() + "\n")
    if request.format in ("srt", "vtt"):
        out = io.StringIO()
        captions.write(request.format, segments, out)
        return PlainTextResponse(out.getvalue())
    body = {
        "task": "transcribe",
        "language": result.language,
        "duration": round(duration_s, 3),
        "text": result.text.strip(),
        "segments": [{"id": i, "start": s.start, "end": s.end, "text": s.text} for i, s in enumerate(segments)],
    }
    if request.words:
        words = [word for segment in segments for word in segment.words]
        body["words"] = [{"word": word.text.strip(), "start": word.start, "end": word.end} for word in words]
    return JSONResponse(body)


class _EventStream(StreamingResponse):
    """Server-sent events: words as they are committed, then the whole text. However it ends, the slot is freed."""

    def __init__(self, scheduler: Scheduler, stream: Stream, samples: np.ndarray, buffer_s: float) -> None:
        self.scheduler, self.stream, self.buffer_s = scheduler, stream, buffer_s
        self._left = samples
        super().__init__(self._lines(), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.scheduler.detach(self.stream)

    async def _lines(self) -> AsyncIterator[str]:
        # Never long: a client that does not read on is given no further steps.
        steps: asyncio.Queue[list[Event]] = asyncio.Queue()
        self.scheduler.attach(self.stream, lambda: steps.put_nowait(self.stream.drain()))
        text = ""
        while not (self.stream.done and steps.empty()):
            self._feed()
            for event in await steps.get():
                if isinstance(event, Failure):
                    yield _sent({"type": "error", "code": event.code, "message": event.message})
                    return
                if isinstance(event, Word):
                    text += event.text
                    yield _sent({"type": "transcript.text.delta", "delta": event.text})
        yield _sent({"type": "transcript.text.done", "text": text.strip()})

    def _feed(self) -> None:
        """Fill the stream's buffer, at least as far as its next step needs."""
        first = self.stream.sessions[0]
        while not (first.done or first.inbox.ended):
            if first.inbox.pending >= self.buffer_s and (first.ready or first.busy):
                break
            if not len(self._left):
                self.stream.end()
                break
            self.stream.feed(self._left[:SAMPLE_RATE])
            self._left = self._left[SAMPLE_RATE:]
        self.scheduler.wake()


def _sent(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"


def _error(status: int, message: str, kind: str = "invalid_request_error") -> JSONResponse:
    headers = {"Connection": "close"} if status == 408 else None  # or what is still to come would be waited for
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)
