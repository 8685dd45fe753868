"""Connections that cannot stay for ever: caps on their number, and time-outs on what a client leaves unfinished.

uvicorn bounds only how long a connection may be idle after an answer. Here its protocol classes are watched: a request
whose head does not end, an answer that is not read and a close that does not get through end the connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request as HandshakeRequest

from loquent.speech.net.limits import Limits

_SWEEPS = 4  # looks at all connections in the shortest of the time-outs


class Sockets:
    """All connections of a server.

    Args:
        on_refusal: told why a connection was refused or cut: "connections", "connections_per_client", "head_timeout" or
            "not_read".
    """

    def __init__(self, limits: Limits, on_refusal: Callable[[str], None] = lambda reason: None) -> None:
        self.limits, self.on_refusal = limits, on_refusal
        self._open: dict[asyncio.Transport, _Watch] = {}
        self._of_client: Counter[str] = Counter()
        self._clock: Callable[[], float] = lambda: 0.0
        self._sweeping: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, transport: asyncio.Transport, client: str) -> str | None:
        """Take up a new connection; returns why there is no place for it, if there is none."""
        limits = self.limits
        if len(self._open) >= limits.max_connections:
            self.on_refusal("connections")
            return f"{len(self._open)} connections are open, and no more may be; try again later"
        most = limits.max_connections_per_client
        if most is not None and self._of_client[client] >= most:
            self.on_refusal("connections_per_client")
            return f"{self._of_client[client]} connections from {client} are open, and no more may be; close some first"
        self._open[transport] = _Watch(client)
        self._of_client[client] += 1
        if self._sweeping is None:
            loop = asyncio.get_running_loop()
            self._clock = loop.time
            self._sweep(loop)
        return None

    def expect(self, transport: asyncio.Transport, reason: str, seconds: float, end: Callable[[], None]) -> None:
        """Let ``end`` be called unless what is expected of the client is done, or replaced by something else, in time.

        Expecting the same thing again does not give the client more time.
        """
        watch = self._open.get(transport)
        if watch is not None and watch.reason != reason:
            watch.reason, watch.due, watch.end = reason, self._clock() + seconds, end

    def done(self, transport: asyncio.Transport, reason: str) -> None:
        """What was expected for this reason has come."""
        watch = self._open.get(transport)
        if watch is not None and watch.reason == reason:
            watch.reason = ""

    def forget(self, transport: asyncio.Transport) -> None:
        """The connection is gone."""
        watch = self._open.pop(transport, None)
        if watch is not None:
            self._of_client[watch.client] -= 1
            if not self._of_client[watch.client]:
                del self._of_client[watch.client]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        limits, now = self.limits, loop.time()
        for transport, watch in list(self._open.items()):
            if watch.reason and now >= watch.due:
                self.on_refusal(watch.reason)
                watch.reason = ""
                watch.end()
            elif transport.is_closing():  # what was sent last is not read
                self.expect(transport, "not_read", limits.send_timeout_s, transport.abort)
        wait_s = min(limits.head_timeout_s, limits.send_timeout_s) / _SWEEPS
        self._sweeping = loop.call_later(wait_s, self._sweep, loop) if self._open else None


class _Watch:
    """What is expected of one client, and by when."""

    def __init__(self, client: str) -> None:
        self.client, self.reason, self.due = client, "", 0.0
        self.end: Callable[[], None] = lambda: None


def protocols(sockets: Sockets) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]]:
    """uvicorn's protocol classes for HTTP and for websockets, watched."""

    class Http(_HttpProtocol):
        watched_by = sockets

    class WebSocket(_WebSocketProtocol):
        watched_by = sockets

    return Http, WebSocket


class _HttpProtocol(H11Protocol):
    watched_by: Sockets

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        refusal = self.watched_by.admit(transport, self.client[0] if self.client else "")
        if refusal is not None:
            self._hang_up(503, refusal)
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.watched_by.forget(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.transport.get_protocol() is self:  # else it has become a websocket
            self._expect_head()
        else:
            self.watched_by.done(self.transport, "head_timeout")

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watched_by.expect(self.transport, "not_read", self.watched_by.limits.send_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.watched_by.done(self.transport, "not_read")

    def _expect_head(self) -> None:
        timeout_s = self.watched_by.limits.head_timeout_s
        why = f"the head of a request did not end within {timeout_s:g} s"
        self.watched_by.expect(self.transport, "head_timeout", timeout_s, lambda: self._hang_up(408, why))

    def _hang_up(self, status: int, why: str) -> None:
        if self.cycle is None or self.cycle.response_complete:
            reason = {408: "Request Timeout", 503: "Service Unavailable"}[status]
            head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            body = why.encode()
            self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.transport.close()


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """Its connections can be cut: a close waits for its client to read, which may be never."""

    watched_by: Sockets

    def connection_lost(self, exc: Exception | None) -> None:
        self.watched_by.forget(self.transport)
        super().connection_lost(exc)

    def handle_connect(self, event: HandshakeRequest) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was in order
            abort: Any = self.transport.abort
            self.scope["loquent.abort"] = abort  # type: ignore[typeddict-unknown-key]
