"""A port that speaks Wyoming: each request of a connection is served like a websocket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.websockets import WebSocketDisconnect

from loquent.speech.net.dialect import MessageRefused, Phase, Socket
from loquent.speech.net.limits import Limits
from loquent.speech.net.models import Models
from loquent.speech.net.sockets import Sockets
from loquent.speech.net.wyoming.framing import Framer, WyomingEvent
from loquent.speech.net.wyoming.requests import WyomingRequest

log = logging.getLogger(__name__)

PIECE = 65_536  # bytes read at a time
LINGER_S = 2.0  # that a client has to read why it is disconnected


class WyomingListener:
    """Takes connections, as long as it is entered.

    Args:
        listener: bound to an address.
        models: that are offered.
        sockets: of the server, which counts the connections.
        connect: serves one request: a websocket, or what stands in for it, and what is said there.

    Attributes:
        address: host and port, and more for IPv6.
    """

    def __init__(
        self,
        listener: socket.socket,
        models: Models,
        limits: Limits,
        sockets: Sockets,
        connect: Callable[[Socket, WyomingRequest], Awaitable[None]],
    ) -> None:
        self.listener, self.models, self.limits, self.sockets = listener, models, limits, sockets
        self.address: tuple[Any, ...] = listener.getsockname()
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> WyomingListener:
        self._server = await asyncio.start_server(self._accepted, sock=self.listener, limit=PIECE)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None, "made by `__aenter__`"
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve requests until the client leaves, or one fails."""
        transport: Any = writer.transport
        peer = writer.get_extra_info("peername")
        try:
            if why := self.sockets.admit(transport, str(peer[0]) if peer else ""):
                writer.write(WyomingEvent("error", {"text": why, "code": "busy"}).to_bytes())
                return
            client = _Client(reader, writer, Framer(self.limits.max_text_bytes, self.limits.max_audio_bytes))
            while not client.gone:
                client.request = WyomingRequest(self.limits.max_text_bytes, self.limits.max_audio_bytes, self.models)
                await self._connect(client, client.request)
            if client.refused:
                await client.linger()
        except Exception:
            log.exception("a Wyoming client could not be served")
        finally:
            self.sockets.forget(transport)
            transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, transport.abort)  # if it does not read what was sent last


class _Client:
    """Stands in for a websocket: its messages are events, and to close it ends a request.

    Attributes:
        request: under way.
        gone: whether no more requests are to be served: the client has left, or is to leave.
        refused: whether it is to leave, and was told why.
    """

    query_params: Mapping[str, str] = {}

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, framer: Framer) -> None:
        self.scope: MutableMapping[str, Any] = {"loquent.abort": self._abort}
        self.request: WyomingRequest | None = None
        self.gone = self.refused = False
        self._reader, self._writer, self._framer = reader, writer, framer
        self._ahead: WyomingEvent | MessageRefused | None = None  # read, and not yet taken

    async def accept(self) -> None:
        """There is nothing to do."""

    async def receive(self) -> MutableMapping[str, Any]:
        """The next event of the request; what follows its last one waits for the next request."""
        if self._ahead is None:
            self._ahead = await self._event()
        if self._ahead is None:
            self.gone = True
            return {"type": "websocket.disconnect"}
        if self.request is not None and self.request.phase in (Phase.FINISHING, Phase.CLOSED):
            await asyncio.Event().wait()  # until the request is over, and this call cancelled
        event, self._ahead = self._ahead, None
        return {"type": "websocket.receive", "event": event}

    async def send_text(self, data: str) -> None:
        """Send an event that has no payload."""
        await self.send_bytes(data.encode())

    async def send_bytes(self, data: bytes) -> None:
        """Send an event."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            self.gone = True
            raise WebSocketDisconnect from error

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """End the request and, if it failed, the connection."""
        self.gone = self.refused = code != 1000

    async def linger(self) -> None:
        """Say that nothing follows, and let the client finish sending, so that what it was told last is not lost."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_S):
                self._writer.write_eof()
                while await self._reader.read(PIECE):
                    pass

    async def _event(self) -> WyomingEvent | MessageRefused | None:
        try:
            while (event := self._framer.take()) is None:
                data = await self._reader.read(PIECE)
                if not data:
                    return None
                self._framer.feed(data)
        except MessageRefused as refusal:
            return refusal
        except OSError:
            return None
        return event

    def _abort(self) -> None:
        self.gone = True
        self._writer.transport.abort()
