"""Speech over HTTP: the native websocket, OpenAI's endpoints, a page with a microphone, health, metrics.

`create_app` makes a Starlette application, `serve` runs it with uvicorn until SIGINT or SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from importlib import metadata
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from loquent.speech.agent.agent import Agent
from loquent.speech.net.admission import Admission, Relief
from loquent.speech.net.connection import Connection
from loquent.speech.net.deepgram.prerecorded import Prerecorded
from loquent.speech.net.dialect import Dialect, Socket
from loquent.speech.net.dialects.deepgram import Deepgram
from loquent.speech.net.dialects.realtime import Realtime
from loquent.speech.net.dialects.vllm import Vllm
from loquent.speech.net.dialects.vosk import Vosk
from loquent.speech.net.guard import Guard
from loquent.speech.net.limits import Limits
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import Models, models_of, offer_of
from loquent.speech.net.openai.answers import error_answer, model_description
from loquent.speech.net.openai.speech import Speeches
from loquent.speech.net.openai.transcriptions import Transcriptions
from loquent.speech.net.openapi import description
from loquent.speech.net.page import Page
from loquent.speech.net.protocol import ServerProtocol
from loquent.speech.net.recordings import Recordings
from loquent.speech.net.sockets import Sockets, protocols
from loquent.speech.net.wyoming.listener import WyomingListener
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream

log = logging.getLogger(__name__)


def create_app(
    engines: Engine | Mapping[str, Engine | Mapping[str, Engine] | Agent],
    limits: Limits | None = None,
    *,
    max_streams: int | None = None,
    transcribe: Callable[..., Any] | None = None,
    token: str | None = None,
    allowed_origins: Collection[str] = (),
    translators: Mapping[tuple[str, str], Engine] | None = None,
    aliases: Mapping[str, str] | None = None,
    voice_aliases: Mapping[str, str] | None = None,
    wyoming: socket.socket | None = None,
) -> Starlette:
    """Make the application.

    Args:
        engines: an engine, or engines by model name; clients that name no model get the first. Several engines by the
            names of their stages make a model too: its streams are pipelines. So does an agent: its streams are talks.
        limits: on what clients may do.
        max_streams: most streams at a time, whatever their models; by default as many as fit the engines.
        transcribe: offline recogniser for files: called with float32 samples (N,) at 16 kHz, and with those of
            ``language``, ``task``, ``initial_prompt``, ``temperatures``, ``word_timestamps``, ``token_logprobs``,
            ``phrases``, ``hotwords``, ``vad_filter`` and ``speech`` that the client asked for; returns an object with
            ``text``, ``language`` and ``segments`` (`transcript.Segment`). Runs in a worker thread, one call at a
            time, and calls ``progress=…``, with anything, now and then: that raises once its client has gone or the
            server goes down. One that takes ``on_segment=…`` may call it with each segment as soon as it is final.
        token: what clients have to present, as ``Authorization: Bearer …`` or in the websocket's "start".
        allowed_origins: of pages that may use the server, such as "https://example.org", or host names such as
            "example.org" for pages of any scheme and port; "*" for any. The server's own page may when it is reached by
            an IP address or as localhost (a name can be pointed here by anyone).
        translators: engines by the codes of the languages that they translate from and to, for streams of models that
            make text of speech and are asked to ``translate_to``. To be offered by name, they are among the engines.
        aliases: further names of models, in every protocol: by each the model's own.
        voice_aliases: likewise, of voices.
        wyoming: bound to an address where the Wyoming protocol is spoken, too: it knows no token, so whoever reaches
            that address may use the server.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token):
        raise ValueError("the token has to be printable ASCII, as HTTP headers are")
    models = models_of(engines, translators, aliases, voice_aliases)
    service = Service(models, limits or Limits(), max_streams, transcribe, token)
    if wyoming is not None:
        service.wyoming = WyomingListener(wyoming, service.models, service.limits, service.sockets, service.request)
    app = Starlette(
        routes=[
            *Page().routes,
            Route("/health", service.health),
            Route("/metrics", service.show_metrics),
            Route("/openapi.json", service.describe),
            Route("/v1/offer", service.offer),
            Route("/v1/models", service.list_models),
            Route("/v1/models/{model:path}", service.show_model),
            Route("/v1/audio/transcriptions", service.transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", service.translations, methods=["POST"]),
            Route("/v1/audio/speech", service.speeches, methods=["POST"]),
            Route("/v1/listen", service.prerecorded, methods=["POST"]),
            WebSocketRoute("/v1/stream", service.stream),
            WebSocketRoute("/v1/listen", service.deepgram),
            WebSocketRoute("/v1/realtime", service.realtime),
            WebSocketRoute("/", service.vosk),
        ],
        middleware=[Middleware(Guard, token=token, allowed_origins=tuple(allowed_origins))],
        lifespan=service.lifespan,
    )
    app.state.service = service
    return app


def serve(
    app: Starlette, host: str = "127.0.0.1", port: int = 8000, grace_s: float = 10.0, log_level: str = "info"
) -> None:
    """Run until SIGINT or SIGTERM; then take no new streams, and finish those under way within ``grace_s`` seconds."""
    with contextlib.suppress(KeyboardInterrupt):
        Server(app, host, port, grace_s, log_level).run()


class Server(uvicorn.Server):
    """uvicorn, with streams that are finished rather than cut off when it goes down."""

    def __init__(
        self, app: Starlette, host: str = "127.0.0.1", port: int = 8000, grace_s: float = 10.0, log_level: str = "info"
    ) -> None:
        self.service: Service = app.state.service
        self.grace_s = grace_s
        limits = self.service.limits
        http, websockets = protocols(self.service.sockets)
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level=log_level,
                http=http,
                ws=websockets,
                timeout_keep_alive=limits.keep_alive_timeout_s,
                # The protocol answers what is a little too long with a message; this is where the socket gives up.
                ws_max_size=2 * max(limits.max_audio_bytes, limits.max_text_bytes),
                # Pings keep proxies awake. Nobody is cut off for a late answer, as it waits behind the audio that a
                # client has sent ahead; who vanishes is found by the idle timeout.
                ws_ping_interval=20.0,
                ws_ping_timeout=None,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=2,
            )
        )

    @property
    def port(self) -> int:
        """The port listened on, once started (of use with port 0)."""
        return self.servers[0].sockets[0].getsockname()[1]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish the streams, then everything else."""
        for server in self.servers:
            server.close()
        await self.service.drain(self.grace_s)
        await super().shutdown(sockets)


class Service:
    """The endpoints and what they share."""

    def __init__(
        self,
        models: Models,
        limits: Limits,
        max_streams: int | None,
        transcribe: Callable[..., Any] | None,
        token: str | None,
    ) -> None:
        self.models, self.limits, self.metrics, self.token = models, limits, Metrics(), token
        engines = list(
            dict.fromkeys(
                engine for model in models.values() for engine in (*model.stages.values(), *model.translators.values())
            )
        )
        self.scheduler = Scheduler(engines, max_streams, self.metrics.observe_step, limits.max_load)
        self.admission, self.relief = Admission(self.scheduler, limits, self.metrics), Relief(self.scheduler, limits)
        self.sockets = Sockets(limits, lambda reason: self.metrics.refusals.labels(reason).inc())
        self.recordings = Recordings(transcribe, limits)
        self.transcriptions = Transcriptions(models, self.admission, self.recordings)
        self.translations = Transcriptions(models, self.admission, self.recordings, translate=True)
        self.prerecorded = Prerecorded(models, self.admission, self.recordings)
        self.speeches = Speeches(self.models, self.admission, limits)
        self.connections: set[Connection] = set()
        self.wyoming: WyomingListener | None = None
        self.draining = False
        self._stepping: asyncio.Task[None] | None = None
        self._observe(engines)

    def _observe(self, engines: list[Engine]) -> None:
        self.metrics.connections.set_function(lambda: len(self.sockets))
        self.metrics.load.set_function(lambda: self.scheduler.load)
        for name, model in self.models.items():
            stages = tuple(model.stages.values())
            self.metrics.capacity.labels(name).set_function(functools.partial(self.scheduler.capacity, stages))
        self.metrics.active.set_function(lambda: sum(engine.active for engine in engines))
        self.metrics.queue_depth.set_function(lambda: sum(engine.waiting for engine in engines))
        self.metrics.queue_seconds.set_function(
            lambda: sum(stream.inbox.pending for stream in self.scheduler.streams if stream.takes.kind == "audio")
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Keep the engines going."""
        self._stepping = asyncio.create_task(self.scheduler.run())
        relieving = asyncio.create_task(self._relieve())
        async with self.wyoming or contextlib.nullcontext():
            yield
        relieving.cancel()
        self._stepping.cancel()
        await asyncio.gather(self._stepping, relieving, return_exceptions=True)
        self.scheduler.shut_down()
        self.admission.shut_down()
        self.recordings.shut_down()

    async def _relieve(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.limits.max_lag_s / 4))
            self.relief.look(self.connections, asyncio.get_running_loop().time())

    async def drain(self, grace_s: float) -> None:
        """Open no more streams and end those there are; returns once their clients have everything, or time is up."""
        self.draining = self.speeches.closed = True
        for connection in set(self.connections):
            connection.conclude("shutting_down", _goodbye(connection.stream))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.connections or self.speeches.active:
                    await asyncio.sleep(0.02)

    async def stream(self, websocket: WebSocket) -> None:
        """``WS /v1/stream``: the native protocol."""
        await self._serve(websocket, ServerProtocol)

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
        """A request of a Wyoming client, which shows no token."""
        await self._connect(client, dialect, None)

    async def _serve(self, websocket: WebSocket, speaks: type[Dialect]) -> None:
        dialect = speaks(self.limits.max_text_bytes, self.limits.max_audio_bytes)
        await self._connect(websocket, dialect, self.token)

    async def _connect(self, client: Socket, dialect: Dialect, token: str | None) -> None:
        connection = Connection(
            client,
            dialect,
            self.models,
            self.scheduler,
            self.admission,
            self.limits,
            self.metrics,
            token,
            self.draining,
        )
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def health(self, request: Request) -> Response:
        """``GET /health``: 200 while streams can be opened (if a slot is free)."""
        broken = self._stepping is not None and self._stepping.done()
        status = "failed" if broken else "draining" if self.draining else "ok"
        models = {name: {"active": model.active, "capacity": model.capacity} for name, model in self.models.items()}
        return JSONResponse({"status": status, "models": models}, 200 if status == "ok" else 503)

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
        return JSONResponse(description(metadata.version("loquent"), self.token is not None))


def _goodbye(stream: Stream | None) -> str:
    done = "the server is shutting down and has heard 0.000 s of this stream"
    if stream is not None and isinstance(stream.inbox, SampleInbox):
        done = f"the server is shutting down and has heard {stream.inbox.seconds:.3f} s of this stream"
    elif stream is not None:
        done = f"the server is shutting down and has read {stream.inbox.received} characters of this stream"
    return f"{done}; connect again to go on there"
