"""Sessions in a row: what one commits is the input of the next, as in speech to text to translation to speech."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Self

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.snapshot import Unpacked, pack_parts, parts_of, unpack
from loquent.speech.runtime.stream import Stream, StreamClosed

_names = itertools.count(1)


class Pipeline(Stream):
    """A stream of several stages. Sessions are composed, not tasks: each engine keeps its own batch.

    Every event of every stage comes out, with the name of its stage; events are numbered within their stage. What a
    stage says is the same for every packet size. `run` steps the last stage that can step, so in `push` and `finish`
    the order between the stages is the same too; a scheduler steps the stages of many streams as they become ready.

    A stage waits while too much text waits before the next one. When a stage fails those before it are closed, and
    those after it say what was committed until then.

    Args:
        stages: sessions by name, in the order of the data; the output of each fits the input of the next.
        stream: id of the events; numbered by default.

    Raises:
        ValueError: fewer than one stage, or two whose ports do not fit.
    """

    def __init__(self, stages: Mapping[str, Session], stream: str | None = None) -> None:
        if not stages:
            raise ValueError("a pipeline needs at least one stage, got none")
        self.stream = stream or f"pipeline-{next(_names)}"
        self._stages = dict(stages)
        for (name, first), (other, second) in itertools.pairwise(stages.items()):
            if first.gives.kind != second.takes.kind:
                raise ValueError(f"'{name}' gives {first.gives.kind}, but '{other}' takes {second.takes.kind}")
            rate = getattr(second.inbox, "sample_rate", None)
            if rate != first.gives.sample_rate:
                raise ValueError(
                    f"'{name}' gives audio at {first.gives.sample_rate} Hz, but '{other}' was opened for {rate} Hz; "
                    f"open it with sample_rate={first.gives.sample_rate}"
                )
            first.downstream, second.upstream = second, first
        for name, session in stages.items():
            session.stage, session.stream = name, self.stream
        self.takes, self.gives = self.sessions[0].takes, self.sessions[-1].gives
        self.inbox = self.sessions[0].inbox

    @classmethod
    def open(
        cls,
        engines: Mapping[str, Engine],
        *,
        sample_rate: int | None = None,
        channels: int = 1,
        stream: str | None = None,
        pressure: float = 0.0,
        **options: Any,
    ) -> Self:
        """Start a session on each engine and put them in a row.

        Args:
            engines: by the name of the stage, in order.
            sample_rate, channels: of the packets, if the first stage takes audio.
            pressure: as for `Engine.open`, of every stage.
            options: each goes to the first stage that has an option of this name.

        Raises:
            EngineFull: an engine has no free slot; none is taken.
            ValueError: an option is wrong or no stage has it, or the stages do not fit each other.
        """
        chosen = shared_out(engines, options)
        audio: dict[str, Any] = {"sample_rate": sample_rate, "channels": channels}
        stages: dict[str, Session] = {}
        try:
            for name, engine in engines.items():
                stages[name] = engine.open(**audio, pressure=pressure, **chosen[name])
                rate = engine.task.gives.sample_rate
                audio = {} if rate is None else {"sample_rate": rate}
            return cls(stages, stream)
        except Exception:
            for session in stages.values():
                session.close()
            raise

    @classmethod
    def restore(cls, snapshot: bytes | Unpacked, engines: Mapping[str, Engine], stream: str | None = None) -> Self:
        """Continue from `snapshot` on engines of the same tasks, by the same names.

        Raises:
            EngineFull, TooManyTables: there is no room for it; no slot is taken.
            ValueError: not a snapshot of such a pipeline, or a damaged one; nothing is changed.
        """
        header, tensors = unpack(snapshot)
        if header.get("stages") != list(engines):
            raise ValueError(f"not a snapshot of a pipeline of {', '.join(engines)}, but of other stages")
        name, parts = header.text("stream"), parts_of(tensors, engines, "a snapshot of such a pipeline")
        stages: dict[str, Session] = {}
        try:
            for stage, engine in engines.items():
                stages[stage] = engine.restore(parts[stage])
            return cls(stages, stream or name)
        except Exception:
            for session in stages.values():
                session.close()
            raise

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The stages, in order."""
        return tuple(self._stages.values())

    @property
    def done(self) -> bool:
        """Whether every stage has made its last step."""
        return all(session.done for session in self.sessions)

    @property
    def waiting_markers(self) -> int:
        """Markers that have not come out of the last stage."""
        return sum(session.waiting_markers for session in self.sessions)

    def run(self) -> list[Event]:
        """See `Stream.run`."""
        events = self.drain()
        while (session := next((one for one in reversed(self.sessions) if one.ready), None)) is not None:
            session.engine.step()
            events += self.drain()
        return events

    def feed(self, packet: Any) -> None:
        """See `Stream.feed`."""
        self.sessions[0].feed(packet)

    def feed_flush(self) -> None:
        """See `Stream.feed_flush`."""
        self.sessions[0].feed_flush()

    def end(self) -> None:
        """See `Stream.end`."""
        self.sessions[0].end()

    def drain(self) -> list[Event]:
        """See `Stream.drain`."""
        return [event for session in self.sessions for event in session.drain()]

    def marker(self, id: str) -> list[Event]:
        """Ask for a `Marker` event of the last stage once everything pushed so far has gone through all of them."""
        self.sessions[0].feed_marker(id)
        return self.drain()

    def configure(self, **options: Any) -> None:
        """See `Stream.configure`; each option goes to the first stage that has it."""
        for name, chosen in shared_out({n: s.engine for n, s in self._stages.items()}, options).items():
            if chosen:
                self._stages[name].configure(**chosen)

    def interrupt(self, played_s: float | None = None) -> list[Event]:
        """Stop what the last stage says; the stages before it go on, and what they commit later is said."""
        before = [event for session in self.sessions[:-1] for event in session.drain()]
        return before + self.sessions[-1].interrupt(played_s)

    def capture(self) -> Callable[[], bytes]:
        """See `Stream.capture`. Stages that have ended cannot be saved."""
        if any(session.done for session in self.sessions):
            raise StreamClosed("cannot take a snapshot of a pipeline with a stage that has ended")
        parts = {name: session.capture() for name, session in self._stages.items()}
        return pack_parts({"stream": self.stream, "stages": list(parts)}, parts)

    def close(self) -> None:
        """See `Stream.close`."""
        for session in self.sessions:
            session.close()


def shared_out(engines: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by stage: each for the first one that has it."""
    chosen: dict[str, dict[str, Any]] = {name: {} for name in engines}
    for option, value in options.items():
        for name, engine in engines.items():
            kind = engine.task.Options
            if option in getattr(kind, "aliases", {}) or option in {field.name for field in dataclasses.fields(kind)}:
                chosen[name][option] = value
                break
        else:
            raise ValueError(f"no stage has an option {option!r}; the stages are {', '.join(engines)}")
    return chosen
