"""One websocket: carries out what a `Dialect` says, between a socket and a stream."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.admission import Admission
from loquent.speech.net.connections.arrivals import Arrivals
from loquent.speech.net.connections.outgoing import Outgoing
from loquent.speech.net.connections.permit import Permit
from loquent.speech.net.connections.voice import Speaker, Voice, output_rate, speaking
from loquent.speech.net.connections.welcome import ready
from loquent.speech.net.connections.writer import Writer
from loquent.speech.net.dialect import Dialect, MessageRefused, Phase, Socket
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
    Speak,
    Start,
    TextPiece,
)
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.models import Models, UnknownModel
from loquent.speech.net.operation.account import Account
from loquent.speech.net.operation.keys import KeyLimited, Keys
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure, Interrupted, Speech
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream
from loquent.speech.text.words import Text

log = logging.getLogger(__name__)


class Connection:
    """Serves one client from the handshake to the close.

    Args:
        websocket: not yet accepted.
        dialect: what its client speaks.
        models: by name; the first is the default.
        scheduler: steps their engines.
        admission: opens their streams.
        keys: what the client has to present, in "start" or, then checked before, in its Authorization header.
        draining: whether the server is on its way down.
    """

    def __init__(
        self,
        websocket: Socket,
        dialect: Dialect,
        models: Models,
        scheduler: Scheduler,
        admission: Admission,
        limits: Limits,
        metrics: Metrics,
        keys: Keys,
        draining: bool,
    ) -> None:
        self.websocket, self.models, self.scheduler = websocket, models, scheduler
        self.admission, self.limits, self.metrics = admission, limits, metrics
        self.dialect, self.outgoing = dialect, Outgoing(dialect.told)
        self.stream: Stream | None = None
        self._another: Callable[[], Stream] | None = None  # opens one more like the first
        self._renewing = False  # whether that one takes its place once it is over
        self.permit = Permit(keys, websocket.scope.get("loquent.key"), draining)
        self._clock = asyncio.get_running_loop().time
        self._progress = asyncio.Event()
        self._verdict: Fail | None = None  # to be sent once the stream has nothing more to say
        self._concluded = False
        self.opened = self._clock()
        self.account = Account(metrics, self._clock)
        self._before = 0  # where in the stream's input that of this connection begins; negative after other streams
        self._arrivals = Arrivals()
        self._acknowledged = 0
        self._left_with: int | None = None  # close code of a client that has closed
        self._writer = Writer(websocket, dialect, self.outgoing, limits.send_timeout_s)
        self._response: Stream | None = None  # says a text beside the stream
        self._responded = True  # whether it has ended

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
            await self._leave()

    async def _leave(self) -> None:
        """The client is gone, or has everything."""
        self.account.ended("lost" if self._left_with != 1000 else "closed")
        self.account.close(self.stream, self._before)
        self._detach()
        self.permit.close()

    def conclude(self, code: str, message: str) -> None:
        """Take no more input, let the stream say what it has to say so far, then fail."""
        if self.dialect.phase in (Phase.FINISHING, Phase.CLOSED):
            return
        verdict = self.dialect.fail(code, message)
        self._verdict = verdict
        if self.stream is None or self.stream.done:
            return self._close_if_done()
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
        return self._arrivals.overdue(self._live.sessions[0], now)

    # ------------------------------------------------------------------------------------------------- from the client

    async def _read(self) -> None:
        """Read until the client is gone."""
        actions = self.dialect.receive_query(self.websocket.query_params)
        while True:
            for action in actions:
                if not self._concluded:  # else the actions before it have failed
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
                self._left_with = message.get("code")
                return
            actions = self.dialect.receive(message)

    def _patience(self) -> float | None:
        waiting = self.limits.idle_timeout_s if self.dialect.may_wait else self.limits.handshake_timeout_s
        return {Phase.WAITING: waiting, Phase.STREAMING: self.limits.idle_timeout_s}.get(self.dialect.phase)

    def _lose_patience(self) -> None:
        waited = self._patience()
        if waited is None or not self._responded:
            return  # who listens may be silent
        if self.dialect.phase is Phase.WAITING and not self.dialect.may_wait:
            self.conclude("handshake_timeout", f'no "start" within {waited:g} s; send it right after connecting')
        else:
            self.conclude("idle_timeout", f"nothing received for {waited:g} s; keep sending audio (silence will do)")

    async def _perform(self, action: Action) -> None:
        try:
            await self._do(action)
        except MessageRefused as refusal:
            self._refuse(refusal.code, str(refusal))
        except KeyLimited as limited:
            self.metrics.refused("key")
            self._refuse("busy", str(limited))
        except Exception:
            log.exception("a message could not be handled")
            self._refuse("internal", "the server failed on this message; its log says why")

    async def _do(self, action: Action) -> None:
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
            case Speak():
                await self._speak(action)
            case Say(message):
                self.outgoing.put(dict(message))
                self._bound_queue()
            case Finish():
                if not self._live.done:
                    self._live.end()
                self.scheduler.wake()
            case Fail():
                self._fail(action)

    async def _open(self, start: Start) -> None:
        self.permit.present(start.token)
        self.permit.take_place(start.streams)
        try:
            name = self.models.named(start.model, self.dialect.foreign_models)
        except UnknownModel as error:
            return self._refuse("unknown_model", str(error))
        if self.models[name].gives.kind == "audio" and not self.dialect.carries_speech:
            return self._refuse("unknown_model", f"model {name!r} speaks, which this protocol cannot carry")
        try:
            model, options = self.models[name].asked(start.options)
        except ValueError as error:
            return self._refuse("bad_options", str(error))
        rate = start.sample_rate
        if start.encoding == "opus" and model.takes.kind == "audio":
            rate = 48_000  # its decoder's, whatever it was recorded at
        speech = model.gives.sample_rate
        audio: dict[str, Any] = {"sample_rate": rate, "channels": start.channels, "multichannel": start.multichannel}
        self._another = functools.partial(model.open, **audio, **options)
        try:
            self.stream, resampler = await self.admission.open(
                model,
                **audio,
                options=options,
                output_rate=None if speech is None else output_rate(speech, start.output),
            )
            if speech is not None and resampler is not None:
                self._writer.speaker = Speaker(Voice(speech, start.output, resampler))
        except (EngineFull, TooManyTables) as full:
            return self._refuse("busy", str(full))
        except (ValueError, TypeError) as error:  # TypeError: a value of a wrong type, or a name of ours
            return self._refuse("bad_options", str(error))
        self.dialect.takes = model.takes.kind
        self.scheduler.attach(self.stream, self._on_step)
        self.account.opened(model, self.permit.key.name)
        await self._welcome(name, start, ready(name, model, self.stream, start, self.limits))

    async def _welcome(self, name: str, start: Start, message: dict[str, Any]) -> None:
        """The stream is open: say so."""
        self.outgoing.put(message)

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
        longest_s = self.permit.key.max_duration_s or limits.max_duration_s
        heard_s = self.dialect.offset_s + inbox.seconds if isinstance(inbox, SampleInbox) else 0.0
        if longest_s is not None and heard_s > longest_s:
            longest = f"a stream may have {longest_s:g} s of audio"
            return self.conclude("too_long", f"{longest}; open another connection to go on")
        most, unit = (limits.buffer_s, "s of audio") if audio else (limits.buffer_words, "words")
        while stream.inbox.pending > most and not stream.done:
            if not await self._progressed():
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
        self._renewing = True
        self._live.end()
        self.scheduler.wake()
        while self._renewing and not self._concluded:
            if not await self._progressed():
                self._refuse("overloaded", f"no progress for {self.limits.stall_timeout_s:g} s; try again later")

    async def _progressed(self) -> bool:
        """Wait for the next step; False: there is none for too long."""
        self._progress.clear()
        try:
            async with asyncio.timeout(self.limits.stall_timeout_s):
                await self._progress.wait()
        except TimeoutError:
            return False
        return True

    def _begin_again(self) -> None:
        """Put another stream in the place of one that is over."""
        assert self._another is not None, "made with the first stream"
        if isinstance(self._live.inbox, SampleInbox):
            self.dialect.offset_s += self._live.inbox.seconds
            self._before -= self._live.inbox.received
        self.scheduler.detach(self._live)
        self.stream, self._arrivals, self._acknowledged = self._another(), Arrivals(), 0
        self.scheduler.attach(self.stream, self._on_step)
        self.outgoing.put({"type": "renewed"})
        self._renewing = False

    async def _speak(self, speak: Speak) -> None:
        """Say a text on a stream of its own, while the other one goes on."""
        if self._response is not None:
            self.scheduler.detach(self._response)
        try:
            self.permit.present(None)
            self.permit.take_place()
            self._response, self._writer.speaker = await speaking(speak, self.models, self.admission)
        except MessageRefused as refusal:
            self.metrics.failures.labels(refusal.code).inc()
            self.outgoing.put({"type": "unspoken", "code": refusal.code, "message": str(refusal)})
            return self._bound_queue()
        self._responded = False
        self.outgoing.put({"type": "speaking"})
        self.scheduler.attach(self._response, self._on_response)

    def _interrupt(self, played_s: float | None) -> None:
        """Drop what was not sent; the stream says what was heard of the rest."""
        stream = self._response or self._live
        self.outgoing.drop_speech()
        events = stream.interrupt(self._writer.speaker.interrupt(played_s) if self._writer.speaker else 0.0)
        self.scheduler.wake()
        if stream is self._response:
            return self._respond(events)
        self._send(events)
        self._close_if_done()

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
        if not self._pauses:
            events = self._live.drain()
            self._measure(self._live, events)
            self._send(events)
            self._acknowledge()
            self._close_if_done()

    def _on_response(self) -> None:
        if self._response is not None and self.outgoing.speech_s < self.limits.speech_ahead_s:
            self._respond(self._response.drain())

    def _respond(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Failure):
                self.metrics.failures.labels(event.code).inc()
            self.outgoing.put(event if isinstance(event, Speech) else {"type": "said", "event": event})
        if self._response is not None and self._response.done and not self._responded:
            self._responded = True
            self.outgoing.end_speech({"type": "spoken"})
            self._close_if_done()

    @property
    def _pauses(self) -> bool:
        """Whether the stream's own speech has to be sent before it goes on."""
        own = self._writer.speaker is not None and self._response is None
        return own and self.outgoing.speech_s >= self.limits.speech_ahead_s

    def _close_if_done(self) -> None:
        """Say "done", or why it ended, once the stream is over and everything it said is on its way."""
        going_on = self._verdict is None if self.stream is None else not self.stream.done
        closed = self.dialect.phase is Phase.CLOSED and self._verdict is None
        if going_on or closed or self._concluded or self._pauses:
            return
        if self._renewing and self._verdict is None:
            return self._begin_again()
        if not self._responded:
            return  # what is being said comes to its end
        self._concluded = True
        if self._response is None:
            self.outgoing.end_speech()
        if self._verdict is not None:
            self._fail(self._verdict)
        else:
            self.dialect.phase = Phase.CLOSED
            self.account.ended("done")
            self.outgoing.put({"type": "done"})
            self.outgoing.close(1000, "done")

    def _measure(self, stream: Stream, events: list[Event]) -> None:
        arrived = self._arrivals.processed(stream.inbox)
        if events and arrived is not None:
            now = self._clock()
            first_s = now - (self._arrivals.first or now) if events[0].sequence == 0 else None
            self.account.result(now - arrived, first_s)  # since the packet that made this step possible

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
            if isinstance(event, Interrupted) and self._writer.speaker is not None:  # by who spoke to an agent, perhaps
                self.outgoing.drop_speech()
                self._writer.speaker.interrupt(event.heard)
            if not isinstance(event, Speech) or event.stage == self._live.sessions[-1].stage:
                self.outgoing.put(event)  # a later stage of the pipeline takes other speech
        self.metrics.dropped.inc(self.outgoing.dropped - before)
        self._bound_queue()

    def _bound_queue(self) -> None:
        """Part with a client that does not read what it is told."""
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
        self.account.ended(failure.code)
        self.outgoing.put(failure.to_dict())
        self.outgoing.close(failure.close_code, failure.code)
        self._detach()

    def _detach(self) -> None:
        for stream in (self.stream, self._response):
            if stream is not None:
                self.scheduler.detach(stream)

    async def _write(self) -> None:
        """Send until the end of the queue, the loss of the client, or of patience with it."""
        try:
            await self._writer.run(self._on_spoken)
        except TimeoutError:
            self.metrics.failures.labels("slow_reader").inc()
            self.account.ended("slow_reader")
            if abort := self.websocket.scope.get("loquent.abort"):
                abort()

    def _on_spoken(self) -> None:
        """Let a stream go on that has paused for the client."""
        self._on_response()
        if self.stream is not None and not self._concluded:
            self._on_step()
        self.scheduler.wake()
