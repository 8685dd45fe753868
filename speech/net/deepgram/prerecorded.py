"""``POST /v1/listen`` as Deepgram defines it: the bytes of a recording in; text, words and utterances of it out."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import http
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from loquent.speech.net.admission import Admission
from loquent.speech.net.deepgram.answers import Heading, Shape, transcription
from loquent.speech.net.dialect import MessageRefused, string
from loquent.speech.net.dialects.deepgram import FEATURES, asked_language, asked_phrases, flag
from loquent.speech.net.models import DEEPGRAM_MODELS, Model, Models, UnknownModel
from loquent.speech.net.protocol import MAX_NAME
from loquent.speech.net.recordings import Job, Recordings
from loquent.speech.net.uploads import NotRead, Refused, impatient

log = logging.getLogger(__name__)

MORE_FEATURES = (  # of recordings, that nothing here provides
    *("summarize", "topics", "intents", "sentiment", "custom_topic", "custom_intent"),
)
PARAMETERS = {
    "model": "A name from `/v1/models`; one of Deepgram's, or none, is the server's first model.",
    "language": "Code; what the server was started with, or detected, if it is missing or `multi`.",
    "detect_language": "Detect the language, and tell it.",
    "keyterm": "What is likely to be said.",
    "keywords": "Likewise; what follows a colon has no effect.",
    "multichannel": "Transcribe every channel by itself, instead of their mean.",
    "utterances": "Add utterances: words between which there are no long pauses.",
    "utt_split": "How long such a pause is, in seconds.",
    "paragraphs": "Add paragraphs, one for every utterance, and their sentences.",
}
PAUSE_S = 0.8  # between two utterances, unless `utt_split` says otherwise
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class _Wanted:
    """What the parameters of a request ask for; ``options`` are those of the recogniser."""

    model: str
    apart: bool  # every channel by itself
    options: Mapping[str, Any]
    of_field: Mapping[str, str]
    shape: Shape


class Prerecorded:
    """The endpoint, as an ASGI application."""

    def __init__(self, models: Models, admission: Admission, recordings: Recordings) -> None:
        self.models = models.only(lambda one: one.hears)
        self.admission, self.recordings, self.limits = admission, recordings, recordings.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the recording and answer."""
        send = impatient(send, self.limits.send_timeout_s)
        try:
            await self._serve(scope, receive, send)
        except ClientDisconnect:
            log.info("a client left before it had its transcription")
        except NotRead:
            log.warning("a client did not read its transcription for %g s", self.limits.send_timeout_s)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, id = Request(scope, receive), str(uuid.uuid4())
        try:
            wanted = self._wanted(request)
            uploads = self.recordings.uploads
            async with uploads.receive_file(request) as file:
                with uploads.place():
                    body = await self._answer(wanted, file, id, receive)
                    return await JSONResponse(body)(scope, receive, send)
        except Refused as refusal:
            if refusal.status == 429:
                self.admission.metrics.refusals.labels("uploads").inc()
            headers = {"Connection": "close"} if refusal.status == 408 else None
            error = {"err_code": http.HTTPStatus(refusal.status).phrase, "err_msg": str(refusal), "request_id": id}
            response = JSONResponse(error, refusal.status, headers)
        await response(scope, receive, send)

    async def _answer(self, wanted: _Wanted, file: BinaryIO, id: str, receive: Receive) -> dict[str, Any]:
        created = datetime.datetime.now(datetime.UTC).isoformat()
        sha256 = await asyncio.to_thread(_digest, file)
        job = Job(file, wanted.options, wanted.of_field)
        channels = await self.recordings.transcribe(job, receive, wanted.apart)
        heading = Heading(id, created, sha256, wanted.model)
        return transcription(heading, channels, wanted.shape)

    def _wanted(self, request: Request) -> _Wanted:
        if self.recordings.recognizer is None:
            raise Refused(404, "this server has no recogniser for files; use the live protocol, WS /v1/listen")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            raise Refused(400, "this server fetches no URLs; send the recording itself as the body of the request")
        try:
            return self._parsed(request.query_params)
        except UnknownModel as error:
            raise Refused(404, str(error)) from error
        except MessageRefused as refusal:
            raise Refused(400, str(refusal)) from refusal

    def _parsed(self, query: Mapping[str, str]) -> _Wanted:
        for name in (*FEATURES, *MORE_FEATURES):
            if query.get(name, "false").lower() != "false":
                raise Refused(400, f"{name}: this server does not do that; leave it out")
        model = query.get("model", "")
        name = self.models.named(string(model, "model", MAX_NAME) if model else None, DEEPGRAM_MODELS)
        options: dict[str, Any] = {"word_timestamps": True}
        of_field = {"word_timestamps": "words"}
        if phrases := asked_phrases(query):
            options |= _expected(self.models[name], phrases)
            of_field |= dict.fromkeys(("phrases", "hotwords"), "keyterm")
        detect = flag(query, "detect_language")
        if detect or asked_language(query):
            options["language"], of_field["language"] = None if detect else asked_language(query), "language"
        shape = Shape(
            utterances=flag(query, "utterances"),
            paragraphs=flag(query, "paragraphs"),
            language=detect,
            pause_s=_pause(query.get("utt_split")),
        )
        return _Wanted(name, flag(query, "multichannel"), options, of_field, shape)


def _expected(model: Model, phrases: list[str]) -> dict[str, Any]:
    """The option for what is likely to be said: Whisper is told of it in its prompt."""
    return {"phrases": phrases} if model.has_option("phrases") else {"hotwords": ", ".join(phrases)}


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for part in iter(lambda: file.read(2**20), b""):
        digest.update(part)
    file.seek(0)
    return digest.hexdigest()


def _pause(value: str | None) -> float:
    try:
        pause_s = PAUSE_S if value is None else float(value)
    except ValueError:
        pause_s = -1.0
    if not 0 <= pause_s <= LONGEST_PAUSE_S:
        raise Refused(400, f"utt_split: expected seconds from 0 to {LONGEST_PAUSE_S:g}, got {str(value)[:60]!r}")
    return pause_s
