"""One stream, sans-I/O: packets in, events out; no sockets, no threads, no clock but audio time."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from loquent.speech.audio.files import Audio
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.events import Event, Failure, Marker
from loquent.speech.runtime.inbox import Inbox

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine


class Memo(Protocol):
    """What a task remembers of one stream on the host (hypotheses, options): a dataclass of JSON-able values."""

    def to_dict(self) -> dict[str, Any]: ...


class StreamingTask(Protocol):
    """What an engine drives: a model with a pool of slots.

    Each task has its own kinds of state, memo and options, and is given back only what it made: hence `Any`.
    """

    sample_rate: int
    fingerprint: str  # of weights and options: two tasks that have the same one continue each other's streams

    def initial_state(self, slots: int) -> State:
        """Pool of ``slots`` streams."""

    def start(self, *_: Any, **options: Any) -> Memo:
        """Check a new stream's options, which are given by keyword."""

    def configure(self, memo: Any, *_: Any, **options: Any) -> None:
        """Change options of a stream under way, from the step after its next one at the latest."""

    def restore(self, values: dict[str, Any]) -> Memo:
        """Inverse of ``Memo.to_dict``."""

    def samples_wanted(self, memo: Any) -> int:
        """Number of samples (at ``sample_rate``) that the stream's next step takes."""

    def step(self, samples: Chunk, state: Any, rows: Tensor, memos: list[Any]) -> list[list[Event]]:
        """Advance streams by one step each; returns every stream's new events."""


@runtime_checkable
class Lender(Protocol):
    """A `StreamingTask` that lends its streams something (an adapter), and wants to know when they are over."""

    def end(self, memo: Any) -> None:
        """A stream that began or was restored here takes no further step."""


def check_option_names(taker: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that a task's ``start`` or ``configure`` has no parameter for.

    Raises:
        ValueError: there is such an option.
    """
    parameters = inspect.signature(taker).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind in by_keyword]
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"this model's streams have no option {', '.join(unknown)}; expected {', '.join(known)}")


class SessionClosed(RuntimeError):
    """A packet was pushed to a session that has ended."""


class Session:
    """One stream of an `Engine`; made by `Engine.open` or by a task's ``session()``.

    `push` and `finish` are all most callers need. A server that steps many sessions together uses `feed`, `end` and
    `drain` and leaves the stepping to `Engine.step`.
    """

    def __init__(self, engine: Engine, stream: str, memo: Memo, inbox: Inbox, slot: int) -> None:
        self.engine, self.stream, self.memo, self.inbox, self.slot = engine, stream, memo, inbox, slot
        self.sequence = 0
        self.markers: list[tuple[int, str]] = []  # (native samples received before it, id)
        self.done = False  # the last step has been made: nothing more will come
        self.busy = False  # its slot is in a batch under way
        self._outbox: list[Event] = []

    def push(self, packet: Audio | np.ndarray | bytes) -> list[Event]:
        """Feed a packet of any size and return what it brought about.

        Args:
            packet: `Audio` at the session's rate; or samples that are, int16 or float32 in [-1, 1], (samples,) or
                (samples, channels), or PCM16 bytes.

        Raises:
            SessionClosed: after `finish`.
            ValueError: wrong dtype, channel count, rate or NaN; the packet is dropped whole and the stream can go on.
        """
        self.feed(packet)
        self.engine.run(self)
        return self.drain()

    def finish(self) -> list[Event]:
        """End the stream and return every event still to come; the slot is free afterwards."""
        self.end()
        self.engine.run(self)
        return self.drain()

    def marker(self, id: str) -> list[Event]:
        """Ask for a `Marker` event once everything pushed so far has been processed."""
        self._check_open()
        self.markers.append((self.inbox.received, id))
        self.flush_markers()
        return self.drain()

    def configure(self, **options: Any) -> None:
        """Change options while the stream goes on; which ones can be changed is the task's to say.

        Raises:
            ValueError: an option is wrong or cannot be changed; nothing is.
        """
        self._check_open()
        change = functools.partial(self.engine.task.configure, self.memo)
        check_option_names(change, options)
        change(**options)

    def feed(self, packet: Audio | np.ndarray | bytes) -> None:
        """Buffer a packet without stepping."""
        self._check_open()
        self.inbox.push(packet)

    def end(self) -> None:
        """Say that no packet follows, without stepping."""
        self._check_open()
        self.inbox.end()

    def drain(self) -> list[Event]:
        """Return the events made since the last call."""
        events, self._outbox = self._outbox, []
        return events

    def close(self) -> None:
        """Drop the stream without processing what is buffered, and free its slot."""
        self.engine.release(self)

    @property
    def ready(self) -> bool:
        """Whether the next step's samples are there."""
        return not (self.done or self.busy) and self.inbox.available(self.engine.task.samples_wanted(self.memo))

    @property
    def nbytes(self) -> int:
        """Bytes of state: the model's slot and the audio that waits."""
        return self.engine.bytes_per_slot + self.inbox.raw.nbytes + self.inbox.tail.nbytes

    def emit(self, events: list[Event]) -> None:
        """Stamp events and put them into the outbox (called by the engine)."""
        now = self.inbox.taken / self.inbox.model_rate
        for event in events:
            self._outbox.append(
                dataclasses.replace(event, stream=self.stream, sequence=self.sequence, emission_time=now)
            )
            self.sequence += 1

    def flush_markers(self) -> None:
        """Emit the markers whose audio has been processed; those of a step under way wait for its results."""
        while self.markers and not self.busy and (self.done or self.inbox.passed(self.markers[0][0])):
            self.emit([Marker(id=self.markers.pop(0)[1])])

    def fail(self, code: str, message: str) -> None:
        """End the stream with a `Failure`."""
        self.emit([Failure(code=code, message=message)])
        self.engine.release(self)

    def snapshot(self) -> bytes:
        """The whole stream as bytes, to be continued by `Engine.restore` here or in another process.

        Take it between steps. Events that were not drained belong to the old session and are not included.
        """
        if self.done or self.busy:
            raise SessionClosed("cannot take a snapshot of a session that has ended or is in the middle of a step")
        tensors = {f"state.{k}": v.contiguous() for k, v, _ in self.engine.state.gather([self.slot]).leaves()}
        tensors |= {f"resampler.{k}": v.contiguous() for k, v, _ in self.inbox.resampler_state.leaves()}
        tensors |= {"raw": torch.from_numpy(self.inbox.raw.copy()), "tail": torch.from_numpy(self.inbox.tail.copy())}
        inbox = {k: getattr(self.inbox, k) for k in _INBOX_FIELDS}
        header = {"stream": self.stream, "sequence": self.sequence, "markers": self.markers, "inbox": inbox}
        header["task"] = self.engine.task.fingerprint
        return safetensors.torch.save(tensors, {"session": json.dumps(header | {"memo": self.memo.to_dict()})})

    def _check_open(self) -> None:
        if self.inbox.ended or self.done:
            raise SessionClosed(f"session '{self.stream}' has ended; open another one for more audio")


_INBOX_FIELDS = ("sample_rate", "channels", "received", "resampled", "taken", "ended", "flushed")


def read_snapshot(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split a snapshot into its header and tensors.

    Raises:
        ValueError: the bytes are not a snapshot.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["session"])
        return header, safetensors.torch.load(data)
    except Exception as error:
        raise ValueError(f"not a session snapshot: {error}") from error


def restore_session(session: Session, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Overwrite a fresh session's slot, inbox and counters with a snapshot's."""
    for name in _INBOX_FIELDS:
        setattr(session.inbox, name, header["inbox"][name])
    session.inbox.raw, session.inbox.tail = tensors.pop("raw").numpy(), tensors.pop("tail").numpy()
    slot = session.engine.state.gather([session.slot])
    for prefix, target in (("state.", slot), ("resampler.", session.inbox.resampler_state)):
        part = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        target.from_bytes(safetensors.torch.save(part))
    session.engine.state.scatter([session.slot], slot)
    session.sequence = header["sequence"]
    session.markers = [(position, id) for position, id in header["markers"]]
