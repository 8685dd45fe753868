"""The endpoints of a server, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from loquent.speech.net.admission import Admission, Relief
from loquent.speech.net.connections.connection import Connection
from loquent.speech.net.deepgram.prerecorded import Prerecorded
from loquent.speech.net.dialect import Dialect, Socket
from loquent.speech.net.dialects.deepgram import Deepgram
from loquent.speech.net.dialects.realtime import Realtime
from loquent.speech.net.dialects.vllm import Vllm
from loquent.speech.net.dialects.vosk import Vosk
from loquent.speech.net.limits import Limits
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import Model, Models, offer_of
from loquent.speech.net.openai.answers import error_answer, model_description
from loquent.speech.net.openai.speech import Speeches
from loquent.speech.net.openai.transcriptions import Transcriptions
from loquent.speech.net.openapi import description
from loquent.speech.net.operation.admin import Admin
from loquent.speech.net.operation.keys import Keys
from loquent.speech.net.protocol import ServerProtocol
from loquent.speech.net.recordings import Recordings
from loquent.speech.net.sessions.connection import ResumableConnection
from loquent.speech.net.sessions.sessions import Sessions
from loquent.speech.net.sockets import Sockets
from loquent.speech.net.wyoming.listener import WyomingListener
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream

log = logging.getLogger(__name__)


class Service:
    """The endpoints and what they share."""

    def __init__(
        self,
        models: Models,
        translators: dict[tuple[str, str], Engine],
        limits: Limits,
        max_streams: int | None,
        transcribe: Callable[..., Any] | None,
        keys: Keys,
        sessions: Sessions,
    ) -> None:
        self.models, self.translators, self.limits, self.metrics = models, translators, limits, Metrics()
        self.admin: Admin | None = None
        self.keys, self.sessions = keys, sessions
        engines = list(
            dict.fromkeys(
                engine for model in models.values() for engine in (*model.stages.values(), *model.translators.values())
            )
        )
        self.scheduler = Scheduler(engines, max_streams, self.metrics.observe_step, limits.max_load)
        self.admission, self.relief = Admission(self.scheduler, limits, self.metrics), Relief(self.scheduler, limits)
        self.sockets = Sockets(limits, self.metrics.refused)
        self.recordings = Recordings(transcribe, limits)
        self.transcriptions = Transcriptions(models, self.admission, self.recordings)
        self.translations = Transcriptions(models, self.admission, self.recordings, translate=True)
        self.prerecorded = Prerecorded(models, self.admission, self.recordings)
        self.speeches = Speeches(self.models, self.admission, limits)
        self.connections: set[Connection] = set()
        self.wyoming: WyomingListener | None = None
        self.draining = False
        self._stepping: asyncio.Task[None] | None = None
        self._observe()

    def _observe(self) -> None:
        self.metrics.connections.set_function(lambda: len(self.sockets))
        self.metrics.load.set_function(lambda: self.scheduler.load)
        self.metrics.kept.set_function(lambda: self.sessions.waiting)
        for model in self.models.values():
            self.observe(model)
        self.metrics.active.set_function(lambda: sum(engine.active for engine in self.scheduler.engines))
        self.metrics.queue_depth.set_function(lambda: sum(engine.waiting for engine in self.scheduler.engines))
        self.metrics.queue_seconds.set_function(
            lambda: sum(stream.inbox.pending for stream in self.scheduler.streams if stream.takes.kind == "audio")
        )

    def observe(self, model: Model) -> None:
        """Show how a model is used."""
        stages = tuple(model.stages.values())
        self.metrics.capacity.labels(model.name).set_function(functools.partial(self.scheduler.capacity, stages))
        self.metrics.streams.labels(model.task, model.name).set_function(lambda: model.active)

    def forget(self, model: Model) -> None:
        """Show it no more."""
        self.metrics.capacity.remove(model.name)
        self.metrics.streams.remove(model.task, model.name)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Keep the engines going."""
        self._stepping = asyncio.create_task(self.scheduler.run())
        others = [asyncio.create_task(self._relieve()), asyncio.create_task(self._sweep())]
        async with self.wyoming or contextlib.nullcontext():
            yield
        for task in (self._stepping, *others):
            task.cancel()
        await asyncio.gather(self._stepping, *others, return_exceptions=True)
        if self.admin is not None:
            self.admin.shut_down()
        self.scheduler.shut_down()
        self.admission.shut_down()
        self.recordings.shut_down()

    async def _relieve(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.limits.max_lag_s / 4))
            self.relief.look(self.connections, asyncio.get_running_loop().time())

    async def _sweep(self) -> None:
        while True:
            try:
                await self.sessions.sweep()
            except OSError as error:
                log.error("sessions that wait could not be looked through: %s", error)
            await asyncio.sleep(max(self.limits.session_keep_s / 4, 1.0))

    async def drain(self, grace_s: float) -> None:
        """Open no more streams and end those there are; returns once their clients have everything, or time is up."""
        uploads = self.recordings.uploads
        self.draining = self.speeches.closed = uploads.closed = True
        for connection in set(self.connections):
            connection.conclude("shutting_down", _goodbye(connection.stream))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.connections or self.speeches.active or uploads.held:
                    await asyncio.sleep(0.02)

    async def stream(self, websocket: WebSocket) -> None:
        """``WS /v1/stream``: the native protocol."""
        await self._serve(websocket, ServerProtocol, functools.partial(ResumableConnection, self.sessions))

    async def vosk(self, websocket: WebSocket) -> None:
        """``WS /``: the protocol of vosk-server."""
        await self._serve(websocket, Vosk)

    async def deepgram(self, websocket: WebSocket) -> None:
        """``WS /v1/listen``: Deepgram's live protocol."""
        await self._serve(websocket, Deepgram)

    async def realtime(self, websocket: WebSocket) -> None:
        """``WS /v1/realtime``: OpenAI's Realtime protocol, whose clients name a model or an intent, or vLLM's."""
        await self._serve(websocket, Realtime if {"intent", "model"} & websocket.query_params.keys() else Vllm)

    async def request(self, client: Socket, dialect: Dialect) -> None:
        """A request of a Wyoming client."""
        await self._connect(client, dialect)

    async def _serve(
        self, websocket: WebSocket, speaks: type[Dialect], connected: Callable[..., Connection] = Connection
    ) -> None:
        dialect = speaks(self.limits.max_text_bytes, self.limits.max_audio_bytes)
        await self._connect(websocket, dialect, connected)

    async def _connect(
        self, client: Socket, dialect: Dialect, connected: Callable[..., Connection] = Connection
    ) -> None:
        connection = connected(
            client,
            dialect,
            self.models,
            self.scheduler,
            self.admission,
            self.limits,
            self.metrics,
            self.keys,
            self.draining,
        )
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def health(self, request: Request) -> Response:
        """``GET /health``: 200 while streams can be opened (if a slot is free)."""
        status = self._status()
        models = {name: {"active": model.active, "capacity": model.capacity} for name, model in self.models.items()}
        return JSONResponse({"status": status, "models": models}, 200 if status == "ok" else 503)

    async def ready(self, request: Request) -> Response:
        """``GET /ready``: 200 while a model has room for another stream, so a balancer may send one here."""
        status = self._status()
        room = {name: self.scheduler.has_room(tuple(model.stages.values())) for name, model in self.models.items()}
        if status == "ok" and not any(room.values()):
            status = "full"
        return JSONResponse({"status": status, "models": room}, 200 if status == "ok" else 503)

    def _status(self) -> str:
        broken = self._stepping is not None and self._stepping.done()
        return "failed" if broken else "draining" if self.draining else "ok"

    async def show_metrics(self, request: Request) -> Response:
        """``GET /metrics``: for Prometheus."""
        return Response(self.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def offer(self, request: Request) -> Response:
        """``GET /v1/offer``: what clients can choose from, for the page and others that show it to people."""
        return JSONResponse({"models": [offer_of(name, model) for name, model in self.models.items()]})

    async def list_models(self, request: Request) -> Response:
        """``GET /v1/models``: as OpenAI's."""
        names = [*self.models, *self.models.aliases]
        return JSONResponse({"object": "list", "data": [model_description(name) for name in names]})

    async def show_model(self, request: Request) -> Response:
        """``GET /v1/models/{model}``: as OpenAI's."""
        name = request.path_params["model"]
        if name not in self.models and name not in self.models.aliases:
            why = f"no model {name[:100]!r}; this server has {', '.join([*self.models, *self.models.aliases])}"
            return error_answer(404, why, "model", code="model_not_found")
        return JSONResponse(model_description(name))

    async def describe(self, request: Request) -> Response:
        """``GET /openapi.json``."""
        return JSONResponse(description(metadata.version("loquent"), bool(self.keys)))


def _goodbye(stream: Stream | None) -> str:
    done = "the server is shutting down and has heard 0.000 s of this stream"
    if stream is not None and isinstance(stream.inbox, SampleInbox):
        done = f"the server is shutting down and has heard {stream.inbox.seconds:.3f} s of this stream"
    elif stream is not None:
        done = f"the server is shutting down and has read {stream.inbox.received} characters of this stream"
    return f"{done}; connect again to go on there"
