"""The engine: one model, a pool of slots, and every ready session stepped in one batch."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from loquent.speech.audio.resamplers import Resamplers, TooManyTables
from loquent.speech.nn.transfer import staged
from loquent.speech.runtime.batch import Batch, bucket, padded
from loquent.speech.runtime.events import Speech
from loquent.speech.runtime.inbox import Inbox
from loquent.speech.runtime.load import Pace
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.snapshot import Header, Unpacked, foreign, under, unpack
from loquent.speech.runtime.task import Memo, Relaxing, Restorable, Shaped, Task, Turn
from loquent.speech.runtime.text_inbox import TextInbox

log = logging.getLogger(__name__)


MAX_CHANNELS = 64  # of the packets of a stream
BEHIND_STEPS = 3  # of input that waits in a stream that is not at the pace of its source
BURST_S = 2.0  # of input that a stream at the pace of its source may bring at once, as when it begins
BEHIND_SHARE = 0.5  # of the time that a step brings a stream forward: what it may take for the sake of such streams


class EngineFull(RuntimeError):
    """There is no room for another stream; try again when one has ended.

    reason: what there is too little of: "slots", "streams" (of the whole machine), or "load" (time of the machine).
    """

    def __init__(self, message: str, reason: str = "slots") -> None:
        super().__init__(message)
        self.reason = reason


class Engine:
    """Runs up to ``capacity`` sessions of one task.

    `step` = `collect` + `compute` + `deliver`, and `compute` = `launch` + `read`. A scheduler calls them itself, the
    latter two in a worker thread; the others and all session methods belong to one thread.

    Streams at the pace of their sources go first, even when the machine has fallen behind with them. Those whose input
    comes faster, as of one that has just come with a recording, fill what room there is beside them, a chunk at a time:
    as many as leave a step at half of the time that it brings a stream forward, and at least one.

    Args:
        task: the model.
        capacity: slots, all allocated at once (`nbytes` tells how much that is).
        max_batch: most sessions in one step; the longest-waiting go first.
        max_wait_s: how long a ready session may wait for others to share its batch.
        ahead_s: speech that may wait to be drained from a stream, in seconds; meanwhile it is not stepped.
        clock: monotonic seconds; only used for waiting times and for measuring, never for results.
        static: whether batches have few shapes, and the next one is launched before the last one is read, on the CPU
            too. A batch of audio then has 1, 2, 4, 8 … rows, and one of the widths that the task names. Rows without a
            stream are empty and in a slot of their own, the last of the pool.

    Attributes:
        pace: how long the latest steps took.
        measured_at: when the last of them was, by the clock.
        resamplers: between the rates of its streams and the model's; their tables are large, and clients choose them.
    """

    def __init__(
        self,
        task: Task,
        capacity: int = 1,
        max_batch: int | None = None,
        max_wait_s: float = 0.0,
        ahead_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        static: bool = False,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 stream, got {capacity}")
        self.task, self.capacity, self.max_batch = task, capacity, max_batch or capacity
        self.max_wait_s, self.ahead_s, self.clock = max_wait_s, ahead_s, clock
        alone = task.initial_state(1)
        self.device = next((tensor.device for _, tensor, _ in alone.leaves()), torch.device("cpu"))
        self.static = static or self.device.type != "cpu"
        slots = capacity + self.static
        self.state, self.bytes_per_slot = alone.pool(slots), alone.nbytes
        self._used: set[int] = set()
        self._free = list(range(capacity))[::-1]
        self._sessions: dict[int, Session] = {}
        self._ready: dict[Session, float] = {}  # those that can step, and since when; the longest-waiting first
        self._behind: set[Session] = set()  # those that are not at the pace of their sources
        self._names = itertools.count(1)
        self.pace, self.measured_at = Pace(), -math.inf
        self.resamplers = Resamplers()

    @property
    def active(self) -> int:
        """Sessions that hold a slot."""
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """Sessions that could step now."""
        return len(self._ready)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole pool."""
        return self.state.nbytes

    def open(
        self,
        *,
        sample_rate: int | None = None,
        channels: int = 1,
        stream: str | None = None,
        pressure: float = 0.0,
        **options: Any,
    ) -> Session:
        """Start a stream.

        Args:
            sample_rate: of the packets, in Hz; the model's own by default. For tasks that take audio.
            channels: of the packets; mixed down to one.
            stream: id for its events; numbered by default.
            pressure: how scarce time is, 0 … 1: the more, the larger the look-ahead that the stream is given, if the
                task has several (`Relaxing`). `Session.relaxed` tells what it was given instead of what it asked for.
            options: the task's (`Task.Options`).

        Raises:
            EngineFull: no slot is free.
            TooManyTables: the sample rate is unusual, and so are those of too many other streams.
            ValueError: an option is wrong; no slot is taken.
        """
        asked = chosen = parse_options(self.task.Options, options)
        if pressure > 0 and isinstance(self.task, Relaxing) and (larger := self.task.relaxed(asked)):
            chosen = larger[math.ceil(min(pressure, 1.0) * len(larger)) - 1]
        memo = self.task.start(chosen)
        try:
            inbox = self._inbox(sample_rate, channels)
            session = self._admit(stream or f"stream-{next(self._names)}", memo, chosen, inbox)
        except Exception:
            self.task.end(memo)
            raise
        given = vars(chosen).items()
        session.relaxed = {name: value for name, value in given if value != getattr(asked, name)}
        return self._begun(session)

    def restore(self, snapshot: bytes | Unpacked, stream: str | None = None) -> Session:
        """Continue a stream from `Session.snapshot`, as if it had never been interrupted.

        Raises:
            EngineFull, TooManyTables: there is no room for it.
            ValueError: not a snapshot, a damaged one, or one of another model; nothing is changed.
        """
        header, tensors = unpack(snapshot)
        if header.get("task") != self.task.fingerprint:
            raise ValueError(
                "the snapshot is of a stream of another model, or of one with other options (policy, chunk)"
            )
        with foreign("a snapshot of a stream of this model", EngineFull, TooManyTables):
            return self._restored(header, tensors, stream)

    def step(self) -> int:
        """Step every ready session once; returns how many there were."""
        batch = self.collect()
        if batch is None:
            return 0
        try:
            turns = self.compute(batch)
        except Exception as error:
            self.abort(batch, error)
            raise
        self.deliver(batch, turns)
        return len(batch.sessions)

    def run(self, session: Session) -> None:
        """Step until ``session`` is not ready (sessions that are ride along)."""
        while session in self._ready:
            self.step()

    def touch(self, session: Session) -> None:
        """Look again whether a session is ready: its input, its outbox or its options have changed."""
        if session.ready:
            self._ready.setdefault(session, self.clock())
        elif not session.busy:
            self._ready.pop(session, None)
            self._behind.discard(session)

    def next_deadline(self) -> float | None:
        """Clock time at which the next step is due; None while no session is ready."""
        if not self._ready:
            return None
        oldest = next(iter(self._ready.values()))
        return oldest if len(self._ready) >= self.max_batch else oldest + self.max_wait_s

    def collect(self) -> Batch | None:
        """Take what the ready sessions need out of their inboxes, the longest-waiting first; None without any."""
        begin = self.clock()
        wanted, failed = dict[Session, int](), list[Session]()
        for session in list(self._ready):
            try:
                wanted[session] = self.task.wants(session.memo) or 0
            except Exception as error:
                log.exception("a stream could not be stepped")
                self._give_up(session, error)
                failed.append(session)
        if failed:  # the other stages of their streams ended with them
            wanted = {session: count for session, count in wanted.items() if session in self._ready}
        sessions, width = self._chosen(wanted)
        if not sessions and not failed:
            return None
        for session in sessions:
            del self._ready[session]
            session.busy = True
        heard_s = sum(session.inbox.clock for session in sessions)
        claims = [session.inbox.claim(wanted[session]) for session in sessions]
        return Batch(sessions, claims, begin, heard_s, failed, width)

    def launch(self, batch: Batch) -> Any:
        """Start the device's work; touches only the batch's slots, memos and claims."""
        if not batch.sessions:
            return None
        inputs: Any = [
            session.inbox.resolve(claim) for session, claim in zip(batch.sessions, batch.claims, strict=True)
        ]
        slots = [session.slot for session in batch.sessions]
        if self.task.takes.kind == "audio":
            rows = bucket(len(slots)) if self.static else len(slots)
            slots += [self.capacity] * (rows - len(slots))
            inputs = padded(inputs, rows, batch.width, device=self.device, static=self.static or None)
        memos = [session.memo for session in batch.sessions]
        with torch.inference_mode():
            return self.task.launch(inputs, self.state, staged(slots, self.device), memos)

    def read(self, batch: Batch, pending: Any) -> list[Turn]:
        """Wait for what was launched, and do the host's work."""
        with torch.inference_mode():
            return self.task.read(pending) if batch.sessions else []

    def compute(self, batch: Batch) -> list[Turn]:
        """`launch` and `read`."""
        return self.read(batch, self.launch(batch))

    def deliver(self, batch: Batch, turns: list[Turn], since: float = -math.inf) -> None:
        """Hand results to their sessions; those that ended give back their slots.

        Args:
            since: when the machine had done what was launched before.
        """
        self._measure(batch, turns, since)
        for session, turn in zip(batch.sessions, turns, strict=True):
            if turn.error is not None:
                log.error("a stream failed", exc_info=turn.error)
            try:
                session.settle(turn)
            except Exception as error:
                log.exception("a stream failed between its steps")
                self._give_up(session, error)

    def abort(self, batch: Batch, error: Exception) -> None:
        """End the sessions of a batch that could not be computed; the others are untouched."""
        log.error("a step of %d sessions failed", len(batch.sessions), exc_info=error)
        for session in batch.sessions:
            self._give_up(session, error)

    def release(self, session: Session) -> None:
        """Free a session's slot (once its step under way, if any, is over)."""
        self._ready.pop(session, None)
        self._behind.discard(session)
        if not session.busy and self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
            self._free.append(session.slot)
            self.task.end(session.memo)

    def _give_up(self, session: Session, error: Exception) -> None:
        session.fail("internal", f"the model failed on this stream: {type(error).__name__}: {error}")

    def _measure(self, batch: Batch, turns: list[Turn], since: float) -> None:
        if self.task.takes.kind == "text" and self.task.gives.kind == "audio":
            spoken = (event for turn in turns for event in turn.events if isinstance(event, Speech))
            progress_s = sum(event.end - event.start for event in spoken)
        else:
            progress_s = sum(session.inbox.clock for session in batch.sessions) - batch.heard_s
        if batch.sessions:
            self.measured_at = self.clock()
            self.pace.observe(len(batch.sessions), self.measured_at - max(batch.begin, since), progress_s)

    def _chosen(self, wanted: dict[Session, int]) -> tuple[list[Session], int | None]:
        """Who takes part in the next step, and how many samples their rows are padded to.

        Args:
            wanted: of those that are ready, the longest-waiting first.
        """
        behind = [session for session, count in wanted.items() if self._is_behind(session, count)]
        if not behind or len(behind) == self.active or self.max_batch == 1:
            chosen = list(wanted)
        else:
            live = [session for session in wanted if session not in behind][: self.max_batch - 1]
            most = self.pace.streams_within(self.pace.stream_seconds * BEHIND_SHARE, len(live) + len(behind))
            chosen = live + behind[: max(most - len(live), 1)]
        width = next((self._width(count) for session, count in wanted.items() if session in chosen), None)
        if width is not None:
            chosen = [session for session in chosen if self._width(wanted[session]) == width]
        return chosen[: self.max_batch], width

    def _is_behind(self, session: Session, wanted: int) -> bool:
        """Whether much input that came faster than time passed waits in a stream, or did since it last had to wait."""
        unit = self.task.takes.sample_rate or 1
        if wanted > 0 and session.inbox.pending * unit >= BEHIND_STEPS * wanted and not self._is_live(session):
            self._behind.add(session)
        return session in self._behind

    def _is_live(self, session: Session) -> bool:
        began_s, before_s = session.began
        return 0 < session.inbox.seconds - before_s <= self.clock() - began_s + BURST_S

    def _width(self, wanted: int) -> int | None:
        if not (self.static and isinstance(self.task, Shaped)):
            return None
        return next(width for width in self.task.widths if width >= wanted)

    def _inbox(self, sample_rate: int | None, channels: int) -> Inbox:
        port = self.task.takes
        if port.kind == "text":
            if sample_rate is not None or channels != 1:
                raise ValueError("this model takes text, which has neither sample_rate nor channels")
            return TextInbox()
        assert port.sample_rate is not None
        rate = port.sample_rate if sample_rate is None else sample_rate
        if type(rate) is not int:
            raise ValueError(f"the sample rate is a whole number of Hz, got {rate!r}")
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"expected from 1 to {MAX_CHANNELS} channels, got {channels!r}")
        return SampleInbox(rate, channels, port.sample_rate, self.resamplers.get(rate, port.sample_rate))

    def _admit(self, stream: str, memo: Memo, options: Any, inbox: Inbox) -> Session:
        if not self._free:
            raise EngineFull(f"all {self.capacity} streams are in use; raise the capacity or try again later")
        slot = self._free.pop()
        if slot in self._used:
            self.state.reset([slot])
        self._used.add(slot)
        session = self._sessions[slot] = Session(self, stream, memo, options, inbox, slot)
        session.began = (self.clock(), inbox.seconds)
        return session

    def _restored(self, header: Header, tensors: dict[str, torch.Tensor], stream: str | None) -> Session:
        options = parse_options(self.task.Options, header.mapping("options"))
        values = header.mapping("inbox")
        inbox = self._inbox(values.get("sample_rate"), values.get("channels", 1))
        inbox.restore(values, under(tensors, "inbox."))
        slot = self.state.gather([0])
        slot.load(under(tensors, "state."))
        markers, sequence = header.markers(inbox.received), header.count("sequence")
        given_s, name = header.seconds("given_s"), header.text("stream")
        memo = self.task.restore(header.mapping("memo"))
        try:
            if isinstance(self.task, Restorable):
                self.task.check_restored(memo, slot)
            session = self._admit(stream or name, memo, options, inbox)
        except Exception:
            self.task.end(memo)
            raise
        session.sequence, session.markers, session.given_s = sequence, markers, given_s
        self.state.scatter([session.slot], slot)
        return self._begun(session)

    def _begun(self, session: Session) -> Session:
        """Look whether a new session can step: a task may have something to say before anything comes in."""
        try:
            self.touch(session)
        except Exception:
            session.close()
            raise
        return session
