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
from loquent.speech.runtime.inbox import Inbox, SampleInbox, TextInbox
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.snapshot import unpack
from loquent.speech.runtime.task import Memo, Task, Turn

log = logging.getLogger(__name__)


class EngineFull(RuntimeError):
    """All slots are taken; try again when a stream has ended, or use a larger capacity."""


@dataclass(frozen=True)
class Batch:
    """Sessions that step together, what each takes out of its inbox, and their slots."""

    sessions: list[Session]
    claims: list[Any]
    rows: torch.Tensor


class Engine:
    """Runs up to ``capacity`` sessions of one task.

    `step` = `collect` + `compute` + `deliver`. A scheduler calls the three itself, `compute` in a worker thread; the
    other two and all session methods belong to one thread.

    Args:
        task: the model.
        capacity: slots, all allocated at once (`nbytes` tells how much that is).
        max_batch: most sessions in one step; the longest-waiting go first.
        max_wait_s: how long a ready session may wait for others to share its batch.
        ahead_s: speech that may wait to be drained from a stream, in seconds; meanwhile it is not stepped.
        clock: monotonic seconds; only used for waiting times, never for results.
    """

    def __init__(
        self,
        task: Task,
        capacity: int = 1,
        max_batch: int | None = None,
        max_wait_s: float = 0.0,
        ahead_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 stream, got {capacity}")
        self.task, self.capacity, self.max_batch = task, capacity, max_batch or capacity
        self.max_wait_s, self.ahead_s, self.clock = max_wait_s, ahead_s, clock
        self.state = task.initial_state(capacity)
        self.bytes_per_slot = self.state.nbytes // capacity
        self._free = list(range(capacity))[::-1]
        self._sessions: dict[int, Session] = {}
        self._ready: dict[Session, float] = {}  # those that can step, and since when; the longest-waiting first
        self._names = itertools.count(1)
        # Shared, as their tables can be large; bounded, as clients choose the rates.
        self.resampler = functools.lru_cache(16)(lambda rate: Resampler(rate, task.takes.sample_rate or rate))

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
        self, *, sample_rate: int | None = None, channels: int = 1, stream: str | None = None, **options: Any
    ) -> Session:
        """Start a stream.

        Args:
            sample_rate: of the packets, in Hz; the model's own by default. For tasks that take audio.
            channels: of the packets; mixed down to one.
            stream: id for its events; numbered by default.
            options: the task's (`Task.Options`).

        Raises:
            EngineFull: no slot is free.
            ValueError: an option is wrong; no slot is taken.
        """
        chosen = parse_options(self.task.Options, options)
        memo = self.task.start(chosen)
        try:
            inbox = self._inbox(sample_rate, channels)
            return self._admit(stream or f"stream-{next(self._names)}", memo, chosen, inbox)
        except Exception:
            self.task.end(memo)
            raise

    def restore(self, snapshot: bytes, stream: str | None = None) -> Session:
        """Continue a stream from `Session.snapshot`, as if it had never been interrupted.

        Raises:
            EngineFull: no slot is free.
            ValueError: not a snapshot, a damaged one, or one of another model; nothing is changed.
        """
        header, tensors = unpack(snapshot)
        if header.get("task") != self.task.fingerprint:
            raise ValueError(
                "the snapshot is of a stream of another model, or of one with other options (policy, chunk)"
            )
        try:
            return self._restored(header, tensors, stream)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a snapshot of a stream of this model: {error!r}") from error

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
        else:
            self._ready.pop(session, None)

    def next_deadline(self) -> float | None:
        """Clock time at which the next step is due; None while no session is ready."""
        if not self._ready:
            return None
        oldest = next(iter(self._ready.values()))
        return oldest if len(self._ready) >= self.max_batch else oldest + self.max_wait_s

    def collect(self) -> Batch | None:
        """Take what the ready sessions need out of their inboxes, the longest-waiting first; None without any."""
        sessions = list(itertools.islice(self._ready, self.max_batch))
        if not sessions:
            return None
        claims = []
        for session in sessions:
            del self._ready[session]
            claims.append(session.inbox.claim(self.task.wants(session.memo) or 0))
            session.busy = True
        return Batch(sessions, claims, torch.tensor([session.slot for session in sessions]))

    def compute(self, batch: Batch) -> list[Turn]:
        """Run the model; touches only the batch's slots, memos and claims."""
        inputs: Any = [
            session.inbox.resolve(claim) for session, claim in zip(batch.sessions, batch.claims, strict=True)
        ]
        if self.task.takes.kind == "audio":
            inputs = _padded(inputs)
        memos = [session.memo for session in batch.sessions]
        with torch.inference_mode():
            return self.task.read(self.task.launch(inputs, self.state, batch.rows, memos))

    def deliver(self, batch: Batch, turns: list[Turn]) -> None:
        """Hand results to their sessions; those that ended give back their slots."""
        for session, turn in zip(batch.sessions, turns, strict=True):
            if turn.error is not None:
                log.error("a stream failed", exc_info=turn.error)
            session.settle(turn)

    def abort(self, batch: Batch, error: Exception) -> None:
        """End the sessions of a batch that could not be computed; the others are untouched."""
        log.error("a step of %d sessions failed", len(batch.sessions), exc_info=error)
        for session in batch.sessions:
            session.fail("internal", f"the model failed on this stream: {type(error).__name__}: {error}")

    def release(self, session: Session) -> None:
        """Free a session's slot (once its step under way, if any, is over)."""
        self._ready.pop(session, None)
        if not session.busy and self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
            self._free.append(session.slot)
            self.task.end(session.memo)

    def _inbox(self, sample_rate: int | None, channels: int) -> Inbox:
        port = self.task.takes
        if port.kind == "text":
            if sample_rate is not None or channels != 1:
                raise ValueError("this model takes text, which has neither sample_rate nor channels")
            return TextInbox()
        assert port.sample_rate is not None
        rate = sample_rate or port.sample_rate
        return SampleInbox(rate, channels, port.sample_rate, self.resampler(rate))

    def _admit(self, stream: str, memo: Memo, options: Any, inbox: Inbox) -> Session:
        if not self._free:
            raise EngineFull(f"all {self.capacity} streams are in use; raise the capacity or try again later")
        slot = self._free.pop()
        self.state.reset([slot])
        session = self._sessions[slot] = Session(self, stream, memo, options, inbox, slot)
        self.touch(session)  # a task may have something to say before anything comes in
        return session

    def _restored(self, header: dict[str, Any], tensors: dict[str, torch.Tensor], stream: str | None) -> Session:
        options = parse_options(self.task.Options, header["options"])
        values = header["inbox"]
        inbox = self._inbox(values.get("sample_rate"), values.get("channels", 1))
        inbox.restore(values, _under(tensors, "inbox."))
        slot = self.state.gather([0])
        slot.load(_under(tensors, "state."))
        markers = [(int(position), str(id)) for position, id in header["markers"]]
        sequence, given_s = int(header["sequence"]), float(header["given_s"])
        memo = self.task.restore(header["memo"])
        try:
            session = self._admit(stream or str(header["stream"]), memo, options, inbox)
        except Exception:
            self.task.end(memo)
            raise
        self.state.scatter([session.slot], slot)
        session.sequence, session.markers, session.given_s = sequence, markers, given_s
        self.touch(session)
        return session


def _padded(taken: list[tuple[np.ndarray, bool]]) -> Chunk:
    samples = np.zeros((len(taken), max(len(block) for block, _ in taken)), np.float32)
    for row, (block, _) in zip(samples, taken, strict=True):
        row[: len(block)] = block
    return Chunk(
        torch.from_numpy(samples),
        torch.tensor([len(block) for block, _ in taken]),
        torch.tensor([last for _, last in taken]),
    )


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
