"""One websocket: carries out what a `Dialect` says, between a socket and a stream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from loquent.speech.audio.codecs import ENCODINGS
from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.arrivals import Arrivals
from loquent.speech.net.dialect import Dialect, Phase
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import (
    Action,
    Configure,
    Fail,
    Finish,
    Flush,
    Interrupt,
    Mark,
    Renew,
    Samples,
    Say,
    Start,
    TextPiece,
)
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import Model
from loquent.speech.net.outgoing import Close, Outgoing, SpeechEnd
from loquent.speech.net.voice import Voice, output_rate
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure, Interrupted, Speech
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Port
from loquent.speech.text.words import Text

log = logging.getLogger(__name__)

TOLD_LIMITS = ("max_text_bytes", "max_audio_bytes", "buffer_s", "idle_timeout_s", "max_duration_s", "max_markers")


class Connection:
    """Serves one client from the handshake to the close.

    Args:
        websocket: not yet accepted.
        dialect: what its client speaks.
        models: by name; the first is the default.
        scheduler: steps their engines.
        admission: opens their streams.
        token: what the client has to present, in "start" or, then checked before, in its Authorization header.
        draining: whether the server is on its way down.
    """

    def __init__(
        self,
        websocket: WebSocket,
        dialect: Dialect,
        models: Mapping[str, Model],
        scheduler: Scheduler,
        admission: Admission,
        limits: Limits,
        metrics: Metrics,
        token: str | None,
        draining: bool,
    ) -> None:
        self.websocket, self.models, self.scheduler = websocket, models, scheduler
        self.admission, self.limits, self.metrics = admission, limits, metrics
        self.dialect, self.outgoing = dialect, Outgoing(dialect.told)
        self.stream: Stream | None = None
        self._another: Callable[[], Stream] | None = None  # opens one more like the first
        self._renewed: asyncio.Event | None = None
        self._token, self._draining = token, draining
        self._clock = asyncio.get_running_loop().time
        self._progress = asyncio.Event()
        self._verdict: Fail | None = None  # to be sent once the stream has nothing more to say
        self._concluded = False
        self.opened = self._clock()
        self._arrivals = Arrivals()
        self._lag_s = 0.0
        self._acknowledged = 0
        self._voice: Voice | None = None
        self._sent_s = 0.0  # seconds of speech sent
        self._interruptions = self._restarts = 0  # of the stream, and those that its encoder knows of

    async def run(self) -> None:
        """Serve until either side has closed; the stream is over and its slot free afterwards."""
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
            if self.stream is not None:
                self.scheduler.detach(self.stream)

    def conclude(self, code: str, message: str) -> None:
        """Take no more input, let the stream say what it has to say so far, then fail."""
        if self.dialect.phase in (Phase.FINISHING, Phase.CLOSED):
            return
        verdict = self.dialect.fail(code, message)
        if self.stream is None or self.stream.done:
            return self._fail(verdict)
        self._verdict = verdict
        self.stream.end()
        self.scheduler.wake()

    @property
    def going_on(self) -> bool:
        """Whether the stream is open and its input is still taken."""
        return self.stream is not None and not self.stream.done and self.dialect.phase is Phase.STREAMING

    def lag(self, now: float) -> float:
        """Seconds by which the input of the next step is overdue, if it is the machine that is late.

        Args:
            now: time of the event loop, in seconds.
        """
        session = self._live.sessions[0]
        if isinstance(session.inbox, SampleInbox) and not session.busy:  # else as it was between its steps
            self._lag_s = 0.0
            if session.ready:
                wanted = session.engine.task.wants(session.memo) or 0
                needed = wanted * session.inbox.sample_rate // session.inbox.model_rate
                position = min(session.inbox.processed + needed, session.inbox.received)
                self._lag_s = self._arrivals.lag(position, now)
        return self._lag_s

    # ------------------------------------------------------------------------------------------------- from the client

    async def _read(self) -> None:
        """Read until the client is gone."""
        actions = self.dialect.receive_query(self.websocket.query_params)
        while True:
            for action in actions:
                await self._perform(action)
            await asyncio.sleep(0)  # a client that sends without a pause leaves others their turn
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
                actions = self.dialect.receive_text(text)
            else:
                actions = self.dialect.receive_binary(message["bytes"])

    def _patience(self) -> float | None:
        limits = {Phase.WAITING: self.limits.handshake_timeout_s, Phase.STREAMING: self.limits.idle_timeout_s}
        return limits.get(self.dialect.phase)

    def _lose_patience(self) -> None:
        if self.dialect.phase is Phase.WAITING:
            waited = self.limits.handshake_timeout_s
            self.conclude("handshake_timeout", f'no "start" within {waited:g} s; send it right after connecting')
        elif self.dialect.phase is Phase.STREAMING:
            waited = self.limits.idle_timeout_s
            self.conclude("idle_timeout", f"nothing received for {waited:g} s; keep sending audio (silence will do)")

    async def _perform(self, action: Action) -> None:
        try:
            match action:
                case Start():
                    await self._open(action)
                case Samples(samples):
                    await self._feed(samples if len(samples) else None, "bad_audio")
                case TextPiece(text, time_s):
                    await self._feed(Text(text, time_s), "bad_text")
                case Flush():
                    self._flush()
                case Interrupt(played_s):
                    self._interrupt(played_s)
                case Mark(id):
                    self._mark(id)
                case Configure(options):
                    self._configure(options)
                case Renew():
                    await self._renew()
                case Say(message):
                    self.outgoing.put(dict(message))
                case Finish():
                    if not self._live.done:
                        self._live.end()
                    self.scheduler.wake()
                case Fail():
                    self._fail(action)
        except Exception:
            log.exception("a message could not be handled")
            self._refuse("internal", "the server failed on this message; its log says why")

    async def _open(self, start: Start) -> None:
        name = start.model or next(iter(self.models))
        if self._token is not None and not self._authorised(start.token):
            return self._refuse("unauthorized", "the token is missing or wrong; send it in 'start' or as Bearer token")
        if self._draining:
            return self._refuse("shutting_down", "the server is shutting down; try another one, or later")
        if name not in self.models:
            return self._refuse("unknown_model", f"no model {name!r}; this server has {', '.join(self.models)}")
        try:
            model, options = self.models[name].asked(start.options)
        except ValueError as error:
            return self._refuse("bad_options", str(error))
        rate = start.sample_rate
        if start.encoding == "opus" and model.takes.kind == "audio":
            rate = 48_000  # its decoder's, whatever it was recorded at
        speech = model.gives.sample_rate
        self._another = functools.partial(model.open, sample_rate=rate, channels=start.channels, **options)
        try:
            self.stream, resampler = await self.admission.open(
                model,
                sample_rate=rate,
                channels=start.channels,
                options=options,
                output_rate=None if speech is None else output_rate(speech, start.output),
            )
            if speech is not None and resampler is not None:
                self._voice = Voice(speech, start.output, resampler)
        except (EngineFull, TooManyTables) as full:
            return self._refuse("busy", str(full))
        except (ValueError, TypeError) as error:  # TypeError: a value of a wrong type, or a name of ours
            return self._refuse("bad_options", str(error))
        self.dialect.takes = model.takes.kind
        self.scheduler.attach(self.stream, self._on_step)
        self.metrics.sessions.labels(name).inc()
        self.outgoing.put(self._ready(name, model, start))

    def _ready(self, name: str, model: Model, start: Start) -> dict[str, Any]:
        stream = self._live
        limits = dataclasses.asdict(self.limits)
        message: dict[str, Any] = {"type": "ready", "stream": stream.stream, "model": name}
        if isinstance(stream.inbox, SampleInbox):
            message |= {"sample_rate": start.sample_rate or stream.inbox.sample_rate}
            message |= {"channels": start.channels, "encoding": start.encoding}
        if relaxed := {name: value for one in stream.sessions for name, value in one.relaxed.items()}:
            message["relaxed"] = relaxed
        message |= {"takes": _described(model.takes), "gives": _described(model.gives)}
        if model.gives.sample_rate is not None:
            rate = output_rate(model.gives.sample_rate, start.output)
            message["output"] = {"encoding": start.output.encoding, "sample_rate": rate}
        return message | {"limits": {key: limits[key] for key in TOLD_LIMITS}}

    def _authorised(self, token: str | None) -> bool:
        if token is None:
            return self.websocket.scope.get("authorised", False)
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    async def _feed(self, packet: Any, code: str) -> None:
        stream, limits = self._live, self.limits
        if stream.done or packet is None:
            return
        inbox = stream.inbox
        before = inbox.received
        try:
            stream.feed(packet)
        except ValueError as error:
            return self._refuse(code, str(error))
        audio = isinstance(inbox, SampleInbox)
        seconds = (inbox.received - before) / inbox.sample_rate if isinstance(inbox, SampleInbox) else 0.0
        self._arrivals.add(inbox.received, seconds, self._clock())
        self.scheduler.wake()
        if (
            limits.max_duration_s is not None
            and isinstance(inbox, SampleInbox)
            and inbox.seconds > limits.max_duration_s
        ):
            longest = f"a stream may have {limits.max_duration_s:g} s of audio"
            return self.conclude("too_long", f"{longest}; open another connection to go on")
        most, unit = (limits.buffer_s, "s of audio") if audio else (limits.buffer_words, "words")
        while stream.inbox.pending > most and not stream.done:
            self._progress.clear()
            try:
                async with asyncio.timeout(limits.stall_timeout_s):
                    await self._progress.wait()
            except TimeoutError:
                stalled = f"{stream.inbox.pending:.1f} {unit} wait and none was processed"
                return self._refuse("overloaded", f"{stalled} for {limits.stall_timeout_s:g} s; try again later")

    def _flush(self) -> None:
        if not self._live.done:
            self._live.feed_flush()
            self.scheduler.wake()

    async def _renew(self) -> None:
        """Let the stream say what it has to say so far, and go on with another; no input is read meanwhile."""
        if self._live.done:
            return
        self._renewed = asyncio.Event()
        self._live.end()
        self.scheduler.wake()
        try:
            async with asyncio.timeout(self.limits.stall_timeout_s):
                await self._renewed.wait()
        except TimeoutError:
            self._refuse("overloaded", f"no progress for {self.limits.stall_timeout_s:g} s; try again later")

    def _begin_again(self) -> None:
        """Put another stream in the place of one that is over."""
        assert self._another is not None, "made with the first stream"
        assert self._renewed is not None, "asked for by `_renew`"
        if isinstance(self._live.inbox, SampleInbox):
            self.dialect.offset_s += self._live.inbox.seconds
        self.scheduler.detach(self._live)
        self.stream, self._arrivals, self._acknowledged = self._another(), Arrivals(), 0
        self.scheduler.attach(self.stream, self._on_step)
        self.outgoing.put({"type": "renewed"})
        self._renewed.set()
        self._renewed = None

    def _interrupt(self, played_s: float | None) -> None:
        """Drop what was not sent; the stream says what was heard of the rest."""
        self._fall_silent(self._sent_s if played_s is None else played_s)
        self._send(self._live.interrupt(self._sent_s))
        self.scheduler.wake()
        self._close_if_done()

    def _fall_silent(self, played_s: float) -> None:
        self._interruptions += 1
        self.outgoing.drop_speech()
        self._sent_s = min(played_s, self._sent_s)

    def _mark(self, id: str) -> None:
        stream = self._live
        if stream.done:
            return
        if stream.waiting_markers >= self.limits.max_markers:
            waiting = f"{stream.waiting_markers} markers wait already"
            return self._refuse("bad_message", f"{waiting}; send input between them")
        self._send(stream.marker(id))

    def _configure(self, options: Mapping[str, Any]) -> None:
        if self._live.done:
            return
        try:
            self._live.configure(**options)
        except (ValueError, TypeError) as error:  # TypeError: a value of a wrong type, or a name of ours
            self.conclude("bad_options", str(error))

    @property
    def _live(self) -> Stream:
        assert self.stream is not None, "the protocol lets nothing through before 'start'"
        return self.stream

    # --------------------------------------------------------------------------------------------------- to the client

    def _on_step(self) -> None:
        self._progress.set()
        self.lag(self._clock())  # a stream that is behind is seldom between two steps when somebody asks
        if self._voice is None or self.outgoing.speech_s < self.limits.speech_ahead_s:
            events = self._live.drain()
            self._measure(self._live, events)
            self._send(events)
            self._acknowledge()
            self._close_if_done()

    def _close_if_done(self) -> None:
        """Say "done", or why it ended, once the stream is over and everything it said is on its way."""
        if not self._live.done or self._concluded or self.outgoing.speech_s >= self.limits.speech_ahead_s:
            return
        if self.dialect.phase is Phase.CLOSED and self._verdict is None:
            return
        if self._renewed is not None and self._verdict is None:
            return self._begin_again()
        self._concluded = True
        self.outgoing.end_speech()
        if self._verdict is not None:
            self._fail(self._verdict)
        else:
            self.dialect.phase = Phase.CLOSED
            self.outgoing.put({"type": "done"})
            self.outgoing.close(1000, "done")

    def _measure(self, stream: Stream, events: list[Event]) -> None:
        arrived = self._arrivals.processed(stream.inbox)
        if events and arrived is not None:
            now = self._clock()
            self.metrics.lag_seconds.observe(now - arrived)  # the packet that made this step possible
            if events[0].sequence == 0:
                self.metrics.first_result_seconds.observe(now - (self._arrivals.first or now))

    def _acknowledge(self) -> None:
        position = self._live.inbox.processed
        if self.dialect.start.acknowledge and position > self._acknowledged:
            self._acknowledged = position
            self.outgoing.put({"type": "acknowledged", "position": position})

    def _send(self, events: list[Event]) -> None:
        before = self.outgoing.dropped
        for event in events:
            if isinstance(event, Failure):
                return self._fail(self.dialect.fail(event.code, event.message))
            if isinstance(event, Interrupted):  # by somebody who spoke to an agent, perhaps
                self._fall_silent(event.heard)
            within = isinstance(event, Speech) and event.stage != self._live.sessions[-1].stage
            if not within:  # a later stage of the pipeline takes it
                self.outgoing.put(event)
        self.metrics.dropped.inc(self.outgoing.dropped - before)
        if self.outgoing.size > self.limits.max_queue_bytes:
            waiting = f"{self.outgoing.size} bytes of events wait to be read"
            self.outgoing.clear()
            self._refuse("slow_reader", f"{waiting}, at most {self.limits.max_queue_bytes} may; read faster")

    def _refuse(self, code: str, message: str) -> None:
        self._fail(self.dialect.fail(code, message))

    def _fail(self, failure: Fail) -> None:
        """Say why, close, and free the slot."""
        self._verdict, self._concluded = None, True
        self.metrics.failures.labels(failure.code).inc()
        self.outgoing.put(failure.to_dict())
        self.outgoing.close(failure.close_code, failure.code)
        if self.stream is not None:
            self.scheduler.detach(self.stream)

    async def _write(self) -> None:
        """Send until the end of the queue, the loss of the client, or of patience with it."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # gone; RuntimeError: closed by uvicorn itself
            last: Speech | None = None
            while True:
                message = await self.outgoing.get()
                try:
                    match message:
                        case Close():
                            async with asyncio.timeout(self.limits.send_timeout_s):
                                return await self.websocket.close(message.code, message.reason)
                        case Speech():
                            last = message
                            await self._say(message)
                        case SpeechEnd():
                            await self._say_rest(last)
                        case _:
                            async with asyncio.timeout(self.limits.send_timeout_s):
                                await self.websocket.send_text(message)
                except TimeoutError:
                    self.metrics.failures.labels("slow_reader").inc()
                    if abort := self.websocket.scope.get("loquent.abort"):
                        abort()
                    return

    async def _say(self, speech: Speech) -> None:
        """Encode and send speech, then let the stream go on if it has paused for the client."""
        assert self._voice is not None
        if self._restarts != self._interruptions:
            self._restarts = self._interruptions
            self._voice.restart()
        header, packets = await asyncio.to_thread(self._voice.encode, speech)
        if self._restarts == self._interruptions:  # else nobody wants to hear it any more
            await self._send_speech(header, packets)
            self._sent_s = speech.end
        if self.stream is not None and not self._concluded:
            self._on_step()
            self.scheduler.wake()

    async def _say_rest(self, last: Speech | None) -> None:
        if self._voice is not None and last is not None:
            rest = await asyncio.to_thread(self._voice.finish, last)
            if rest is not None:
                await self._send_speech(*rest)

    async def _send_speech(self, header: dict[str, Any], packets: bytes) -> None:
        async with asyncio.timeout(self.limits.send_timeout_s):
            await self.websocket.send_text(json.dumps(header))
            await self.websocket.send_bytes(packets)


def _described(port: Port) -> dict[str, Any]:
    """A port as "ready" names it."""
    if port.kind == "text":
        return {"kind": "text"}
    return {"kind": "audio", "sample_rate": port.sample_rate, "encodings": list(ENCODINGS)}
