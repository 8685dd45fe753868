"""The engine: one model, a pool of slots, and every ready session stepped in one batch."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from loquent.speech.audio.resample import Resampler
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.events import Event
from loquent.speech.runtime.inbox import Inbox
from loquent.speech.runtime.session import (
    Lender,
    Memo,
    Session,
    StreamingTask,
    check_option_names,
    read_snapshot,
    restore_session,
)

log = logging.getLogger(__name__)


class EngineFull(RuntimeError):
    """All slots are taken; try again when a stream has ended, or use a larger capacity."""


@dataclass(frozen=True)
class Batch:
    """Sessions that step together, and their samples."""

    sessions: list[Session]
    samples: Chunk
    rows: torch.Tensor


class Engine:
    """Runs up to ``capacity`` sessions of one task.

    `step` = `collect` + `compute` + `deliver`. A server calls the three itself, `compute` in a worker thread; the other
    two and all session methods belong to one thread.

    Args:
        task: the model.
        capacity: slots, all allocated at once (`nbytes` tells how much that is).
        max_batch: most sessions in one step; the longest-waiting go first.
        max_wait_s: how long a ready session may wait for others to share its batch.
        clock: monotonic seconds; only used for waiting times, never for results.
    """

    def __init__(
        self,
        task: StreamingTask,
        capacity: int = 1,
        max_batch: int | None = None,
        max_wait_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 stream, got {capacity}")
        self.task, self.capacity, self.max_batch, self.max_wait_s = task, capacity, max_batch or capacity, max_wait_s
        self.state = task.initial_state(capacity)
        self.bytes_per_slot = self.state.nbytes // capacity
        self.clock = clock
        self._free = list(range(capacity))[::-1]
        self._sessions: dict[int, Session] = {}
        self._ready_since: dict[int, float] = {}
        self._names = itertools.count(1)
        # Shared, as their tables can be large; bounded, as clients choose the rates.
        self.resampler = functools.lru_cache(16)(lambda rate: Resampler(rate, task.sample_rate))

    @property
    def active(self) -> int:
        """Sessions that hold a slot."""
        return len(self._sessions)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole pool."""
        return self.state.nbytes

    def open(
        self, *, sample_rate: int | None = None, channels: int = 1, stream: str | None = None, **options: Any
    ) -> Session:
        """Start a stream.

        Args:
            sample_rate: of the packets, in Hz; the model's own by default.
            channels: of the packets; mixed down to one.
            stream: id for its events; numbered by default.
            options: the task's (see its ``start``).

        Raises:
            EngineFull: no slot is free.
            ValueError: an option is wrong; no slot is taken.
        """
        check_option_names(self.task.start, options)
        memo = self.task.start(**options)
        inbox = self._inbox(sample_rate or self.task.sample_rate, channels)
        return self._admit(stream or f"stream-{next(self._names)}", memo, inbox)

    def restore(self, snapshot: bytes, stream: str | None = None) -> Session:
        """Continue a stream from `Session.snapshot`, as if it had never been interrupted.

        Raises:
            EngineFull: no slot is free.
            ValueError: not a snapshot, or one of another model.
        """
        header, tensors = read_snapshot(snapshot)
        if header.get("task") != self.task.fingerprint:
            raise ValueError(
                "the snapshot is of a stream of another model, or of one with other options (policy, chunk)"
            )
        inbox = self._inbox(header["inbox"]["sample_rate"], header["inbox"]["channels"])
        session = self._admit(stream or header["stream"], self.task.restore(header["memo"]), inbox)
        try:
            restore_session(session, header, tensors)
        except Exception:
            self.release(session)
            raise
        return session

    def step(self) -> int:
        """Step every ready session once; returns how many there were."""
        batch = self.collect()
        if batch is None:
            return 0
        try:
            results = self.compute(batch)
        except Exception as error:
            self.abort(batch, error)
            raise
        self.deliver(batch, results)
        return len(batch.sessions)

    def run(self, session: Session) -> None:
        """Step until ``session`` has used what it was given (sessions that are ready ride along)."""
        while session.ready:
            self.step()

    def next_deadline(self) -> float | None:
        """Clock time at which the next step is due; None while no session is ready."""
        now = self.clock()
        ready = {slot for slot, session in self._sessions.items() if session.ready}
        self._ready_since = {slot: self._ready_since.get(slot, now) for slot in ready}
        if not ready:
            return None
        return now if len(ready) >= self.max_batch else min(self._ready_since.values()) + self.max_wait_s

    def collect(self) -> Batch | None:
        """Take the samples of the ready sessions, the longest-waiting first; None when there are none."""
        if self.next_deadline() is None:
            return None
        slots = sorted(self._ready_since, key=lambda slot: (self._ready_since[slot], slot))[: self.max_batch]
        sessions = [self._sessions[slot] for slot in slots]
        taken = []
        for session in sessions:
            taken.append(session.inbox.take(self.task.samples_wanted(session.memo)))
            session.busy = True
            del self._ready_since[session.slot]
        samples = np.zeros((len(taken), max(len(block) for block, _ in taken)), np.float32)
        for row, (block, _) in zip(samples, taken, strict=True):
            row[: len(block)] = block
        chunk = Chunk(
            torch.from_numpy(samples),
            torch.tensor([len(block) for block, _ in taken]),
            torch.tensor([last for _, last in taken]),
        )
        return Batch(sessions, chunk, torch.tensor(slots))

    def compute(self, batch: Batch) -> list[list[Event]]:
        """Run the model; touches only the batch's slots and memos."""
        with torch.inference_mode():
            return self.task.step(batch.samples, self.state, batch.rows, [session.memo for session in batch.sessions])

    def deliver(self, batch: Batch, results: list[list[Event]]) -> None:
        """Hand results to their sessions; those that ended give back their slots."""
        for session, events, last in zip(batch.sessions, results, batch.samples.last.tolist(), strict=True):
            session.busy = False
            session.emit(events)
            session.done |= last
            session.flush_markers()
            if session.done:
                self.release(session)

    def abort(self, batch: Batch, error: Exception) -> None:
        """End the sessions of a batch that could not be computed; the others are untouched."""
        log.error("a step of %d sessions failed", len(batch.sessions), exc_info=error)
        for session in batch.sessions:
            session.busy = False
            session.fail("internal", f"the model failed on this stream: {type(error).__name__}: {error}")

    def release(self, session: Session) -> None:
        """Free a session's slot (once its step under way, if any, is over)."""
        session.done = True
        if not session.busy and self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
            self._free.append(session.slot)
            if isinstance(self.task, Lender):
                self.task.end(session.memo)

    def _inbox(self, sample_rate: int, channels: int) -> Inbox:
        return Inbox(sample_rate, channels, self.task.sample_rate, self.resampler(sample_rate))

    def _admit(self, stream: str, memo: Memo, inbox: Inbox) -> Session:
        if not self._free:
            raise EngineFull(f"all {self.capacity} streams are in use; raise the capacity or try again later")
        slot = self._free.pop()
        self.state.reset([slot])
        session = self._sessions[slot] = Session(self, stream, memo, inbox, slot)
        return session
