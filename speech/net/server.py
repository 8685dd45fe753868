"""Speech over HTTP: the native websocket, OpenAI's endpoints, a page with a microphone, health, metrics.

`create_app` makes a Starlette application, `serve` runs it with uvicorn until SIGINT or SIGTERM.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from uvicorn.config import LOGGING_CONFIG

from loquent.speech.agent.agent import Agent
from loquent.speech.net.guard import Guard
from loquent.speech.net.limits import Limits
from loquent.speech.net.models import models_of
from loquent.speech.net.openai.answers import error_answer
from loquent.speech.net.operation.admin import Admin, Loader
from loquent.speech.net.operation.keys import Key, Keys, checked_key, digest_of
from loquent.speech.net.operation.logs import Format, logging_config
from loquent.speech.net.page import Page
from loquent.speech.net.service import Service
from loquent.speech.net.sessions.sessions import Sessions
from loquent.speech.net.sockets import protocols
from loquent.speech.net.wyoming.listener import WyomingListener
from loquent.speech.runtime.engine import Engine


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
    keys: Collection[Key] = (),
    session_folder: Path | None = None,
    load: Loader | None = None,
) -> Starlette:
    """Make the application.

    Args:
        engines: an engine, or engines by model name; clients that name no model get the first. Several engines by the
            names of their stages make a model too: its streams are pipelines. So does an agent: its streams are talks.
        limits: on what clients may do.
        max_streams: most streams at a time, whatever their models; by default as many as fit the engines.
        transcribe: offline recogniser for files: called with float32 samples (N,) at 16 kHz, and with those of
            ``language``, ``task``, ``initial_prompt``, ``temperatures``, ``word_timestamps``, ``token_logprobs``,
            ``phrases``, ``vad_filter`` and ``speech`` that the client asked for; returns an object with
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
        keys: several keys with names and limits of their own, besides the ``token``.
        session_folder: where streams that can be resumed are saved; by default they wait in memory. It may be shared
            with other processes.
        load: loads a model by name for whoever has an admin key.
    """
    own = [] if token is None else [Key("default", digest_of(checked_key(token)))]
    known = Keys([*own, *keys])
    sessions = Sessions(limits or Limits(), session_folder)
    translating, other_voices = dict(translators or {}), dict(voice_aliases or {})
    models = models_of(engines, translating, aliases, other_voices)
    service = Service(models, translating, limits or Limits(), max_streams, transcribe, known, sessions)
    admin = service.admin = Admin(service, load, other_voices, tuple(models)[:1] if transcribe is not None else ())
    if wyoming is not None:
        service.wyoming = WyomingListener(wyoming, service.models, service.limits, service.sockets, service.request)
    guard = Middleware(
        Guard,
        keys=known,
        allowed_origins=tuple(allowed_origins),
        on_refusal=service.metrics.refused,
    )
    app = Starlette(
        routes=[
            *Page().routes,
            Route("/health", service.health),
            Route("/ready", service.ready),
            Route("/metrics", service.show_metrics),
            Route("/openapi.json", service.describe),
            Route("/v1/offer", service.offer),
            Route("/v1/models", service.list_models),
            *([Route("/v1/models/{model:path}/load", admin.load, methods=["POST"])] if known.has_admin else []),
            *([Route("/v1/models/{model:path}", admin.unload, methods=["DELETE"])] if known.has_admin else []),
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
        middleware=[guard],
        exception_handlers={HTTPException: _no_such_thing},
        lifespan=service.lifespan,
    )
    app.state.service = service
    return app


async def _no_such_thing(request: Request, error: Exception) -> Response:
    """Answer in JSON for a path or a method that there is not, as for everything else that is wrong."""
    assert isinstance(error, HTTPException)
    answer = error_answer(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


def serve(
    app: Starlette, host: str = "127.0.0.1", port: int = 8000, grace_s: float = 10.0, log_level: str = "info"
) -> None:
    """Run until SIGINT or SIGTERM; then take no new streams, and finish those under way within ``grace_s`` seconds."""
    with contextlib.suppress(KeyboardInterrupt):
        Server(app, host, port, grace_s, log_level).run()


class Server(uvicorn.Server):
    """uvicorn, with streams that are finished rather than cut off when it goes down.

    Args:
        log_format: of the log of the whole process; None leaves logging as it is, but for uvicorn's own.
        tls: files of a certificate, with those between it and its root, and of its key; both PEM.
    """

    def __init__(
        self,
        app: Starlette,
        host: str = "127.0.0.1",
        port: int = 8000,
        grace_s: float = 10.0,
        log_level: str = "info",
        *,
        log_format: Format | None = None,
        tls: tuple[str, str] | None = None,
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
                log_config=LOGGING_CONFIG if log_format is None else logging_config(log_format, log_level),
                access_log=log_format is None,
                ssl_certfile=tls and tls[0],
                ssl_keyfile=tls and tls[1],
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
