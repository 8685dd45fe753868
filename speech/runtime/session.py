"""A stream of one task, sans-I/O: input in, events out; no sockets, no threads, no clock but that of its input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Protocol

import safetensors.torch

from loquent.speech.nn.state import State
from loquent.speech.runtime.events import Event, Failure, Marker, Speech
from loquent.speech.runtime.inbox import Inbox
from loquent.speech.runtime.link import hand_on
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.snapshot import pack
from loquent.speech.runtime.stream import Stream, StreamClosed
from loquent.speech.runtime.task import Memo, Overhearing, Previewing, Task, Turn
from loquent.speech.text.words import Draft

MOST_PENDING = 200  # words, or seconds of audio, that wait before a stage: the stage before it pauses meanwhile


class Host(Protocol):
    """What a session asks of the engine that holds it."""

    task: Task
    state: Any
    bytes_per_slot: int
    ahead_s: float

    def touch(self, session: Session) -> None:
        """Something has changed that may make a session ready, or not ready any more."""

    def step(self) -> int:
        """Step every session that is ready once."""

    def run(self, session: Session) -> None:
        """Step until the session is not ready."""

    def release(self, session: Session) -> None:
        """Free a session's slot."""


class Session(Stream):
    """One stream of an engine; made by `Engine.open` or by a model's ``session()``.

    Attributes:
        busy: whether its slot is in a batch under way.
        stage: its name, if it is a stage of a pipeline.
        began: when the engine took it, by its clock, and the source time that had come in before.
        relaxed: options that it was given instead of those it asked for, as time was scarce when it began.
        upstream, downstream: the stages before and after it.
        observer: told after each of its steps, and at its end.
    """

    def __init__(self, engine: Host, stream: str, memo: Memo, options: Any, inbox: Inbox, slot: int) -> None:
        self.engine, self.stream, self.memo, self.options = engine, stream, memo, options
        self.inbox, self.slot = inbox, slot
        self.takes, self.gives = engine.task.takes, engine.task.gives
        self.stage = ""
        self.began = (0.0, 0.0)
        self.relaxed: dict[str, Any] = {}
        self.sequence = 0
        self.markers: list[tuple[int, str]] = []  # (position in the input, id)
        self.given_s = 0.0  # seconds of speech drained
        self.busy = False
        self.upstream: Session | None = None
        self.downstream: Session | None = None
        self.observer: Callable[[Session], None] | None = None
        self._done = False
        self._closed = False  # by whoever holds it, or by a failure
        self._outbox: list[Event] = []
        self._waiting_s = 0.0  # seconds of speech in the outbox
        self._interruption: tuple[float | None] | None = None  # asked for while a step was under way

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Itself."""
        return (self,)

    @property
    def done(self) -> bool:
        """Whether the last step has been made."""
        return self._done

    @property
    def waiting_markers(self) -> int:
        """Markers that have not been reached."""
        return len(self.markers)

    @property
    def ready(self) -> bool:
        """Whether the session can step: its input is there, and there is room for what it says."""
        if self._done or self.busy or self._waiting_s >= self.engine.ahead_s:
            return False
        if self.downstream is not None and self.downstream.inbox.pending >= MOST_PENDING:
            return False
        wanted = self.engine.task.wants(self.memo)
        return wanted is not None and self.inbox.available(wanted)

    @property
    def nbytes(self) -> int:
        """Bytes of state: the model's slot and the input that waits."""
        return self.engine.bytes_per_slot + self.inbox.nbytes

    def run(self) -> list[Event]:
        """See `Stream.run`."""
        events: list[Event] = []
        while self.ready:
            self.engine.run(self)
            events += self.drain()
        return events + self.drain()

    def feed(self, packet: Any) -> None:
        """See `Stream.feed`."""
        self._check_open()
        task = self.engine.task
        if isinstance(packet, Draft) and not (isinstance(task, Previewing) and task.previews(self.memo)):
            return
        self.inbox.push(packet)
        self.engine.touch(self)

    def feed_flush(self) -> None:
        """See `Stream.feed_flush`."""
        self._check_open()
        self.inbox.flush()
        self.engine.touch(self)

    def end(self) -> None:
        """See `Stream.end`."""
        self._check_open()
        self.inbox.end()
        self.engine.touch(self)

    def drain(self) -> list[Event]:
        """See `Stream.drain`."""
        events, self._outbox = self._outbox, []
        if self._waiting_s:
            self._waiting_s = 0.0
            self.given_s = max(event.end for event in events if isinstance(event, Speech))
            self.engine.touch(self)  # there is room again
        return events

    def marker(self, id: str) -> list[Event]:
        """See `Stream.marker`."""
        self.feed_marker(id)
        return self.drain()

    def feed_marker(self, id: str) -> None:
        """`marker` without draining."""
        self._check_open()
        self.markers.append((self.inbox.received, id))
        self._flush_markers()

    def configure(self, **options: Any) -> None:
        """See `Stream.configure`."""
        self._check_open()
        aliases: dict[str, str] = getattr(self.options, "aliases", {})
        chosen = {aliases.get(name, name): value for name, value in options.items()}
        changed = parse_options(type(self.options), {**_shallow(self.options), **chosen})
        self.engine.task.configure(self.memo, changed)
        self.options = changed

    def interrupt(self, played_s: float | None = None) -> list[Event]:
        """See `Stream.interrupt`."""
        if self._closed:
            return self.drain()
        if played_s is not None and not 0 <= played_s < float("inf"):
            raise ValueError(f"played_s is a number of seconds from 0 on, got {played_s!r}")
        if self.busy:
            self._interruption = (played_s,)
        else:
            self._interrupt(played_s)
        return self.drain()

    def close(self) -> None:
        """See `Stream.close`."""
        self._done = self._closed = True
        self.engine.release(self)

    def capture(self) -> Callable[[], bytes]:
        """See `Stream.capture`."""
        if self._done or self.busy:
            raise StreamClosed("cannot take a snapshot of a stream that has ended or is in the middle of a step")
        part: State = self.engine.state.gather([self.slot])
        tensors = {f"state.{name}": tensor.contiguous() for name, tensor, _ in part.leaves()}
        tensors |= {f"inbox.{name}": tensor.clone() for name, tensor in self.inbox.tensors().items()}
        values = {
            "task": self.engine.task.fingerprint,
            "stream": self.stream,
            "sequence": self.sequence,
            "markers": self.markers,
            "given_s": self.given_s,
            "options": dataclasses.asdict(self.options),
            "inbox": self.inbox.to_dict(),
            "memo": self.memo.to_dict(),
        }
        header = json.dumps(values)
        return lambda: pack(safetensors.torch.save(tensors, {"session": header}))

    # ----------------------------------------------------------------------------------------- what the engine calls

    def settle(self, turn: Turn) -> None:
        """Take up what a step brought."""
        self.busy = False
        self._emit(turn.events)
        if self._closed:  # meanwhile
            return self.engine.release(self)
        if self._interruption is not None:
            (played_s,), self._interruption = self._interruption, None
            self._interrupt(played_s)
        if turn.error is not None:
            return self.fail("internal", f"the model failed on this stream: {_named(turn.error)}")
        if turn.done:
            return self._end()
        self._flush_markers()
        self.engine.touch(self)
        if self.upstream is not None:
            self.upstream.engine.touch(self.upstream)  # there is room for more of its output
        if self.observer is not None:
            self.observer(self)

    def fail(self, code: str, message: str) -> None:
        """End the stream with a `Failure`. Stages before it have nobody to speak to; those after it finish."""
        self.busy = False
        self._emit([Failure(code=code, message=message)])
        self._closed = True
        self._end()
        if self.upstream is not None:
            self.upstream.stop()

    def stop(self) -> None:
        """Close this stage and those before it."""
        self.close()
        if self.upstream is not None:
            self.upstream.stop()

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _following(self) -> Session | None:
        """The stage after it, as long as that takes input: it may have been closed, or have failed."""
        following = self.downstream
        return None if following is None or following.inbox.ended or following.done else following

    def _emit(self, events: list[Event]) -> None:
        """Stamp events and put them into the outbox."""
        stamped = []
        for event in events:
            stamps = {"stream": self.stream, "stage": self.stage, "sequence": self.sequence}
            stamped.append(dataclasses.replace(event, **stamps, emission_time=self.inbox.clock))  # type: ignore[arg-type]
            self.sequence += 1
            if isinstance(event, Speech):
                self._waiting_s += event.end - event.start
        self._outbox += stamped
        if (following := self._following) is not None:
            hand_on(stamped, following, words=not isinstance(self.engine.task, Overhearing))

    def _end(self) -> None:
        """The last step has been made."""
        self._done = True
        self._flush_markers()
        if (following := self._following) is not None:
            following.end()
        self.engine.release(self)
        if self.observer is not None:
            self.observer(self)

    def _flush_markers(self) -> None:
        """Emit the markers whose input has been processed; those of a step under way wait for its results.

        A generator that could step without input has not finished with what it took.
        """
        idle = self._done or not (self.busy or self.engine.task.wants(self.memo) == 0)
        while self.markers and idle and (self._done or self.inbox.passed(self.markers[0][0])):
            id = self.markers.pop(0)[1]
            if (following := self._following) is not None:
                following.feed_marker(id)
            else:
                self._emit([Marker(id=id)])

    def _interrupt(self, played_s: float | None) -> None:
        """Drop speech that nobody has got and text that nobody has heard, then let the task say what was heard."""
        first = self.sequence - len(self._outbox)
        kept = [event for event in self._outbox if not isinstance(event, Speech)]
        self._outbox = [dataclasses.replace(event, sequence=first + at) for at, event in enumerate(kept)]
        self.sequence, self._waiting_s = first + len(kept), 0.0
        self.given_s = self.given_s if played_s is None else min(played_s, self.given_s)
        self.inbox.discard()
        self._emit(self.engine.task.interrupt(self.memo, self.given_s))
        self._flush_markers()
        self.engine.touch(self)

    def _check_open(self) -> None:
        if self.inbox.ended or self._done:
            raise StreamClosed(f"stream '{self.stream}' has ended; open another one for more input")


def _shallow(options: Any) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
