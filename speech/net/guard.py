"""Who may use the server: pages of allowed origins (CORS included) and, if there is a token, those who present it."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from loquent.speech.net.operation.keys import KeyLimited, Keys

log = logging.getLogger(__name__)

OPEN_PATHS = ("/", "/health", "/ready")  # of pages that need no token
OPEN_BELOW = "/page/"  # what the first of them is made of
STREAM = "/v1/stream"
SPEECH = "/v1/audio/speech"
UPLOADS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/listen")
SCHEMES = ("bearer", "token")  # the latter is Deepgram's
PREFLIGHT_S = 600  # that a browser may remember what it was told


class Guard:
    """Keeps out pages of other origins, and requests without the token.

    A browser lets any page open a websocket to localhost, so who listens on 127.0.0.1 only is not safe from pages.

    Args:
        keys: one of which has to be presented, if there are any.
        allowed_origins: origins ("https://example.org"), host names of pages of any scheme and port ("example.org"), or
            "*" for any.

    Raises:
        ValueError: an origin that no browser would send.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        allowed_origins: Collection[str],
        on_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.app, self.keys, self.on_refusal = app, keys, on_refusal
        self.allowed_origins = frozenset(_checked(origin) for origin in allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        origin, presented = headers.get("origin"), headers.get("authorization")
        if not self._may_come_from(origin, headers.get("host", "")):
            why = f"pages of {origin} may not use this server unless allowed_origins has that origin"
            return await _refuse(403, why, scope, receive, send)
        if origin is not None and scope["type"] == "http":
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                return await _preflight(origin, headers)(scope, receive, send)  # which never presents a token
            send = _shared_with(origin, send)
        path = scope["path"]
        is_open = scope["type"] == "http" and (path in OPEN_PATHS or path.startswith(OPEN_BELOW))
        if not self.keys or is_open:
            return await self.app(scope, receive, send)
        scheme, _, shown = (presented or "").partition(" ")
        key = self.keys.find(shown) if scheme.lower() in SCHEMES else None
        if key is None:
            # A page cannot give a websocket headers: it shows its token in "start", which other protocols have not got.
            if scope["type"] == "websocket" and presented is None and path == STREAM:
                return await self.app(scope, receive, send)
            why = "the token is missing or wrong; send it as 'Authorization: Bearer …'"
            return await _refuse(401, why, scope, receive, send)
        scope["loquent.key"] = key
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)  # which counts it, and can say why there is no place for it
        try:
            with contextlib.ExitStack() as using:
                using.enter_context(self.keys.use(key, "connections"))
                if scope["path"] == SPEECH:
                    using.enter_context(self.keys.use(key, "streams"))
                if scope["path"] in UPLOADS:
                    self.keys.upload(key)
                    scope["loquent.stream"] = lambda: using.enter_context(self.keys.use(key, "streams"))
                await self.app(scope, receive, send)
        except KeyLimited as limited:
            self.on_refusal("key")
            await _refuse(429, str(limited), scope, receive, send)

    def _may_come_from(self, origin: str | None, host: str) -> bool:
        if origin is None or "*" in self.allowed_origins or origin in self.allowed_origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        if name and name in self.allowed_origins:
            return True
        return parts.netloc == host and (name == "localhost" or _is_address(name))


def _checked(origin: str) -> str:
    plain = origin.strip().lower()
    if plain == "*":
        return plain
    name = plain.split("://", 1)[-1]
    if not name or "/" in name or ("://" not in plain and ":" in name):
        raise ValueError(
            f"an allowed origin is like 'https://example.org' or 'example.org', without a path: got {origin!r}"
        )
    return plain


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _preflight(origin: str, asked: Headers) -> Response:
    """What a browser asks before it sends a page's request."""
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": asked.get("access-control-request-headers", "authorization, content-type"),
        "Access-Control-Max-Age": str(PREFLIGHT_S),
        "Vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def _shared_with(origin: str, send: Send) -> Send:
    """Lets a page read the answer."""

    async def shared(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers.add_vary_header("Origin")
        await send(message)

    return shared


async def _refuse(status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        log.warning("refused a websocket: %s", message)
        return await WebSocketClose()(scope, receive, send)  # the client sees status 403
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    await JSONResponse({"error": error}, status)(scope, receive, send)
