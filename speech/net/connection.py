"""One websocket: carries out what `ServerProtocol` says, between a socket and a session."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from loquent.speech.net.metrics import Metrics
from loquent.speech.net.outgoing import Close, Outgoing
from loquent.speech.net.protocol import Action, Audio, Configure, Fail, Finish, Mark, Phase, ServerProtocol, Start
from loquent.speech.net.stepper import Stepper
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure
from loquent.speech.runtime.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a server. How many streams there are is the capacity of the engines.

    max_text_bytes:       of a text message.
    max_audio_bytes:      of a binary message.
    buffer_s:             audio that may wait in a stream, in seconds; beyond it the socket is not read, which holds the
                          client back.
    stall_timeout_s:      how long a full buffer may go without progress before the stream fails as "overloaded".
    handshake_timeout_s:  from the connection to "start".
    idle_timeout_s:       without any message, or any bytes of an upload.
    max_duration_s:       of audio in a stream; None: no end.
    max_markers:          that may wait in a stream.
    max_queue_bytes:      of events that wait for a slow reader.
    send_timeout_s:       that a client may take to read on before it is disconnected.
    max_upload_bytes:     of a file sent to be transcribed.
    max_upload_s:         of audio in such a file, and of sending it.
    max_uploads:          being received, waiting, transcribed or answered at a time.
    """

    max_text_bytes: int = 65_536
    max_audio_bytes: int = 1_048_576
    buffer_s: float = 10.0
    stall_timeout_s: float = 30.0
    handshake_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    max_duration_s: float | None = None
    max_markers: int = 1000
    max_queue_bytes: int = 1_048_576
    send_timeout_s: float = 20.0
    max_upload_bytes: int = 256 * 2**20
    max_upload_s: float = 2 * 3600.0
    max_uploads: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"limit {name} has to be positive, got {value}")


class Connection:
    """Serves one client from the handshake to the close.

    Args:
        websocket: not yet accepted.
        steppers: the models by name; the first is the default.
        token: what the client has to present, in "start" or, then checked before, in its Authorization header.
        draining: whether the server is on its way down.
    """

    def __init__(
        self,
        websocket: WebSocket,
        steppers: Mapping[str, Stepper],
        limits: Limits,
        metrics: Metrics,
        token: str | None,
        draining: bool,
    ) -> None:
        self.websocket, self.steppers, self.limits, self.metrics = websocket, steppers, limits, metrics
        self.protocol = ServerProtocol(limits.max_text_bytes, limits.max_audio_bytes)
        self.outgoing = Outgoing()
        self.session: Session | None = None
        self._token, self._draining = token, draining
        self._clock = asyncio.get_running_loop().time
        self._progress = asyncio.Event()
        self._verdict: Fail | None = None  # to be sent once the session has nothing more to say
        self._arrivals: deque[tuple[int, float]] = deque()  # (native samples received, when), not yet processed
        self._first_audio = 0.0

    async def run(self) -> None:
        """Serve until either side has closed; the session is over and its slot free afterwards."""
        await self.websocket.accept()
        tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._write())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.session is not None:
                self._stepper.detach(self.session)

    def conclude(self, code: str, message: str) -> None:
        """Take no more audio, let the session say what it has heard so far, then fail."""
        if self.protocol.phase in (Phase.FINISHING, Phase.CLOSED):
            return
        verdict = self.protocol.fail(code, message)
        if self.session is None or self.session.done:
            return self._fail(verdict)
        self._verdict = verdict
        self.session.end()
        self._stepper.wake()

    async def _read(self) -> None:
        """Read until the client is gone."""
        actions = self.protocol.receive_query(self.websocket.query_params)
        while True:
            for action in actions:
                await self._perform(action)
            try:
                async with asyncio.timeout(self._patience()):
                    message = await self.websocket.receive()
            except TimeoutError:
                self._lose_patience()
                actions = []
                continue
            if message["type"] == "websocket.disconnect":
                return
            if (text := message.get("text")) is not None:
                actions = self.protocol.receive_text(text)
            else:
                actions = self.protocol.receive_binary(message["bytes"])

    def _patience(self) -> float | None:
        limits = {Phase.WAITING: self.limits.handshake_timeout_s, Phase.STREAMING: self.limits.idle_timeout_s}
        return limits.get(self.protocol.phase)

    def _lose_patience(self) -> None:
        if self.protocol.phase is Phase.WAITING:
            waited = self.limits.handshake_timeout_s
            self.conclude("handshake_timeout", f'no "start" within {waited:g} s; send it right after connecting')
        elif self.protocol.phase is Phase.STREAMING:
            waited = self.limits.idle_timeout_s
            self.conclude("idle_timeout", f"nothing received for {waited:g} s; keep sending audio (silence will do)")

    async def _perform(self, action: Action) -> None:
        try:
            match action:
                case Start():
                    await self._open(action)
                case Audio(samples):
                    await self._hear(samples)
                case Mark(id):
                    self._mark(id)
                case Configure(options):
                    self._configure(options)
                case Finish():
                    self._live.end()
                    self._stepper.wake()
                case Fail():
                    self._fail(action)
        except Exception:
            log.exception("a message could not be handled")
            self._refuse("internal", "the server failed on this message; its log says why")

    async def _open(self, start: Start) -> None:
        name = start.model or next(iter(self.steppers))
        if self._token is not None and not self._authorised(start.token):
            return self._refuse("unauthorized", "the token is missing or wrong; send it in 'start' or as Bearer token")
        if self._draining:
            return self._refuse("shutting_down", "the server is shutting down; try another one, or later")
        if name not in self.steppers:
            return self._refuse("unknown_model", f"no model {name!r}; this server has {', '.join(self.steppers)}")
        self._stepper = self.steppers[name]
        engine = self._stepper.engine
        try:
            if start.sample_rate is not None:
                # The table of an odd rate takes a second to make, which the other streams shall not notice.
                await asyncio.to_thread(engine.resampler, start.sample_rate)
            self.session = engine.open(sample_rate=start.sample_rate, channels=start.channels, **start.options)
        except EngineFull as full:
            return self._refuse("busy", str(full))
        except (ValueError, TypeError) as error:  # TypeError: a value of a wrong type, or a name of ours
            return self._refuse("bad_options", str(error))
        self._stepper.attach(self.session, self._on_step)
        self.metrics.sessions.labels(name).inc()
        limits = dataclasses.asdict(self.limits)
        told = ("max_text_bytes", "max_audio_bytes", "buffer_s", "idle_timeout_s", "max_duration_s", "max_markers")
        self.outgoing.put(
            {
                "type": "ready",
                "stream": self.session.stream,
                "model": name,
                "sample_rate": self.session.inbox.sample_rate,
                "channels": start.channels,
                "encoding": start.encoding,
                "limits": {key: limits[key] for key in told},
            }
        )

    def _authorised(self, token: str | None) -> bool:
        if token is None:
            return self.websocket.scope.get("authorised", False)
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    async def _hear(self, samples: np.ndarray) -> None:
        session, limits = self._live, self.limits
        if session.done or not len(samples):
            return
        now = self._clock()
        if not session.inbox.received:
            self._first_audio = now
        session.feed(samples)
        self._arrivals.append((session.inbox.received, now))
        self._stepper.wake()
        if limits.max_duration_s is not None and session.inbox.seconds > limits.max_duration_s:
            longest = f"a stream may have {limits.max_duration_s:g} s of audio"
            return self.conclude("too_long", f"{longest}; open another connection to go on")
        while session.inbox.pending_seconds > limits.buffer_s and not session.done:
            self._progress.clear()
            try:
                async with asyncio.timeout(limits.stall_timeout_s):
                    await self._progress.wait()
            except TimeoutError:
                stalled = f"{session.inbox.pending_seconds:.1f} s of audio wait and none was processed"
                return self._refuse("overloaded", f"{stalled} for {limits.stall_timeout_s:g} s; try again later")

    def _mark(self, id: str) -> None:
        session = self._live
        if session.done:
            return
        if len(session.markers) >= self.limits.max_markers:
            waiting = f"{len(session.markers)} markers wait already"
            return self._refuse("bad_message", f"{waiting}; send audio between them")
        self._send(session.marker(id))

    def _configure(self, options: Mapping[str, Any]) -> None:
        if self._live.done:
            return
        try:
            self._live.configure(**options)
        except (ValueError, TypeError) as error:  # TypeError: a value of a wrong type, or a name of ours
            self.conclude("bad_options", str(error))

    @property
    def _live(self) -> Session:
        assert self.session is not None, "the protocol lets nothing through before 'start'"
        return self.session

    def _on_step(self, events: list[Event]) -> None:
        session = self._live
        self._progress.set()
        self._measure(session, events)
        self._send(events)
        if session.done and self.protocol.phase is not Phase.CLOSED:
            self.protocol.phase = Phase.CLOSED
            self.outgoing.put({"type": "done"})
            self.outgoing.close(1000, "done")
        elif session.done and self._verdict is not None:
            self._fail(self._verdict)

    def _measure(self, session: Session, events: list[Event]) -> None:
        while len(self._arrivals) > 1 and session.inbox.passed(self._arrivals[0][0] + 1):
            self._arrivals.popleft()
        if events and self._arrivals:
            now = self._clock()
            self.metrics.lag_seconds.observe(now - self._arrivals[0][1])  # the packet that made this step possible
            if events[0].sequence == 0:
                self.metrics.first_result_seconds.observe(now - self._first_audio)

    def _send(self, events: list[Event]) -> None:
        before = self.outgoing.dropped
        for event in events:
            if isinstance(event, Failure):
                return self._fail(self.protocol.fail(event.code, event.message))
            self.outgoing.put(event)
        self.metrics.dropped.inc(self.outgoing.dropped - before)
        if self.outgoing.size > self.limits.max_queue_bytes:
            waiting = f"{self.outgoing.size} bytes of events wait to be read"
            self.outgoing.clear()
            self._refuse("slow_reader", f"{waiting}, at most {self.limits.max_queue_bytes} may; read faster")

    def _refuse(self, code: str, message: str) -> None:
        self._fail(self.protocol.fail(code, message))

    def _fail(self, failure: Fail) -> None:
        """Say why, close, and free the slot."""
        self._verdict = None
        self.metrics.failures.labels(failure.code).inc()
        self.outgoing.put(failure.to_dict())
        self.outgoing.close(failure.close_code, failure.code)
        if self.session is not None:
            self._stepper.detach(self.session)

    async def _write(self) -> None:
        """Send until the end of the queue, the loss of the client, or of patience with it."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone; RuntimeError: closed by uvicorn itself
            while True:
                message = await self.outgoing.get()
                try:
                    async with asyncio.timeout(self.limits.send_timeout_s):
                        if isinstance(message, Close):
                            return await self.websocket.close(message.code, message.reason)
                        await self.websocket.send_text(message)
                except TimeoutError:
                    self.metrics.failures.labels("slow_reader").inc()
                    if abort := self.websocket.scope.get("loquent.abort"):
                        abort()
                    return
