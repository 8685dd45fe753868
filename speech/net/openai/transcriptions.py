"""``POST /v1/audio/transcriptions`` and ``…/translations`` as OpenAI defines them: a file in, text or captions out.

A transcription may also come as a stream of server-sent events.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.models import Models
from loquent.speech.net.openai.answers import (
    error_answer,
    failure_event,
    sent_event,
    told_logprobs,
    transcription_answer,
)
from loquent.speech.net.openai.form import TranscriptionRequest, parse_form
from loquent.speech.net.recordings import SAMPLE_RATE, Recordings
from loquent.speech.net.uploads import NotRead, Refused, impatient, watched
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure, Word
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream
from loquent.speech.transcript import Segment

log = logging.getLogger(__name__)

# What a stream calls the options of the offline recogniser; what is not here, it has not got.
_OF_STREAM = {"language": "language", "initial_prompt": "prompt"}


class Transcriptions:
    """One of the endpoints, as an ASGI application.

    Whole results come from the offline recogniser. Server-sent events come from a session of an engine, unless an
    option is asked for that only the offline recogniser has: then they are its segments.

    Args:
        translate: into English, instead of writing down what is said.
    """

    def __init__(self, models: Models, admission: Admission, recordings: Recordings, translate: bool = False) -> None:
        self.models = models.only(lambda one: one.hears)
        self.admission, self.recordings, self.translate = admission, recordings, translate
        self.limits = recordings.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the file and answer."""
        send = impatient(send, self.limits.send_timeout_s)
        try:
            await self._serve(scope, receive, send)
        except ClientDisconnect:
            log.info("a client left before it had its transcription")
        except NotRead:
            log.warning("a client did not read its transcription for %g s", self.limits.send_timeout_s)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        uploads = self.recordings.uploads
        try:
            form = await uploads.receive(Request(scope, receive))
            try:
                request = parse_form(form, self.models, self.translate)
                self.admission.metrics.uploads.labels("recognition", request.model).inc()
                with uploads.place():
                    response = await self._answer(request, receive, scope.get("loquent.stream", lambda: None))
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

    async def _answer(self, request: TranscriptionRequest, receive: Receive, counted: Callable[[], object]) -> Response:
        if request.stream:
            return await self._stream(request, receive, counted)
        if self.recordings.recognizer is None:
            raise Refused(404, "this server has no offline recogniser; ask for stream=true, or use /v1/stream")
        ((result, duration_s),) = await self.recordings.transcribe(request.job, receive)
        return transcription_answer(result, request, duration_s)

    async def _stream(self, request: TranscriptionRequest, receive: Receive, counted: Callable[[], object]) -> Response:
        """Words of a session, or segments; ``counted`` counts a stream of the client's key, if it may have another."""
        model, job, options = self.models[request.model], request.job, {}
        for option, value in job.options.items():
            name, field = _OF_STREAM.get(option, option), job.of_field[option]
            if option in _OF_STREAM and model.has_option(name):
                options[name] = value
            elif self.recordings.recognizer is not None:
                return await self._segments(request, receive)
            else:
                raise Refused(400, f"{field}: streams of this model have no such option; leave it out", field)
        counted()
        samples = await self.recordings.samples(job, receive)
        if self.models.get(request.model) is not model:
            raise Refused(404, f"model {request.model!r} is not there any more; ask for another one", "model")
        try:
            stream, _ = await self.admission.open(model, sample_rate=SAMPLE_RATE, options=options)
        except (EngineFull, TooManyTables) as full:
            raise Refused(503, str(full), kind="server_error") from full
        except (ValueError, TypeError) as error:
            raise Refused(400, str(error), job.blamed(error)) from error
        return _WordStream(self.admission.scheduler, stream, samples, self.limits.buffer_s)

    async def _segments(self, request: TranscriptionRequest, receive: Receive) -> Response:
        """A stream of segments; what fails before the first one is an error with a status."""
        gone = threading.Event()
        segments = self.recordings.segments(request.job, gone)
        async with watched(receive, gone) as watcher:
            first = asyncio.ensure_future(anext(segments, None))
            await asyncio.wait((first, watcher), return_when=asyncio.FIRST_COMPLETED)
            if watcher.done() and not first.done():
                first.cancel()  # which ends the work
                await asyncio.gather(first, return_exceptions=True)
                raise ClientDisconnect
            return _SegmentStream(await first, segments, request.logprobs)


class _SegmentStream(StreamingResponse):
    """Server-sent events: segments as they become final, then the whole text. However it ends, the work does, too."""

    def __init__(self, first: Segment | None, rest: AsyncGenerator[Segment, None], logprobs: bool) -> None:
        self._first, self._rest, self._with_logprobs = first, rest, logprobs
        super().__init__(self._lines(), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()

    async def _lines(self) -> AsyncIterator[str]:
        segments, segment = list[Segment](), self._first
        while segment is not None:
            segments.append(segment)
            yield sent_event({"type": "transcript.text.delta", "delta": segment.text} | self._logprobs([segment]))
            try:
                segment = await anext(self._rest, None)
            except Refused as refusal:
                yield sent_event(failure_event(Failure(code="shutting_down", message=str(refusal))))
                return
        text = "".join(one.text for one in segments).strip()
        yield sent_event({"type": "transcript.text.done", "text": text} | self._logprobs(segments))

    def _logprobs(self, segments: list[Segment]) -> dict[str, object]:
        return {"logprobs": told_logprobs(segments)} if self._with_logprobs else {}


class _WordStream(StreamingResponse):
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
