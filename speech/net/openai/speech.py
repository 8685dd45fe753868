"""``POST /v1/audio/speech`` as OpenAI defines it: a text in, and its speech out while it is being made."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from loquent.speech.audio.codecs import nearest_rate
from loquent.speech.audio.encoders import FILE_FORMATS, file_encoder
from loquent.speech.audio.resample import Resampler, resample_piece
from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.limits import Limits
from loquent.speech.net.models import Model, Models
from loquent.speech.net.openai.answers import error_answer, failure_event, sent_event
from loquent.speech.net.openai.speech_body import LONGEST_INPUT, OPENAI_VOICES, SpeechRequest, parse_body
from loquent.speech.net.uploads import NotRead, Refused, impatient, watched
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Failure, Speech
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream

log = logging.getLogger(__name__)

PCM_RATE = 24_000  # Hz, of the format that has no header to tell it
TOKENS_PER_SECOND = 20  # of audio, as OpenAI counts them


class Speeches:
    """The endpoint, as an ASGI application.

    Each request is a stream of its own, like those of websockets: it needs a slot, pauses while its client does not
    read on, and ends when its client leaves.

    Attributes:
        active: texts that are being spoken.
        closed: whether new ones are refused, because the server is on its way down.
    """

    def __init__(self, models: Models, admission: Admission, limits: Limits) -> None:
        self.models = models.only(lambda one: one.takes.kind == "text" and one.gives.kind == "audio")
        self.admission, self.limits = admission, limits
        self.active, self.closed = 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the text and answer."""
        send = impatient(send, self.limits.send_timeout_s)
        try:
            await self._serve(scope, receive, send)
        except ClientDisconnect:
            log.info("a client left before it had all of its speech")
        except NotRead:
            self.admission.metrics.failures.labels("slow_reader").inc()
            log.warning("a client did not read its speech for %g s", self.limits.send_timeout_s)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = parse_body(await self._body(Request(scope, receive)), self.models)
            await self._speak(request, receive, send)
        except Refused as refusal:
            response = error_answer(refusal.status, str(refusal), refusal.param, refusal.kind)
            await response(scope, receive, send)

    async def _body(self, request: Request) -> bytes:
        most, body = self.limits.max_text_bytes, bytearray()
        try:
            async with asyncio.timeout(self.limits.idle_timeout_s):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        longer = f"the body is longer than {most} bytes"
                        raise Refused(400, f"input: may have {LONGEST_INPUT} characters; {longer}", "input")
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self.limits.idle_timeout_s:g} s") from None
        return bytes(body)

    async def _speak(self, request: SpeechRequest, receive: Receive, send: Send) -> None:
        """Open a stream and answer with what it says, until it is over or the client leaves."""
        if self.closed:
            raise Refused(503, "the server is shutting down; try another one, or later", kind="server_error")
        gone = threading.Event()
        self.active += 1
        async with watched(receive, gone) as watcher:
            answering = asyncio.create_task(self._answer(request, send))
            try:
                await asyncio.wait((answering, watcher), return_when=asyncio.FIRST_COMPLETED)
                if gone.is_set() and not answering.done():
                    raise ClientDisconnect
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
                self.active -= 1
            await answering  # what it raised

    async def _answer(self, request: SpeechRequest, send: Send) -> None:
        model = self.models[request.model]
        media = FILE_FORMATS[request.format]
        own = model.gives.sample_rate
        assert own is not None, "a port of audio has a rate"
        rate = nearest_rate(own, (PCM_RATE,) if request.format == "pcm" else media.rates)
        stream, resampler = await self._open(model, request, rate)
        try:
            try:
                stream.feed(request.text)
            except ValueError as error:
                raise Refused(400, f"input: {error}", "input") from error
            stream.end()
            self.admission.metrics.sessions.labels(request.model).inc()
            speech = _Speech(self.admission.scheduler, stream, self.limits.stall_timeout_s)
            pieces = speech.encoded(request.format, rate, resampler)
            if request.events:
                await self._send(_events(pieces, speech, request.text), "text/event-stream", send)
            else:
                await self._send(pieces, media.media_type, send)
        finally:
            self.admission.scheduler.detach(stream)

    async def _open(self, model: Model, request: SpeechRequest, rate: int) -> tuple[Stream, Resampler]:
        options = {name: value for name, value in request.options.items() if model.has_option(name)}
        if request.options.get("speed", 1.0) != 1.0 and "speed" not in options:
            raise Refused(400, "speed: this model has one tempo; leave it out", "speed")
        try:
            try:
                stream, resampler = await self.admission.open(model, options=options, output_rate=rate)
            except ValueError as error:
                if _blamed(error, options) != "voice" or options["voice"] not in OPENAI_VOICES:
                    raise
                del options["voice"]
                stream, resampler = await self.admission.open(model, options=options, output_rate=rate)
        except (EngineFull, TooManyTables) as full:
            raise Refused(503, str(full), kind="server_error") from full
        except (ValueError, TypeError) as error:
            raise Refused(400, str(error), _blamed(error, options)) from error
        assert resampler is not None, "there is one where the model speaks and a rate is given"
        return stream, resampler

    async def _send(self, pieces: AsyncIterator[bytes], media_type: str, send: Send) -> None:
        """Send pieces as they come. What fails before the first one is an error with a status.

        Later it cuts the connection, so that nobody takes what there is for the whole.
        """
        begun = False
        try:
            async for piece in pieces:
                if not begun:
                    headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                begun = True
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except _Failed as failed:
            self.admission.metrics.failures.labels(failed.event.code).inc()
            if not begun:
                status = 503 if failed.event.code == "overloaded" else 500
                raise Refused(status, failed.event.message, kind="server_error") from failed
            log.warning("speech broke off: %s", failed.event.message)
            return
        await send({"type": "http.response.body", "body": b""})


class _Failed(Exception):
    """The stream cannot go on."""

    def __init__(self, event: Failure) -> None:
        super().__init__(event.message)
        self.event = event


class _Speech:
    """What one stream says.

    Attributes:
        seconds: of speech so far.
    """

    def __init__(self, scheduler: Scheduler, stream: Stream, patience_s: float) -> None:
        self.scheduler, self.stream, self.patience_s = scheduler, stream, patience_s
        self.seconds = 0.0
        self._news = asyncio.Event()

    async def encoded(self, format: str, rate: int, resampler: Resampler) -> AsyncIterator[bytes]:
        """The speech as a file, in pieces, of which there is at least one; while nobody asks for more, it pauses.

        Raises:
            _Failed: the stream broke down, or made no progress.
            Refused: nothing was said.
        """
        encoder = await asyncio.to_thread(file_encoder, format, rate)
        state = resampler.initial_state(1)

        def encode(samples: np.ndarray) -> bytes:
            return encoder.encode(resample_piece(resampler, state, samples))

        def finish() -> bytes:
            rest = resample_piece(resampler, state, np.zeros(0, np.float32), last=True)
            return encoder.encode(rest) + encoder.finish()

        async for samples in self._samples():
            if piece := await asyncio.to_thread(encode, samples):
                yield piece
        if not self.seconds:
            raise Refused(400, "input: there is nothing in it that can be spoken", "input")
        yield await asyncio.to_thread(finish)

    async def _samples(self) -> AsyncIterator[np.ndarray]:
        last = self.stream.sessions[-1].stage
        self.scheduler.attach(self.stream, self._news.set)
        while True:
            self._news.clear()
            done = self.stream.done
            events = self.stream.drain()
            self.scheduler.wake()  # there is room for more
            for event in events:
                if isinstance(event, Failure):
                    raise _Failed(event)
            said = [event for event in events if isinstance(event, Speech) and event.stage == last]
            if said:
                self.seconds += sum(len(event.samples) / event.sample_rate for event in said)
                yield np.concatenate([event.samples for event in said])
            elif done:
                return
            else:
                await self._progress()

    async def _progress(self) -> None:
        try:
            async with asyncio.timeout(self.patience_s):
                await self._news.wait()
        except TimeoutError:
            message = f"nothing more was said for {self.patience_s:g} s; try again later"
            raise _Failed(Failure(code="overloaded", message=message)) from None


async def _events(pieces: AsyncIterator[bytes], speech: _Speech, text: str) -> AsyncIterator[bytes]:
    """Server-sent events: the pieces, and what they came to; or why there are no more."""
    begun = False
    try:
        async for piece in pieces:
            if piece:
                audio = base64.b64encode(piece).decode()
                yield sent_event({"type": "speech.audio.delta", "audio": audio}).encode()
                begun = True
    except _Failed as failed:
        if not begun:
            raise
        yield sent_event(failure_event(failed.event)).encode()
        return
    words, tokens = len(text.split()), math.ceil(speech.seconds * TOKENS_PER_SECOND)
    usage = {"input_tokens": words, "output_tokens": tokens, "total_tokens": words + tokens}
    yield sent_event({"type": "speech.audio.done", "usage": usage}).encode()


def _blamed(error: Exception, options: Mapping[str, Any]) -> str | None:
    """The option that an error is about: its text begins with the name."""
    name = str(error).partition(":")[0]
    return name if name in options else None
