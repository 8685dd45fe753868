"""Client of the native protocol: send packets of audio to a server and iterate over its events.

::

    async with connect("ws://127.0.0.1:8000/v1/stream", sample_rate=48000) as stream:
        async for packet in microphone:
            await stream.send(packet)
        for event in await stream.finish():
            ...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from loquent.speech.audio.sources import AudioSource
from loquent.speech.net.protocol import Start
from loquent.speech.runtime.events import Event, Marker

# A server under load may take some time to answer, and an event can be long; neither is a reason to give up.
_OPEN_TIMEOUT_S, _MAX_EVENT_BYTES = 10.0, 16 * 2**20


class StreamError(Exception):
    """The stream cannot go on; ``code`` is the failure's (see `loquent.speech.net.protocol.CLOSE_CODES`)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServerBusy(StreamError):
    """The server has no room for another stream, or cannot keep up; try again later."""


class ServerShuttingDown(StreamError):
    """The server is going down. The events so far cover all it has heard, and the message says how much that is."""


class Unauthorized(StreamError):
    """The token is missing or wrong, or the server is not open to this client."""


class ProtocolError(StreamError):
    """The server did not like what it got (format, options, pace); the message says what to do."""


class ConnectionLost(StreamError):
    """The connection could not be made, or broke."""


def _error(code: str, message: str) -> StreamError:
    kinds: dict[str, type[StreamError]] = {
        "busy": ServerBusy,
        "overloaded": ServerBusy,
        "shutting_down": ServerShuttingDown,
        "unauthorized": Unauthorized,
        "lost": ConnectionLost,
        "internal": StreamError,
    }
    return kinds.get(code, ProtocolError)(code, message)


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    sample_rate: int | None = None,
    channels: int = 1,
    encoding: str = "pcm16",
    model: str | None = None,
    token: str | None = None,
    **options: Any,
) -> AsyncIterator[Stream]:
    """Open a stream; leaving the block without `Stream.finish` drops it.

    Args:
        url: ``ws://host:port/v1/stream`` or ``wss://…``; the path may be left out.
        sample_rate: of the packets, in Hz; the model's own by default.
        channels: of the packets.
        encoding: "pcm16" or "float32": how samples travel.
        model: one of the server's; its default otherwise.
        token: if the server wants one.
        options: of the model.

    Raises:
        ServerBusy, ServerShuttingDown, Unauthorized, ProtocolError, ConnectionLost: it was refused.
    """
    scheme, _, rest = url.partition("://")
    if "/" not in rest:
        url = f"{scheme}://{rest}/v1/stream"
    start = Start(sample_rate, channels, encoding, model, token, options)
    try:
        websocket = await open_websocket(
            url, compression=None, max_size=_MAX_EVENT_BYTES, open_timeout=_OPEN_TIMEOUT_S, ping_timeout=None
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (401, 403):
            hint = "the token is wrong, or the path is (it should be /v1/stream)"
            raise _error("unauthorized", f"{url} refused with status {status}: {hint}") from error
        raise _error("lost", f"{url} answered with status {status}; is it this kind of server?") from error
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise _error("lost", f"cannot connect to {url}: {error}; is the server running?") from error
    async with websocket:
        stream = Stream(websocket, start)
        try:
            await stream._open()
            yield stream
        finally:
            await stream._close()


class Stream:
    """An open stream; made by `connect`. Iterating gives its events, and ends after `finish`."""

    def __init__(self, websocket: ClientConnection, start: Start) -> None:
        self.ready: dict[str, Any] = {}  # what the server answered: model, sample_rate, limits
        self._websocket, self._start = websocket, start
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._markers: dict[str, asyncio.Future[Marker]] = {}
        self._error: StreamError | None = None
        self._reader: asyncio.Task[None] | None = None

    async def send(self, packet: np.ndarray | bytes) -> None:
        """Send int16 or float32 samples, (samples,) or (samples, channels), or bytes in the stream's encoding.

        Waits while the server is behind. Raises what ended the stream, if it has ended.
        """
        data = packet if isinstance(packet, bytes) else _encoded(packet, self._start)
        most = self.ready["limits"]["max_audio_bytes"]
        frame = self._start.channels * (2 if self._start.encoding == "pcm16" else 4)
        for begin in range(0, len(data), most - most % frame):
            await self._send(data[begin : begin + most - most % frame])

    async def marker(self, id: str) -> Marker:
        """Wait until everything sent so far has been processed; the events up to there can be had from the iteration.

        The audio has to go on meanwhile for the model to reach the marker, or to be `finish`ed.
        """
        if id in self._markers:
            raise ValueError(f"marker {id!r} is under way already; choose another id")
        echo = self._markers[id] = asyncio.get_running_loop().create_future()
        try:
            await self._send(json.dumps({"type": "marker", "id": id}))
            return await echo
        finally:
            del self._markers[id]

    async def configure(self, **options: Any) -> None:
        """Change options of the stream, such as ``chunk_ms``, from its next chunk on.

        A server that cannot do so ends the stream with "bad_options", after what it has heard so far.
        """
        await self._send(json.dumps({"type": "configure", "options": options}))

    async def finish(self) -> list[Event]:
        """End the stream; returns the events that were not iterated over, to the last."""
        await self.end()
        return [event async for event in self]

    async def end(self) -> None:
        """Say that nothing follows, for who goes on iterating over the events elsewhere."""
        await self._send('{"type": "finish"}')

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events until the stream is done; raises `StreamError` if it fails."""
        while (event := await self._events.get()) is not None:
            yield event
        self._events.put_nowait(None)  # for whoever else is iterating
        if self._error is not None:
            raise self._error

    async def _open(self) -> None:
        try:
            await self._websocket.send(json.dumps(self._start.to_dict()))
            answer = json.loads(await self._websocket.recv())
        except ConnectionClosed as error:
            raise _error("lost", f"the connection was lost before the server answered: {error}") from error
        if answer.get("type") == "failure":
            raise _error(answer["code"], answer["message"])
        if answer.get("type") != "ready":
            got = answer.get("type")
            raise _error("bad_message", f"expected 'ready', got {got!r}: is it another kind of server?")
        self.ready = answer
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        error = _error("lost", "the server closed the connection without a word")
        try:
            async for text in self._websocket:
                message = json.loads(text)
                if message["type"] == "failure":
                    error = _error(message["code"], message["message"])
                elif message["type"] == "done":
                    return self._end(None)
                else:
                    event = Event.from_dict(message)
                    if isinstance(event, Marker) and event.id in self._markers:
                        self._markers[event.id].set_result(event)
                    self._events.put_nowait(event)
        except ConnectionClosed as closed:
            if error.code == "lost":
                error = _error("lost", f"the connection was lost: {closed}")
        except ValueError as invalid:
            error = _error("bad_message", f"the server sent something that is no event: {invalid}")
        self._end(error)

    def _end(self, error: StreamError | None) -> None:
        self._error = error
        self._events.put_nowait(None)
        for echo in self._markers.values():
            if not echo.done():
                echo.set_exception(error or _error("lost", "the stream ended before the marker was reached"))

    async def _send(self, data: bytes | str) -> None:
        try:
            await self._websocket.send(data)
        except ConnectionClosed as closed:
            if self._reader is not None:
                await self._reader
            raise self._error or _error("lost", f"the stream has ended: {closed}") from closed

    async def _close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def transcribe_source(url: str, source: AudioSource, **options: Any) -> AsyncIterator[Event]:
    """Send a microphone or a file and yield the events as they come; ``options`` are those of `connect`.

    Leaving the iteration early drops the stream. Raises what `connect` and `Stream` raise.
    """
    async with connect(url, sample_rate=source.sample_rate, channels=source.channels, **options) as stream:
        sender = asyncio.create_task(_send_all(stream, source))
        try:
            async for event in stream:
                yield event
            await sender
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


async def _send_all(stream: Stream, source: AudioSource) -> None:
    try:
        async for packet in source:
            await stream.send(packet)
        await stream.end()
    except StreamError:
        return  # the reader tells it
    except BaseException:
        await stream._websocket.close()
        raise


def _encoded(packet: np.ndarray, start: Start) -> bytes:
    """The bytes of a packet; between the encodings as `loquent.speech.audio.files` converts."""
    from loquent.speech.audio.files import PCM16_SCALE, to_pcm16

    if start.encoding == "pcm16":
        return to_pcm16(packet).astype("<i2", copy=False).tobytes()
    if packet.dtype == np.int16:
        return (packet.astype("<f4") / np.float32(PCM16_SCALE)).tobytes()
    return packet.astype("<f4", copy=False).tobytes()
