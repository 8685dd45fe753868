"""``POST /v1/audio/transcriptions`` as OpenAI defines it: a file in; json, text, captions, words or a stream out."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import AudioReader, to_mono_float32
from loquent.speech.audio.resample import resample_blocks
from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.limits import Limits
from loquent.speech.net.models import Fitting, Model
from loquent.speech.net.openai.answers import error_answer, failure_event, sent_event, transcription_answer
from loquent.speech.net.openai.form import TranscriptionRequest, parse_form
from loquent.speech.net.uploads import NotRead, Refused, Uploads, impatient, watched
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure, Word
from loquent.speech.runtime.options import OptionError
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream

log = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
# What a stream calls the options of the offline recogniser; what is not here, it has not got.
_OF_STREAM = {"language": "language", "initial_prompt": "prompt"}


class Transcriptions:
    """The endpoint, as an ASGI application.

    Whole results come from the offline recogniser, streams from a session of an engine. A file waits on disk, and is
    decoded when its turn comes. From its last byte on, it holds one of ``max_uploads`` places until the last byte of
    its answer is sent, or its client is gone: then whatever is computed for it ends at the next window.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        admission: Admission,
        transcribe: Callable[..., Any] | None,
        limits: Limits,
    ) -> None:
        self.models = Fitting(models, takes="audio", gives="text")
        self.admission, self.transcribe, self.limits = admission, transcribe, limits
        self.uploads = Uploads(limits)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loquent-transcribe")
        self._stopping = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the file and answer."""
        send = impatient(send, self.limits.send_timeout_s)
        try:
            await self._serve(scope, receive, send)
        except ClientDisconnect:
            log.info("a client left before it had its transcription")
        except NotRead:
            log.warning("a client did not read its transcription for %g s", self.limits.send_timeout_s)

    def shut_down(self) -> None:
        """Let the worker thread end, after the window under way."""
        self._stopping.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            form = await self.uploads.receive(Request(scope, receive))
            try:
                request = parse_form(form, self.models)
                self.admission.metrics.uploads.labels("recognition", request.model).inc()
                with self.uploads.place():
                    response = await self._answer(request, receive)
                    return await response(scope, receive, send)
            finally:
                await form.close()
        except Refused as refusal:
            if refusal.status == 429:
                self.admission.metrics.refused("uploads", "recognition")
            response = error_answer(refusal.status, str(refusal), refusal.param, refusal.kind)
        except HTTPException as error:  # a form that cannot be read
            response = error_answer(error.status_code, error.detail)
        await response(scope, receive, send)

    async def _answer(self, request: TranscriptionRequest, receive: Receive) -> Response:
        if request.stream:
            return await self._stream(request, await self._in_worker(receive, self._read, request.file))
        if self.transcribe is None:
            raise Refused(404, "this server has no offline recogniser; ask for stream=true, or use /v1/stream")
        result, duration_s = await self._in_worker(receive, self._transcribed, request)
        return transcription_answer(result, request, duration_s)

    async def _in_worker(self, receive: Receive, function: Callable[..., Any], argument: Any) -> Any:
        """Run a function when its turn comes, until its client is gone."""
        gone = threading.Event()
        async with watched(receive, gone) as watcher:
            job = self._worker.submit(function, argument, gone)
            result = asyncio.wrap_future(job)
            await asyncio.wait((result, watcher), return_when=asyncio.FIRST_COMPLETED)
            if gone.is_set() and job.cancel():  # its turn had not come
                raise ClientDisconnect
            return await result

    def _transcribed(self, request: TranscriptionRequest, gone: threading.Event) -> tuple[Any, float]:
        """The result, and the length of the recording in seconds."""
        assert self.transcribe is not None
        for option in request.options:
            if not _takes(self.transcribe, option):
                field = request.of_field[option]
                raise Refused(400, f"{field}: this server's recogniser has no such option; leave it out", field)
        samples = self._read(request.file, gone)
        try:
            result = self.transcribe(samples, progress=lambda *_: self._go_on(gone), **request.options)
        except ValueError as error:
            raise Refused(400, str(error), _blamed(error, request)) from error
        return result, len(samples) / SAMPLE_RATE

    def _read(self, file: BinaryIO, gone: threading.Event) -> np.ndarray:
        """The samples at 16 kHz. At the file's own rate no more than a second is held."""
        samples, longest_s = array("f"), self.limits.max_upload_s
        try:
            with AudioReader(file) as reader:
                blocks = (to_mono_float32(block, reader.channels) for block in reader.blocks(1.0))
                for part in resample_blocks(blocks, reader.sample_rate, SAMPLE_RATE, reader.name):
                    self._go_on(gone)
                    samples.frombytes(part.tobytes())
                    if len(samples) > longest_s * SAMPLE_RATE:
                        raise Refused(413, f"the file is longer than the {longest_s:g} s this server takes", "file")
        except AudioError as error:
            raise Refused(400, str(error), "file") from error
        return np.frombuffer(samples, np.float32)

    def _go_on(self, gone: threading.Event) -> None:
        if self._stopping.is_set():
            raise Refused(503, "the server is shutting down")
        if gone.is_set():
            raise ClientDisconnect

    async def _stream(self, request: TranscriptionRequest, samples: np.ndarray) -> Response:
        model, options = self.models[request.model], {}
        for option, value in request.options.items():
            name, field = _OF_STREAM.get(option, option), request.of_field[option]
            if option not in _OF_STREAM or not model.has_option(name):
                raise Refused(400, f"{field}: streams of this model have no such option; leave it out", field)
            options[name] = value
        try:
            stream, _ = await self.admission.open(model, sample_rate=SAMPLE_RATE, options=options)
        except (EngineFull, TooManyTables) as full:
            raise Refused(503, str(full), kind="server_error") from full
        except (ValueError, TypeError) as error:
            raise Refused(400, str(error), _blamed(error, request)) from error
        return _EventStream(self.admission.scheduler, stream, samples, self.limits.buffer_s)


def _takes(function: Callable[..., Any], option: str) -> bool:
    parameters = inspect.signature(function).parameters
    return option in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _blamed(error: Exception, request: TranscriptionRequest) -> str | None:
    """The field whose option an error is about: it begins with the option's name, or has it in quotes or the like."""
    text = str(error)
    if isinstance(error, OptionError):
        return request.of_field.get(text.partition(":")[0])
    return next((field for option, field in request.of_field.items() if option in text), None)


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
                    yield sent_event(failure_event(event))
                    return
                if isinstance(event, Word):
                    text += event.text
                    yield sent_event({"type": "transcript.text.delta", "delta": event.text})
        yield sent_event({"type": "transcript.text.done", "text": text.strip()})

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
