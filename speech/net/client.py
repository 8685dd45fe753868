"""Client of the native protocol: send audio or text to a server and iterate over its events.

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
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from loquent.speech.audio.codecs import ENCODINGS, Decoder, decoder, encoder
from loquent.speech.audio.files import PCM16_SCALE, to_mono_float32
from loquent.speech.audio.sources import AudioSource
from loquent.speech.net.messages import Output, Start
from loquent.speech.net.sessions.unsaved import Unsaved
from loquent.speech.runtime.channels import source_of
from loquent.speech.runtime.events import Event, Marker, Speech

# A server under load may take some time to answer, and an event can be long; neither is a reason to give up.
_OPEN_TIMEOUT_S, _MAX_EVENT_BYTES = 10.0, 16 * 2**20
_RESUMED = ("lost", "restarting")  # ends of a connection after which its stream goes on over another one
_RETRIED = ("lost", "restarting", "shutting_down", "busy")  # answers after which it is tried again
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0  # before it is
_CONFIRM_EVERY = 32  # events
_MOST_UNSAVED_BYTES = 64 * 2**20  # that are kept to be sent again; beyond it, sending waits


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
    output: Output | None = None,
    acknowledge: bool = False,
    multichannel: bool = False,
    resumable: bool = False,
    patience_s: float = 60.0,
    **options: Any,
) -> AsyncIterator[ClientStream]:
    """Open a stream; leaving the block without `ClientStream.finish` drops it.

    Args:
        url: ``ws://host:port/v1/stream`` or ``wss://…``; the path may be left out.
        sample_rate: of the packets, in Hz; the model's own by default.
        channels: of the packets.
        encoding: how samples travel: "pcm16", "float32", "mulaw", or "opus", of which every `send` takes one packet.
        model: one of the server's; its default otherwise.
        token: if the server wants one.
        output: how the speech of a model that speaks travels back; PCM16 at the model's own rate by default.
        acknowledge: whether `ClientStream.acknowledged` is kept up to date.
        multichannel: whether every channel is a stream of its own; `channel_of` tells which one an event is about.
        resumable: whether the stream goes on over another connection when this one is lost. What the server has not
            saved is kept meanwhile, and sent again.
        patience_s: how long to try to reconnect, in seconds.
        options: of the model.

    Raises:
        ServerBusy, ServerShuttingDown, Unauthorized, ProtocolError, ConnectionLost: it was refused.
    """
    scheme, _, rest = url.partition("://")
    if "/" not in rest:
        url = f"{scheme}://{rest}/v1/stream"
    start = Start(
        sample_rate,
        channels,
        encoding,
        model,
        token,
        options,
        output or Output(),
        acknowledge,
        multichannel,
        resumable,
    )
    stream = ClientStream(url, await _dial(url), start, patience_s)
    try:
        await stream._open()
        yield stream
    finally:
        await stream._close()


async def _dial(url: str) -> ClientConnection:
    try:
        return await open_websocket(
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


async def _answer(websocket: ClientConnection, message: dict[str, Any]) -> dict[str, Any]:
    """Send the first message; returns "ready"."""
    try:
        await websocket.send(json.dumps(message))
        answer: dict[str, Any] = json.loads(await websocket.recv())
    except ConnectionClosed as error:
        raise _error("lost", f"the connection was lost before the server answered: {error}") from error
    if answer.get("type") == "failure":
        raise _error(answer["code"], answer["message"])
    if answer.get("type") != "ready":
        got = answer.get("type")
        raise _error("bad_message", f"expected 'ready', got {got!r}: is it another kind of server?")
    return answer


class ClientStream:
    """An open stream; made by `connect`. Iterating gives its events, and ends after `finish`.

    Attributes:
        ready: what the server answered: the model, its ports, limits.
        acknowledged: samples or characters that the server has processed, if it was asked to tell.
        resumed: how often it went on over another connection.
    """

    def __init__(self, url: str, websocket: ClientConnection, start: Start, patience_s: float = 60.0) -> None:
        self.ready: dict[str, Any] = {}
        self.acknowledged = self.resumed = 0
        self._url, self._websocket, self._start, self._patience_s = url, websocket, start, patience_s
        self._unsaved, self._received, self._unconfirmed = Unsaved(), dict[str, int](), 0
        self._sending, self._room = asyncio.Lock(), asyncio.Event()
        self._others: set[asyncio.Task[None]] = set()
        self._encoder = encoder(start.encoding, start.sample_rate or 48_000, start.channels)
        self._decoder: Decoder | None = None
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._markers: dict[str, asyncio.Future[Marker]] = {}
        self._error: StreamError | None = None
        self._ended = False
        self._reader: asyncio.Task[None] | None = None

    async def send(self, packet: np.ndarray | bytes) -> None:
        """Send int16 or float32 samples, (samples,) or (samples, channels), or bytes in the stream's encoding.

        Waits while the server is behind. Raises what ended the stream, if it has ended.
        """
        most, size = self.ready["limits"]["max_audio_bytes"], ENCODINGS[self._start.encoding].sample_bytes
        if isinstance(packet, bytes) and size is None:
            return await self._send(packet)
        if isinstance(packet, bytes):
            assert size is not None
            frame = self._start.channels * size
            for begin in range(0, len(packet), most - most % frame):
                part = packet[begin : begin + most - most % frame]
                await self._send(part, len(part) // frame)
            return
        samples = packet.astype(np.float32) / np.float32(PCM16_SCALE) if packet.dtype == np.int16 else packet
        longest = max(1, most // (4 * self._start.channels))
        for begin in range(0, len(samples), longest):
            for data in self._encoder.encode(samples[begin : begin + longest]):
                await self._send(data, len(data) // (self._start.channels * (size or 1)))

    async def write(self, text: str, time_s: float | None = None) -> None:
        """Send text to a model that takes it, in pieces of any kind: a word is used once the next one has begun.

        Args:
            time_s: of the speech that the text stands for, in seconds.
        """
        message = {"type": "text", "text": text} | ({} if time_s is None else {"time_s": time_s})
        if text:
            await self._send(json.dumps(message), len(text))

    async def flush(self) -> None:
        """Let the text so far come to its end without waiting for more."""
        await self._send('{"type": "flush"}')

    async def interrupt(self, played_s: float | None = None) -> None:
        """Stop what is being said; an `Interrupted` among the events tells what was heard.

        Args:
            played_s: seconds of the stream's speech that were played; by default all that was sent.
        """
        await self._send(json.dumps({"type": "interrupt"} | ({} if played_s is None else {"played_s": played_s})))

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
        if self.ready["takes"]["kind"] == "audio":
            for data in self._encoder.finish():
                await self._send(data)
        await self._send('{"type": "finish"}')

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events until the stream is done; raises `StreamError` if it fails."""
        while (event := await self._events.get()) is not None:
            yield event
        self._events.put_nowait(None)  # for whoever else is iterating
        if self._error is not None:
            raise self._error

    async def _open(self) -> None:
        self.ready = await _answer(self._websocket, self._start.to_dict())
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                error = await self._read_connection()
                if error is not None and error.code in _RESUMED and "session" in self.ready:
                    error = await self._resume(error)
                    if error is None:
                        continue
                break
        except (ValueError, KeyError, TypeError, AttributeError) as invalid:
            error = _error("bad_message", f"the server sent something that is no event: {invalid}")
        self._end(error)

    async def _read_connection(self) -> StreamError | None:
        """Take events until the stream is done, or this connection is over; returns why, if it is not done."""
        error = _error("lost", "the server closed the connection without a word")
        try:
            async for text in self._websocket:
                message = json.loads(text)
                match message["type"]:
                    case "failure":
                        error = _error(message["code"], message["message"])
                    case "done":
                        return None
                    case "acknowledged":
                        self.acknowledged = message["position"]
                    case "saved":
                        self._unsaved.saved(message["position"], message["messages"])
                        self._room.set()
                    case "speech":
                        self._take(self._heard(message, await self._websocket.recv()))
                    case _:
                        self._take(Event.from_dict(message))
        except ConnectionClosed as closed:
            if error.code == "lost":
                error = _error("lost", f"the connection was lost: {closed}")
        return error

    def _take(self, event: Event) -> None:
        if isinstance(event, Marker) and event.id in self._markers and not self._markers[event.id].done():
            self._markers[event.id].set_result(event)
        self._events.put_nowait(event)
        if "session" in self.ready:
            source = source_of(event)
            self._received[source] = max(event.sequence + 1, self._received.get(source, 0))
            self._unconfirmed += 1
            if self._unconfirmed >= _CONFIRM_EVERY or isinstance(event, Speech):
                self._unconfirmed = 0
                self._later(self._tell({"type": "acknowledge", "received": self._received}))

    async def _resume(self, why: StreamError) -> StreamError | None:
        """Go on over another connection; returns why that cannot be, if it cannot."""
        loop, pause_s = asyncio.get_running_loop(), _FIRST_PAUSE_S
        resume: dict[str, Any] = {"type": "resume", "session": self.ready["session"], "received": self._received}
        resume |= {} if self._start.token is None else {"token": self._start.token}
        limit = loop.time() + self._patience_s
        await self._websocket.close()
        while True:
            try:
                await self._switch(resume)
                return None
            except StreamError as error:
                if error.code not in _RETRIED:
                    return error
                if loop.time() + pause_s > limit:
                    return why
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # not all clients of a server at the same time
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _switch(self, resume: dict[str, Any]) -> None:
        """Make another connection and use it; what is sent meanwhile is kept, and goes after what is sent again."""
        websocket = await _dial(self._url)
        try:
            ready = await _answer(websocket, resume)
            await self._sending.acquire()
        except BaseException:
            await websocket.close()
            raise
        self._websocket = websocket
        self.resumed += 1
        self._decoder, self._unconfirmed = None, 0
        self._unsaved.saved(ready["resumed"]["position"], ready["resumed"]["messages"])
        self._later(self._send_again(self._unsaved.messages()))

    async def _send_again(self, messages: list[str | bytes]) -> None:
        try:
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    await self._websocket.send(message)
        finally:
            self._sending.release()

    async def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._websocket.send(json.dumps(message))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def _heard(self, message: dict[str, Any], data: str | bytes) -> Speech:
        """A speech event with the samples that came behind it."""
        if not isinstance(data, bytes):
            raise ValueError("expected the samples of a speech event, got text")
        if self._decoder is None:
            self._decoder = decoder(message["encoding"], message["sample_rate"])
        parts, begin = [np.zeros((0, 1), np.int16)], 0
        for size in message["packets"]:
            parts.append(self._decoder.decode(data[begin : begin + size]))
            begin += size
        samples = to_mono_float32(np.concatenate(parts[1:] or parts))
        event = Event.from_dict(message | {"samples": samples, "sample_rate": self._decoder.sample_rate})
        assert isinstance(event, Speech)
        return event

    def _end(self, error: StreamError | None) -> None:
        self._error, self._ended = error, True
        self._room.set()
        self._events.put_nowait(None)
        for echo in self._markers.values():
            if not echo.done():
                echo.set_exception(error or _error("lost", "the stream ended before the marker was reached"))

    async def _send(self, data: bytes | str, units: int = 0) -> None:
        """Send a message; ``units``: samples or characters of input in it."""
        if "session" in self.ready:
            return await self._send_kept(data, units)
        try:
            await self._websocket.send(data)
        except ConnectionClosed as closed:
            if self._reader is not None:
                await self._reader
            raise self._error or _error("lost", f"the stream has ended: {closed}") from closed

    async def _send_kept(self, data: bytes | str, units: int) -> None:
        while self._unsaved.nbytes > _MOST_UNSAVED_BYTES and not self._ended:
            self._room.clear()
            await self._room.wait()
        async with self._sending:
            if self._ended:
                raise self._error or _error("lost", "the stream has ended")
            self._unsaved.add(data, units)
            with contextlib.suppress(ConnectionClosed):  # it is sent again over the next connection
                await self._websocket.send(data)

    async def _close(self) -> None:
        tasks = [*self._others, *([self._reader] if self._reader is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._ended:
            self._end(None)  # for whoever iterates, or waits, elsewhere
        await self._websocket.close()


async def transcribe_source(url: str, source: AudioSource, **options: Any) -> AsyncIterator[Event]:
    """Send a microphone or a file and yield the events as they come; ``options`` are those of `connect`.

    Leaving the iteration early drops the stream. Raises what `connect` and `ClientStream` raise.
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


async def _send_all(stream: ClientStream, source: AudioSource) -> None:
    try:
        async for packet in source:
            await stream.send(packet)
        await stream.end()
    except StreamError:
        return  # the reader tells it
    except BaseException:
        await stream._close()
        raise
