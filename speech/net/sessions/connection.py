"""A websocket of the native protocol whose stream may outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from loquent.speech.audio.resamplers import TooManyTables
from loquent.speech.net.connections.connection import Connection
from loquent.speech.net.connections.voice import Speaker, Voice, output_rate
from loquent.speech.net.dialect import Phase
from loquent.speech.net.messages import (
    Acknowledge,
    Action,
    Configure,
    Fail,
    Finish,
    Flush,
    Interrupt,
    Mark,
    Resume,
    Start,
)
from loquent.speech.net.models import Model
from loquent.speech.net.sessions.folder import Moved
from loquent.speech.net.sessions.kept import Kept
from loquent.speech.net.sessions.record import Record
from loquent.speech.net.sessions.sessions import Captured, Sessions
from loquent.speech.runtime.engine import EngineFull
from loquent.speech.runtime.events import Event, Failure, Speech
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.stream import StreamClosed
from loquent.speech.text.words import Text

log = logging.getLogger(__name__)

CHARACTERS_PER_SECOND = 15  # of text: what "session_every_s" counts
_MESSAGES = (Flush, Mark, Configure, Interrupt, Finish)  # that are neither input nor about the connection
_GIVING_UP_S = 1.0  # that a connection may take to say that its stream goes on elsewhere
_LOOK_S = 0.005  # between two looks whether a step is over


class ResumableConnection(Connection):
    """Serves one client, and keeps its stream, if it asked for that, when the connection is lost.

    What the client is told to be "saved" is covered by a snapshot, so it need not send it again; with a folder the
    snapshot is on disk by then. Events are sent at once: restored from an older snapshot and fed the same input, the
    stream says the same again, and what the client has is left out. Only what followed from an interruption or from
    new options depends on when they came: it is held back until it is saved.
    """

    def __init__(self, sessions: Sessions, *args: Any) -> None:
        super().__init__(*args)
        self.sessions = sessions
        self._kept: Kept | None = None
        self._held: list[Event] = []
        self._saving: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._resuming = False
        self._over = False  # nobody is to go on with the session

    async def give_up(self) -> None:
        """See `Holder.give_up`."""
        self._suspend("moved", "the session goes on over another connection")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GIVING_UP_S):
                await self._left.wait()
        if not self._left.is_set() and (abort := self.websocket.scope.get("loquent.abort")):
            abort()  # a client that is gone does not read
        await self._left.wait()

    def conclude(self, code: str, message: str) -> None:
        """See `Connection.conclude`; what can wait on disk for the next process does."""
        if self._resuming if self._kept is None else self.dialect.phase is Phase.STREAMING:
            if code == "shutting_down" and self.sessions.folder is not None:
                return self._suspend("restarting", "the server is shutting down; resume the session")
            if code == "idle_timeout":
                return self._suspend(code, f"{message}; the session can be resumed")
        super().conclude(code, message)

    # ------------------------------------------------------------------------------------------------- from the client

    async def _do(self, action: Action) -> None:
        kept = self._kept
        if isinstance(action, Resume):
            return await self._resume(action)
        if kept is None:
            return await super()._do(action)
        if isinstance(action, Acknowledge):
            return kept.log.acknowledge(action.received)
        if isinstance(action, Interrupt | Configure) and self.sessions.folder is not None:
            kept.hold_until = kept.messages + 1
        if isinstance(action, Interrupt):
            kept.log.drop_speech(self._writer.speaker.sent_s if self._writer.speaker else 0.0)
            self._held = [event for event in self._held if not isinstance(event, Speech)]
        await super()._do(action)
        kept.messages += isinstance(action, _MESSAGES)
        kept.finished |= isinstance(action, Finish)
        self._save_if_due()

    async def _feed(self, packet: Any, code: str) -> None:
        if self._kept is not None and isinstance(packet, Text):
            self._kept.characters += len(packet.text)
        await super()._feed(packet, code)

    async def _welcome(self, name: str, start: Start, message: dict[str, Any]) -> None:
        if start.resumable:
            key = self.permit.key.name
            token, claim = self.sessions.open(key, self)
            self._kept = Kept(claim, key, name, start, dict(message))
            message |= {"session": token}
            try:
                await self.sessions.save(claim, self._kept.capture(0, self._live.capture()), first=True)
            except OSError as error:
                log.error("a session could not be kept: %s", error)
                self._kept = None
                del message["session"]
                await self.sessions.drop(claim)
        await super()._welcome(name, start, message)

    async def _resume(self, action: Resume) -> None:
        self.permit.present(action.token)
        self._resuming = True
        try:
            found = await self.sessions.resume(action.session, self.permit.key.name, self)
        except ValueError as error:
            return self._refuse("unknown_session", f"the session cannot be read: {error}")
        if found is None:
            return self._refuse("unknown_session", "no such session waits here, or not any more; start another stream")
        record, claim = found
        try:
            self.permit.take_place(record.start.streams)
            model = await self._restore(record)
        except BaseException as error:  # also when this connection has to give way to another one meanwhile
            await self.sessions.wait(claim, lambda: record)
            if not isinstance(error, EngineFull | TooManyTables | ValueError):
                raise
            code = "unknown_session" if isinstance(error, ValueError) else "busy"
            return self._refuse(code, str(error))
        kept = self._kept = Kept.of(record, claim)
        kept.log.acknowledge(action.received)
        self.account.opened(model, record.key, resumed=True)
        self._before = record.position
        if self._writer.speaker is not None:
            self._writer.speaker.sent_s = kept.log.spoken_s
        self.dialect.resume(record.start, record.finished)
        resumed = {"position": record.position, "messages": record.messages, "finished": record.finished}
        self.outgoing.put({**record.ready, "session": action.session, "resumed": resumed})
        for event in kept.log.events:
            self.outgoing.put(event, whole=kept.log.nbytes <= self.limits.max_queue_bytes // 2)
        if self.stream is None:
            self._concluded, self.dialect.phase = True, Phase.CLOSED
            self.outgoing.end_speech()
            self.outgoing.put({"type": "done"})
            return self.outgoing.close(1000, "done")
        self.dialect.takes = self.stream.takes.kind
        self.scheduler.attach(self.stream, self._on_step)

    async def _restore(self, record: Record) -> Model:
        """Take up the stream, if it goes on, and the way in which it speaks; returns what it is a stream of.

        Raises:
            EngineFull, TooManyTables: there is no room now.
            ValueError: this server cannot go on with it.
        """
        if record.model not in self.models:
            raise ValueError(f"no model {record.model!r}; this server has {', '.join(self.models)}")
        model, options = self.models[record.model].asked(record.start.options)
        spoken, resampler, start = model.gives.sample_rate, None, record.start
        rate = None if spoken is None else output_rate(spoken, start.output)
        if record.snapshot is not None:
            self.stream, resampler = await self.admission.open(
                model,
                sample_rate=start.sample_rate,
                channels=start.channels,
                multichannel=start.multichannel,
                options=options,
                output_rate=rate,
                snapshot=record.snapshot,
            )
        elif rate is not None:
            resampler = await self.admission.resampler(model, rate)
        if spoken is not None and resampler is not None:
            self._writer.speaker = Speaker(Voice(spoken, start.output, resampler))
        return model

    # --------------------------------------------------------------------------------------------------- to the client

    def _on_step(self) -> None:
        super()._on_step()
        self._save_if_due()

    def _send(self, events: list[Event]) -> None:
        if self._kept is None:
            return super()._send(events)
        last = self._live.sessions[-1].stage
        ours = [event for event in events if not isinstance(event, Speech) or event.stage == last]
        failed = [event for event in ours if isinstance(event, Failure)]
        new = self._kept.log.add(event for event in ours if event not in failed) + failed
        if self._kept.holds:
            self._held += new
        else:
            super()._send(new)
        if self._kept.log.nbytes > self.limits.max_unconfirmed_bytes:
            self._kept.log.drop_superseded()
        if self._kept.log.nbytes > self.limits.max_unconfirmed_bytes and not self._concluded:
            waiting = f"{self._kept.log.nbytes} bytes of events are not acknowledged"
            self._refuse("slow_reader", f"{waiting}, at most {self.limits.max_unconfirmed_bytes} may; acknowledge them")

    def _close_if_done(self) -> None:
        if not self._held:
            super()._close_if_done()

    def _fail(self, failure: Fail) -> None:
        self._over = True
        super()._fail(failure)

    def _suspend(self, code: str, message: str) -> None:
        """Close the connection; the stream waits for its client."""
        if self._concluded:
            return
        self._concluded = True
        failure = self.dialect.fail(code, message)
        self.metrics.failures.labels(code).inc()
        self.account.ended(code)
        self.outgoing.put(failure.to_dict())
        self.outgoing.close(failure.close_code, code)

    # ------------------------------------------------------------------------------------------------------ for keeping

    def _save_if_due(self) -> None:
        """Save the stream, if there is enough that is not saved, and if no step of it is under way."""
        kept = self._kept
        if kept is None or self._concluded or self._saving is not None:
            return
        inbox = self._live.inbox
        unit = inbox.sample_rate if isinstance(inbox, SampleInbox) else CHARACTERS_PER_SECOND
        due = self._position() - kept.tried >= self.limits.session_every_s * unit
        if not (due or kept.holds) or self._pauses:
            return
        if self.sessions.folder is None:  # it is in memory as it is
            return self._saved(self._position(), kept.messages)
        captured = self._captured()
        if captured is not None and not self._concluded:
            kept.tried = self._position()
            self._saving = asyncio.create_task(self._save(captured, self._position(), kept.messages))

    async def _save(self, captured: Captured, position: int, messages: int) -> None:
        assert self._kept is not None
        try:
            await self.sessions.save(self._kept.claim, captured)
            self._saved(position, messages)
        except Moved:
            self._over = True
            self._suspend("moved", "the session goes on elsewhere")
        except OSError as error:  # as when the disk is full: the stream goes on, and may be lost
            log.error("a session could not be saved: %s", error)
            self._kept.hold_until = 0
        finally:
            self._saving = None
        if self._held and not self._kept.holds and not self._concluded:
            held, self._held = self._held, []
            super()._send(held)
            self._close_if_done()
        self._save_if_due()  # what has come meanwhile

    def _saved(self, position: int, messages: int) -> None:
        assert self._kept is not None
        self._kept.saved = self._kept.tried = position
        self._kept.saved_messages = messages
        if not self._concluded:
            self.outgoing.put({"type": "saved", "position": position, "messages": messages})

    def _captured(self) -> Captured | None:
        """Everything as it is now, or None while a step is under way, or where a stage of a pipeline has ended."""
        assert self._kept is not None
        if self.stream is None:  # it was over when it was resumed
            return self._kept.capture(self._kept.saved, None)
        if any(session.busy for session in self._live.sessions):
            return None
        self._send(self._live.drain())
        try:
            return self._kept.capture(self._position(), None if self._live.done else self._live.capture())
        except StreamClosed:
            return None

    def _position(self) -> int:
        assert self._kept is not None
        inbox = self._live.inbox
        return inbox.received if isinstance(inbox, SampleInbox) else self._kept.characters

    async def _leave(self) -> None:
        try:
            if self._kept is not None:
                await self._park(self._kept)
        finally:
            await super()._leave()
            self._left.set()

    async def _park(self, kept: Kept) -> None:
        """Let the stream wait for its client, unless it has failed or its client has closed it.

        One that is over waits too, without a snapshot: nobody knows whether the client has read the end.
        """
        dropped = self._left_with == 1000 and self.dialect.phase is not Phase.CLOSED
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        self._concluded = True
        if self.stream is not None and not (self._over or dropped):
            self.stream.suspend()
        limit = self._clock() + self.limits.stall_timeout_s
        while not (self._over or dropped):
            if (captured := self._captured()) is not None:
                return await self.sessions.wait(kept.claim, captured)
            if self._clock() > limit:
                log.error("a session could not be kept: its stream made no progress")
                break
            await asyncio.sleep(_LOOK_S)
        await self.sessions.drop(kept.claim)
